"""The one reader of foreign weights: torch's own format, pickles of numpy arrays and safetensors, as plain data."""

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from retinanet.errors import CheckpointError, list_errors
from retinanet.files import replacing
from retinanet.interop.numpy_pickle import read_numpy_pickle
from retinanet.model.backbone import ARCHITECTURES, InitialWeights
from retinanet.run.checkpoint import refused_global
from retinanet.run.published import read_safetensors

WRAPPERS = ("state_dict", "model", "blobs")
"""Keys under which training programs store a state dict among other things."""

DISTRIBUTED = "module."
"""Prefix that DistributedDataParallel and DataParallel give every name."""

ZIP, PICKLE = b"PK", b"\x80"
"""First bytes of files that torch.save writes; the second until torch 1.5."""


class WeightsFile(NamedTuple):
    """Content of a file of weights."""

    tensors: dict[str, Tensor]
    """By name, on the CPU; floating point as float32."""
    meta: Mapping[str, Any]
    """mmdetection's `meta`, or the metadata of a safetensors file; else empty."""
    stripped: str = ""
    """Prefix that every name has in the file and that `tensors` leaves out."""


def read_weights(path: Path) -> WeightsFile:
    """Read the state dict of a .pth, .pt, .pkl or .safetensors file.

    A state dict under one of WRAPPERS is found there. Raises CheckpointError for a file that is missing, damaged or
    more than plain data.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: {'is a folder; give a file' if path.is_dir() else 'no such file'}.")
    if path.suffix == ".safetensors":
        tensors, header = read_safetensors(path)
        return _without_prefix(WeightsFile({name: _plain(value) for name, value in tensors.items()}, header))
    content = read_numpy_pickle(path) if path.suffix == ".pkl" else _read_torch(path)
    meta = content.get("meta") if isinstance(content, dict) else None
    return _without_prefix(WeightsFile(_state(content, path), meta if isinstance(meta, dict) else {}))


def _without_prefix(file: WeightsFile) -> WeightsFile:
    if not file.tensors or not all(name.startswith(DISTRIBUTED) for name in file.tensors):
        return file
    tensors = {name.removeprefix(DISTRIBUTED): value for name, value in file.tensors.items()}
    return file._replace(tensors=tensors, stripped=DISTRIBUTED)


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """One line for each tensor that holds NaN or infinity."""
    return [
        f"{name} has {value.numel() - int(value.isfinite().sum()):,} of {value.numel():,} values NaN or infinite"
        for name, value in tensors.items()
        if value.is_floating_point() and not value.isfinite().all()
    ]


def _numpy_scalars() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Types that torch.load needs for numpy's scalars, such as a learning rate in mmdetection's `meta`."""
    kinds = (np.bool_, np.int32, np.int64, np.float32, np.float64)
    scalar = np.float64(0).__reduce__()[0]
    assert callable(scalar)
    return [
        np.dtype,
        *(type(np.dtype(kind)) for kind in kinds),
        (scalar, "numpy._core.multiarray.scalar"),
        (scalar, "numpy.core.multiarray.scalar"),
    ]


def _read_torch(path: Path) -> object:
    damaged = None
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()  # torch.load does not verify checksums
        if damaged is None:
            with torch.serialization.safe_globals(_numpy_scalars()):
                return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds for a file that is not one of plain tensors
        refused = refused_global(error)
        if refused is None:
            raise CheckpointError(f"{path}: {_why_unreadable(path)}.") from error
        raise CheckpointError(
            f"{path}: asks for {refused}, which is more than plain tensors and numbers; not loaded, nothing of it was "
            "run. If you trust it, save its state dict alone in the program that wrote it: "
            "torch.save({'state_dict': model.state_dict()}, 'weights.pth')."
        ) from error
    raise CheckpointError(f"{path}: damaged (its record {damaged!r} fails its checksum); use another copy.")


def _why_unreadable(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(2)
    if not start.startswith((ZIP, PICKLE)):
        return "not a file of weights (torch.save did not write it)"
    if start == ZIP and not zipfile.is_zipfile(path):
        return "cut short or damaged; use another copy"
    return "damaged, or not written by torch.save"


def _state(content: object, path: Path) -> dict[str, Tensor]:
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not any(isinstance(value, Tensor | np.ndarray) for value in content.values()):
        raise CheckpointError(f"{path}: holds no state dict (a mapping of names to tensors).")
    errors = [
        f"{name} is of type {type(value).__name__}, not a tensor"
        for name, value in content.items()
        if not isinstance(value, Tensor | np.ndarray)
    ]
    if errors:
        raise CheckpointError(list_errors(f"{path}: its state dict cannot be used", errors))
    # Once for each array: a file of megabytes can give one array a hundred thousand names.
    arrays = {id(value): _from_numpy(value) for value in content.values() if isinstance(value, np.ndarray)}
    return {str(name): arrays[id(value)] if id(value) in arrays else _plain(value) for name, value in content.items()}


def _from_numpy(array: np.ndarray) -> Tensor:
    return _plain(torch.from_numpy(np.array(array, array.dtype.newbyteorder("="), order="C")))


def _plain(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def write_state(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a bare state dict as torch.save does, whole or not at all."""
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with replacing(path, also=(RuntimeError,)) as part:
        torch.save(whole, part)


def read_backbone_weights(name: str, weights: str) -> InitialWeights | None:
    """Read the weights that config `model.backbone` names, to be handed to `build_loss_and_model`.

    name: config `model.backbone.name`. weights: config `model.backbone.weights`: `imagenet` (torchvision's file, from
    torch's cache or downloaded into it), `none` (which gives None), or a file for `read_weights`.
    Raises CheckpointError for weights that cannot be read or downloaded.
    """
    if weights == "none":
        return None
    if weights == "imagenet":
        return InitialWeights(_imagenet_state(name), f"torchvision's {name}")
    if not Path(weights).is_file():
        raise CheckpointError(
            f"model.backbone.weights: no file {weights}; give a file of weights (.pth, .pt, .pkl or .safetensors), "
            "`imagenet` or `none`."
        )
    return InitialWeights(read_weights(Path(weights)).tensors, weights)


def _imagenet_state(name: str) -> dict[str, Tensor]:
    published = ARCHITECTURES[name].weights
    file = Path(torch.hub.get_dir()) / "checkpoints" / published.url.rsplit("/", 1)[1]
    if file.is_file():
        return read_weights(file).tensors
    try:
        state: dict[str, Tensor] = published.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"model.backbone.weights: cannot download torchvision's ImageNet weights ({error}). Put {published.url} "
            f"at {file}, or set model.backbone.weights to a file of weights, or to `none` to train from scratch."
        ) from error
    return state
