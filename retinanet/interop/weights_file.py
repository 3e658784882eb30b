"""State dicts in files: torch's own format, pickles of numpy arrays and safetensors, each read as plain data."""

import hashlib
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from retinanet.errors import CheckpointError, list_errors
from retinanet.files import replacing
from retinanet.interop.numpy_pickle import Array, read_numpy_pickle
from retinanet.run.checkpoint import refused_global
from retinanet.run.published import read_safetensors

WRAPPERS = ("state_dict", "model", "blobs")
"""Keys under which training programs keep a state dict beside other things."""

DISTRIBUTED = "module."
"""What DistributedDataParallel and DataParallel put before every name."""


ZIP, PICKLE = b"PK", b"\x80"
"""How files of torch.save begin; the second until torch 1.5."""


class WeightsFile(NamedTuple):
    """What was read: tensors by name, and the rest that the file says of itself."""

    tensors: dict[str, Tensor]
    """On the CPU; floating point as float32."""
    meta: Mapping[str, Any]
    """mmdetection's `meta`, or the metadata of a safetensors file; else empty."""
    digest: str
    """Hexadecimal SHA-256 of the file."""
    stripped: str = ""
    """What every name began with there, and is left out of `tensors`."""


def read_weights(path: Path) -> WeightsFile:
    """The state dict of a .pth, .pt, .pkl or .safetensors file. CheckpointError for anything but plain data."""
    if not path.is_file():
        raise CheckpointError(f"{path}: {'is a folder; give a file' if path.is_dir() else 'no such file'}.")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if path.suffix == ".safetensors":
        tensors, header = read_safetensors(path)
        return _without_prefix(WeightsFile({name: _plain(v) for name, v in tensors.items()}, header, digest))
    content = read_numpy_pickle(path) if path.suffix == ".pkl" else _read_torch(path)
    meta = content.get("meta") if isinstance(content, dict) else None
    return _without_prefix(WeightsFile(_state(content, path), meta if isinstance(meta, dict) else {}, digest))


def _without_prefix(file: WeightsFile) -> WeightsFile:
    if not file.tensors or not all(name.startswith(DISTRIBUTED) for name in file.tensors):
        return file
    tensors = {name.removeprefix(DISTRIBUTED): value for name, value in file.tensors.items()}
    return file._replace(tensors=tensors, stripped=DISTRIBUTED)


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """A line for each tensor that holds NaN or infinity."""
    return [
        f"{name} has {value.numel() - int(value.isfinite().sum()):,} of {value.numel():,} values NaN or infinite"
        for name, value in tensors.items()
        if value.is_floating_point() and not value.isfinite().all()
    ]


def _numpy_scalars() -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """What torch must build to read numbers that numpy made, such as a learning rate in mmdetection's `meta`."""
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
    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds for what is not a file of plain tensors
        wanted = refused_global(error)
        if wanted is None:
            raise CheckpointError(f"{path}: {_why_unreadable(path)}.") from error
        raise CheckpointError(
            f"{path}: asks for {wanted}, which is more than plain tensors and numbers; not loaded, nothing of it was "
            "run. If you trust it, save its state dict alone in the program it comes from: "
            "torch.save({'state_dict': model.state_dict()}, 'weights.pth')."
        ) from error


def _why_unreadable(path: Path) -> str:
    with path.open("rb") as file:
        begins = file.read(2)
    if not begins.startswith((ZIP, PICKLE)):
        return "not a file of weights (torch.save did not write it)"
    if begins == ZIP and not zipfile.is_zipfile(path):
        return "cut short or damaged; use another copy"
    return "damaged, or written by something else than torch.save"


def _state(content: object, path: Path) -> dict[str, Tensor]:
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    if not isinstance(content, dict) or not any(isinstance(value, Tensor | Array) for value in content.values()):
        raise CheckpointError(f"{path}: holds no state dict (a mapping of names to tensors).")
    arrays = {str(name): value.value if isinstance(value, Array) else value for name, value in content.items()}
    odd = [
        f"{name} is a {type(value).__name__}, not a tensor"
        for name, value in arrays.items()
        if not isinstance(value, Tensor | np.ndarray)
    ]
    if odd:
        raise CheckpointError(list_errors(f"{path}: its state dict cannot be used", odd))
    # Once for each array: a file of megabytes can give one array a hundred thousand names.
    made = {id(value): _plain(torch.as_tensor(value)) for value in arrays.values() if isinstance(value, np.ndarray)}
    return {
        name: made[id(value)] if id(value) in made else _plain(torch.as_tensor(value)) for name, value in arrays.items()
    }


def _plain(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def write_state(path: Path, tensors: dict[str, Tensor]) -> None:
    """A bare state dict as torch saves one, written at once or not at all."""
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with replacing(path, also=(RuntimeError,)) as part:
        torch.save(whole, part)
