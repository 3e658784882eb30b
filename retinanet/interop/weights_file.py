"""State dicts in files: torch's own format, pickles of numpy arrays and safetensors, each read as plain data."""

import hashlib
import os
import zipfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from retinanet.checkpoint import refused_global
from retinanet.errors import CheckpointFault, ResourceFault, list_faults
from retinanet.interop.numpy_pickle import Array, read_numpy_pickle

WRAPPERS = ("state_dict", "model", "blobs")
"""Keys under which training programs keep a state dict beside other things."""

DISTRIBUTED = "module."
"""What DistributedDataParallel and DataParallel put before every name."""

CHECKSUM = "sha256"

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
    """The state dict of a .pth, .pt, .pkl or .safetensors file. CheckpointFault for anything but plain data."""
    if not path.is_file():
        raise CheckpointFault(f"{path}: {'is a folder; give a file' if path.is_dir() else 'no such file'}.")
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
            raise CheckpointFault(f"{path}: {_why_unreadable(path)}.") from error
        raise CheckpointFault(
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
        raise CheckpointFault(f"{path}: holds no state dict (a mapping of names to tensors).")
    arrays = {str(name): value.value if isinstance(value, Array) else value for name, value in content.items()}
    odd = [
        f"{name} is a {type(value).__name__}, not a tensor"
        for name, value in arrays.items()
        if not isinstance(value, Tensor | np.ndarray)
    ]
    if odd:
        raise CheckpointFault(list_faults(f"{path}: its state dict cannot be used", odd))
    # Once for each array: a file of megabytes can give one array a hundred thousand names.
    made = {id(value): _plain(torch.as_tensor(value)) for value in arrays.values() if isinstance(value, np.ndarray)}
    return {
        name: made[id(value)] if id(value) in made else _plain(torch.as_tensor(value)) for name, value in arrays.items()
    }


def _plain(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata. A file that `write_safetensors` made is held against its checksum. CheckpointFault else."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            meta = dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CheckpointFault(f"{path}: not a safetensors file, or cut short or damaged ({error!s:.200}).") from error
    wanted = meta.pop(CHECKSUM, None)
    if wanted is not None and wanted != checksum(tensors, meta):
        raise CheckpointFault(f"{path}: damaged: its content does not match its checksum. Use another copy.")
    return tensors, meta


def write_safetensors(path: Path, tensors: dict[str, Tensor], meta: dict[str, str]) -> None:
    """Write `path` at once or not at all, with the checksum of everything in it."""
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    replace_file(path, lambda part: save_file(whole, part, {**meta, CHECKSUM: checksum(whole, meta)}))


def write_state(path: Path, tensors: dict[str, Tensor]) -> None:
    """A bare state dict as torch saves one, written at once or not at all."""
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    replace_file(path, lambda part: torch.save(whole, part))


def replace_file(path: Path, write: Callable[[Path], None]) -> None:
    """Have `write` make the file beside `path`, then move it there. ResourceFault where that cannot be."""
    part = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        part.replace(path)
    except (OSError, RuntimeError, SafetensorError) as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise cannot_write(path, error, part) from error


def cannot_write(path: Path, error: Exception, part: Path) -> ResourceFault:
    """What to tell of an error that came up as `path` was written under the name `part`."""
    plain = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    reason = plain.replace(str(part), str(path)).replace(part.name, path.name).strip().rstrip(".")
    return ResourceFault(f"{path}: cannot be written ({reason}); check its folder, permissions and free space.")


def checksum(tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> str:
    """Hexadecimal SHA-256 over names, types, shapes and bytes of the tensors, and over the metadata."""
    total = hashlib.sha256()
    for key in sorted(meta):
        total.update(f"{key}={meta[key]}\0".encode())
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\0".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
