"""Checkpoints of ours as safetensors files for publishing: weights, and config and classes in the header."""

import json
from pathlib import Path

from retinanet import checkpoint as checkpoints
from retinanet.checkpoint import FORMAT, Checkpoint, Progress
from retinanet.config_file import config_from_dict, config_to_dict
from retinanet.errors import CheckpointFault, ConfigFault
from retinanet.interop.weights_file import cannot_write, read_safetensors, write_safetensors
from retinanet.structures import Category

SUFFIXES = (".pt", ".safetensors")
"""Of files that hold a checkpoint of ours."""


def read_ours(path: Path) -> Checkpoint:
    """A checkpoint of ours from either kind of file. CheckpointFault for anything else."""
    if path.suffix != ".safetensors":
        return checkpoints.load(path)
    if not path.is_file():
        raise CheckpointFault(f"{path}: no such file.")
    tensors, meta = read_safetensors(path)
    if meta.get("format") != FORMAT:
        raise CheckpointFault(
            f"{path}: these weights are not of this project (no format {FORMAT!r} in the header). "
            "Give tools/convert_weights.py the name of the format that they are in."
        )
    try:
        categories = tuple(Category(int(c["id"]), str(c["name"])) for c in json.loads(meta["categories"]))
        config, step = config_from_dict(json.loads(meta["config"]), str(path)), int(meta["step"])
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ConfigFault):
            raise
        raise CheckpointFault(f"{path}: its header lacks a part or holds one of a wrong kind ({error!r}).") from error
    return Checkpoint(config, categories, Progress(step, -1.0, 0, 0), tensors, {}, {}, {})


def write_ours(path: Path, checkpoint: Checkpoint) -> None:
    """The weights to detect with, as a checkpoint (.pt) or for publishing (.safetensors); no optimizer state."""
    alone = Checkpoint(checkpoint.config, checkpoint.categories, checkpoint.progress, checkpoint.weights(), {}, {}, {})
    match path.suffix:
        case ".pt":
            try:
                checkpoints.save(path, alone)
            except (OSError, RuntimeError) as error:
                raise cannot_write(path, error, path.with_suffix(".partial")) from error
        case ".safetensors":
            meta = {
                "format": FORMAT,
                "config": json.dumps(config_to_dict(alone.config)),
                "categories": json.dumps([{"id": c.id, "name": c.name} for c in alone.categories]),
                "step": str(alone.progress.step),
            }
            write_safetensors(path, alone.model, meta)
        case _:
            raise ConfigFault(f"{path}: a checkpoint of this project is written as {' or '.join(SUFFIXES)}.")
