"""Checkpoints for publishing, as safetensors files: the weights, with config and classes in the header."""

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
from retinanet.run.checkpoint import (
    FORMAT,
    Checkpoint,
    Progress,
    check_download,
    load_checkpoint,
    save_checkpoint,
)
from retinanet.run.nearest import describe_missing_checkpoint
from retinanet.structures import Category

CHECKSUM = "sha256"
"""Key of the checksum in the header."""

SUFFIXES = (".pt", ".safetensors")
"""Suffixes of files in this project's format."""


def open_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint in this project's format, .pt or .safetensors. CheckpointError for anything else."""
    if path.suffix != ".safetensors":
        return load_checkpoint(path)
    if not path.is_file():
        raise CheckpointError(describe_missing_checkpoint(path, "file"))
    tensors, meta = read_safetensors(path)
    if meta.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: these weights are not in this project's format (no format {FORMAT!r} in the header). "
            "Convert them with retinanet convert, naming the format that they are in."
        )
    try:
        categories = tuple(Category(int(c["id"]), str(c["name"])) for c in json.loads(meta["categories"]))
        config, step = config_from_dict(json.loads(meta["config"]), str(path)), int(meta["step"])
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise CheckpointError(f"{path}: an entry of its header is missing or of the wrong type ({error!r}).") from error
    return Checkpoint(config=config, categories=categories, progress=Progress(step=step), model=tensors)


def write_inference_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write the weights to detect with, as .pt or for publishing as .safetensors, without optimizer state."""
    alone = Checkpoint(
        config=checkpoint.config,
        categories=checkpoint.categories,
        progress=checkpoint.progress,
        model=checkpoint.weights(),
    )
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
            raise ConfigError(
                f"{path}: the suffix of a checkpoint in this project's format is {' or '.join(SUFFIXES)}."
            )


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file; the checksum that `write_safetensors` adds is verified. CheckpointError else."""
    check_download(path)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            meta = dict(file.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a safetensors file, or cut short or damaged ({error!s:.200}).") from error
    wanted = meta.pop(CHECKSUM, None)
    if wanted is not None and wanted != checksum(tensors, meta):
        raise CheckpointError(f"{path}: damaged: its content does not match its checksum. Use another copy.")
    return tensors, meta


def write_safetensors(path: Path, tensors: dict[str, Tensor], meta: dict[str, str]) -> None:
    """Write `path` atomically, with a checksum over its content; raises ResourceError as `files.replacing`."""
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    size = sum(value.nbytes for value in whole.values())
    with replacing(path, also=(SafetensorError,), size=size) as part:
        save_file(whole, part, {**meta, CHECKSUM: checksum(whole, meta)})


def checksum(tensors: Mapping[str, Tensor], meta: Mapping[str, str]) -> str:
    """Hexadecimal SHA-256 of the tensors' names, types, shapes and bytes, and of the metadata."""
    total = hashlib.sha256()
    for key in sorted(meta):
        total.update(f"{key}={meta[key]}\0".encode())
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        total.update(f"{name} {value.dtype} {tuple(value.shape)}\0".encode())
        total.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()
