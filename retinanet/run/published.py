"""Checkpoints of ours as safetensors files for publishing: weights, and config and classes in the header."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from retinanet.config.load import config_from_dict, config_to_dict
from retinanet.errors import CheckpointError, ConfigError
from retinanet.files import replacing
from retinanet.run.checkpoint import FORMAT, Checkpoint, Progress, load_checkpoint, save_checkpoint
from retinanet.structures import Category

CHECKSUM = "sha256"


SUFFIXES = (".pt", ".safetensors")
"""Of files that hold a checkpoint of ours."""


def open_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint of ours from either kind of file. CheckpointError for anything else."""
    if path.suffix != ".safetensors":
        return load_checkpoint(path)
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file.")
    tensors, meta = read_safetensors(path)
    if meta.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: these weights are not of this project (no format {FORMAT!r} in the header). "
            "Give retinanet convert the name of the format that they are in."
        )
    try:
        categories = tuple(Category(int(c["id"]), str(c["name"])) for c in json.loads(meta["categories"]))
        config, step = config_from_dict(json.loads(meta["config"]), str(path)), int(meta["step"])
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise CheckpointError(f"{path}: its header lacks a part or holds one of a wrong kind ({error!r}).") from error
    return Checkpoint(config, categories, Progress(step, -1.0, 0, 0), tensors, {}, {}, {})


def write_inference_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """The weights to detect with, as a checkpoint (.pt) or for publishing (.safetensors); no optimizer state."""
    alone = Checkpoint(checkpoint.config, checkpoint.categories, checkpoint.progress, checkpoint.weights(), {}, {}, {})
    match path.suffix:
        case ".pt":
            save_checkpoint(path, alone)
        case ".safetensors":
            meta = {
                "format": FORMAT,
                "config": json.dumps(config_to_dict(alone.config)),
                "categories": json.dumps([{"id": c.id, "name": c.name} for c in alone.categories]),
                "step": str(alone.progress.step),
            }
            write_safetensors(path, alone.model, meta)
        case _:
            raise ConfigError(f"{path}: a checkpoint of this project is written as {' or '.join(SUFFIXES)}.")


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata. A file that `write_safetensors` made is held against its checksum. CheckpointError else."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
            meta = dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a safetensors file, or cut short or damaged ({error!s:.200}).") from error
    wanted = meta.pop(CHECKSUM, None)
    if wanted is not None and wanted != checksum(tensors, meta):
        raise CheckpointError(f"{path}: damaged: its content does not match its checksum. Use another copy.")
    return tensors, meta


def write_safetensors(path: Path, tensors: dict[str, Tensor], meta: dict[str, str]) -> None:
    """Write `path` at once or not at all, with the checksum of everything in it."""
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with replacing(path, also=(SafetensorError,)) as part:
        save_file(whole, part, {**meta, CHECKSUM: checksum(whole, meta)})


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
