"""The one reader of foreign weights: torch's own format, pickles of numpy arrays and safetensors, as state dicts."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from retinanet.errors import CheckpointError, list_errors
from retinanet.files import replacing
from retinanet.interop.damage import check_memory, check_named_hash, check_values
from retinanet.interop.formats import FORMATS, detect_format
from retinanet.interop.numpy_pickle import read_numpy_pickle
from retinanet.interop.shards import describe_part, shard_files
from retinanet.interop.torch_file import Opaque, read_torch
from retinanet.run.checkpoint import FORMAT, check_download
from retinanet.run.nearest import describe_missing_checkpoint
from retinanet.run.published import read_safetensors

WRAPPERS = ("state_dict", "model", "module", "blobs")
"""Keys under which training programs store a state dict among other things; under another key it is found where it is
the only one."""

AVERAGES = ("model_ema", "state_dict_ema", "ema_state_dict", "ema_model", "ema")
"""Keys under which they store the moving average of the weights, which is preferred."""

PREFIXES = ("module.", "_orig_mod.", "model.")
"""What DistributedDataParallel and AveragedModel, torch.compile, and Lightning put before every name."""

_INNER_WRAPPERS = re.compile(r"(?<=\.)(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What torch.compile, FSDP and activation checkpointing of a part put within names."""

_OUTPUTS = tuple({f"{form.naming.class_predict}.weight": None for form in FORMATS.values()})
"""Names of the last weights of the class head, by which a format is recognised."""

FILES = (".pt", ".pth", ".pkl", ".safetensors", ".bin", ".ckpt")
"""Suffixes of files of weights."""

COUNTERS = ("n_averaged", "steps", "num_updates")
"""Entries of a moving average that are not weights."""


class WeightsFile(NamedTuple):
    """Content of a file of weights."""

    tensors: dict[str, Tensor]
    """By name, on the CPU; floating point as float32."""
    meta: Mapping[str, Any]
    """mmdetection's `meta`, or the metadata of a safetensors file; else empty."""
    stripped: str = ""
    """Prefix that every name has in the file and that `tensors` leaves out."""
    averaged: str = ""
    """What the file says of its moving average, if it has one; `tensors` are the averaged ones."""
    is_ours: bool = False
    """Whether it is a checkpoint of this project, for `run.published.open_checkpoint`."""


def read_weights(path: Path) -> WeightsFile:
    """Read the state dict of a .pth, .pt, .pkl or .safetensors file.

    A state dict under one of WRAPPERS is found there, and a moving average is preferred to it. Weights in several files
    are read from their folder or their index. Raises CheckpointError for a file that is missing, damaged or more than
    plain data.
    """
    shards = shard_files(path)
    if not shards and path.is_file() and (what := describe_part(path)):
        raise CheckpointError(f"{path}: {what}.")
    parts = [_read_file(part) for part in shards or [path]]
    tensors = {name: value for part in parts for name, value in part.tensors.items()}
    return _without_prefix(parts[0] if len(parts) == 1 else WeightsFile(tensors, {}))


def _read_file(path: Path) -> WeightsFile:
    check_weights_path(path)
    check_named_hash(path)
    if path.suffix == ".safetensors":
        tensors, header = read_safetensors(path)
        check_memory(tensors, path)
        plain = {name: _plain(value) for name, value in tensors.items()}
        check_values(plain, path)
        return WeightsFile(plain, header, is_ours=header.get("format") == FORMAT)
    content = read_numpy_pickle(path) if path.suffix == ".pkl" else read_torch(path)
    meta = content.get("meta") if isinstance(content, dict) else None
    chosen, averaged = _averaged(content)
    tensors = _state(chosen, path)
    check_values(tensors, path)
    if averaged:
        tensors = {name: value for name, value in tensors.items() if name not in COUNTERS}
    tensors, swapped = _without_swapped(tensors)
    return WeightsFile(
        tensors=tensors,
        meta=meta if isinstance(meta, dict) else {},
        averaged=averaged or swapped,
        is_ours=isinstance(content, dict) and content.get("format") == FORMAT,
    )


def check_weights_path(path: Path) -> None:
    """Raise CheckpointError, with the remedy, for a path that cannot be a file of weights."""
    best = path / "checkpoints" / "best.pt"
    if path.is_dir():
        inside = sorted(file for file in path.iterdir() if file.suffix in FILES)
        found = best if best.is_file() else inside[0] if inside else None
        raise CheckpointError(f"{path}: is a folder; give a file{f', here {found}' if found else ''}.")
    if not path.is_file():
        raise CheckpointError(describe_missing_checkpoint(path, "file"))
    check_download(path)
    if path.suffix in (".onnx", ".pt2", ".engine", ".tflite", ".torchscript"):
        raise CheckpointError(
            f"{path}: is an exported network, which cannot be trained; give the checkpoint that it was exported from, "
            "such as a run's checkpoints/best.pt."
        )


def _averaged(content: object) -> tuple[object, str]:
    """The moving average among the content if there is one, else the content; and what the user should know of it."""
    if not isinstance(content, dict):
        return content, ""
    meta = content.get("meta")
    if "ema_state_dict" in content and ("message_hub" in content or (isinstance(meta, dict) and "cfg" in meta)):
        # mmengine's EMAHook swaps them when it saves.
        return content, "mmengine's moving average, which it saves as the state dict"
    for key in AVERAGES:
        inner = _unwrapped(content.get(key))
        if isinstance(inner, dict) and any(isinstance(value, Tensor) for value in inner.values()):
            return inner, f"the moving average, {key!r}"
    return content, ""


def _without_swapped(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Without mmcv's buffers `ema_backbone_conv1_weight`: its EMAHook keeps the weights that are not averaged there."""
    swapped = {"ema_" + name.replace(".", "_") for name in tensors} & tensors.keys()
    if not swapped:
        return tensors, ""
    kept = {name: value for name, value in tensors.items() if name not in swapped}
    return kept, "mmcv's moving average, which it saves under the plain names"


def _without_prefix(file: WeightsFile) -> WeightsFile:
    for prefix in PREFIXES:
        if file.tensors and all(name.startswith(prefix) for name in file.tensors):
            tensors = {name.removeprefix(prefix): value for name, value in file.tensors.items()}
            return _without_prefix(file._replace(tensors=tensors, stripped=file.stripped + prefix))
    plain = {_INNER_WRAPPERS.sub("", name): value for name, value in file.tensors.items()}
    return _inner_detector(file._replace(tensors=plain) if len(plain) == len(file.tensors) else file)


def _inner_detector(file: WeightsFile) -> WeightsFile:
    """The one RetinaNet among other tensors, under a prefix: of a user's own module, such as one with a loss."""
    outputs = [name for name in file.tensors for output in _OUTPUTS if name.endswith(f".{output}")]
    prefix = outputs[0].removesuffix(next(o for o in _OUTPUTS if outputs[0].endswith(f".{o}"))) if outputs else ""
    tensors = {name.removeprefix(prefix): value for name, value in file.tensors.items() if name.startswith(prefix)}
    if len(outputs) != 1 or detect_format(tensors) is None:
        return file
    return file._replace(tensors=tensors, stripped=file.stripped + prefix)


def not_finite(tensors: Mapping[str, Tensor]) -> list[str]:
    """One line for each tensor that holds NaN or infinity."""
    return [
        f"{name} has {value.numel() - int(value.isfinite().sum()):,} of {value.numel():,} values NaN or infinite"
        for name, value in tensors.items()
        if value.is_floating_point() and not value.isfinite().all()
    ]


def _unwrapped(content: object) -> object:
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if isinstance(content, dict) and not _is_state(content):
        inner = [value for value in content.values() if _is_state(value)]
        return inner[0] if len(inner) == 1 else content
    return content


def _is_state(value: object) -> bool:
    """Whether a value is a mapping of names to tensors, of which none is an optimizer's, whose keys are numbers."""
    return (
        isinstance(value, dict)
        and bool(value)
        and all(isinstance(name, str) and isinstance(tensor, Tensor | np.ndarray) for name, tensor in value.items())
    )


def _contents(content: object) -> str:
    """What a file without a state dict holds, for an error."""
    if isinstance(content, dict):
        several = [str(key) for key, value in content.items() if _is_state(value)]
        if several:
            return f"it holds {len(several)} state dicts ({', '.join(several[:8])}); save the one that is meant alone"
        shown = ", ".join(map(str, list(content)[:8])) or "nothing"
        if content and all(isinstance(value, Opaque) for value in content.values()):
            return (
                f"its values are objects, such as NumPy arrays; save torch.as_tensor(value) of each. It holds {shown}"
            )
        return f"it holds {shown}"
    return f"it holds a {type(content).__name__}; save model.state_dict() alone"


def _state(content: object, path: Path) -> dict[str, Tensor]:
    content = _unwrapped(content)
    if not isinstance(content, dict) or not any(isinstance(value, Tensor | np.ndarray) for value in content.values()):
        raise CheckpointError(f"{path}: holds no state dict (a mapping of names to tensors): {_contents(content)}.")
    errors = [
        f"{name} is of type {type(value).__name__}, not a tensor"
        for name, value in content.items()
        if not isinstance(value, Tensor | np.ndarray)
    ]
    if errors:
        raise CheckpointError(list_errors(f"{path}: its state dict cannot be used", errors))
    check_memory({str(name): value for name, value in content.items() if isinstance(value, Tensor)}, path)
    # Once for each array: a file of megabytes can give one array a hundred thousand names.
    arrays = {id(value): _from_numpy(value) for value in content.values() if isinstance(value, np.ndarray)}
    return {str(name): arrays[id(value)] if id(value) in arrays else _plain(value) for name, value in content.items()}


def _from_numpy(array: np.ndarray) -> Tensor:
    return _plain(torch.from_numpy(np.array(array, array.dtype.newbyteorder("="), order="C")))


def _plain(value: Tensor) -> Tensor:
    return value.detach().float() if value.is_floating_point() else value.detach()


def write_state(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a bare state dict as torch.save does, whole or not at all."""
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    size = sum(value.nbytes for value in whole.values())
    with replacing(path, also=(RuntimeError,), size=size) as part, part.open("wb") as file:
        torch.save(whole, file)
