"""Weights that are saved as several files: those of an index file, and the folders that other programs write."""

import re
from pathlib import Path

from retinanet.errors import CheckpointError, DataError, list_errors
from retinanet.files import read_json

INDEX = ".index.json"
"""End of the name of the file that says which tensor is in which part, such as model.safetensors.index.json."""

_PART = re.compile(r"-(?P<number>\d+)-of-(?P<count>\d+)\.\w+$")


def shard_files(path: Path) -> list[Path]:
    """The parts of a detector's weights: of an index file, or of the folder that holds one; none for anything else.

    Raises CheckpointError, with the remedy, where a part is missing, and for a distributed checkpoint of torch.
    """
    if path.is_dir():
        if (path / ".metadata").is_file() and any(path.glob("*.distcp")):
            raise CheckpointError(
                f"{path}: is a distributed checkpoint of torch; write it as one file first: "
                f"python -m torch.distributed.checkpoint.format_utils dcp_to_torch {path} OUT.pt"
            )
        found = sorted(path.glob(f"*{INDEX}"))
        return shard_files(found[0]) if len(found) == 1 else []
    if not path.name.endswith(INDEX) or not path.is_file():
        return []
    try:
        content = read_json(path)
    except DataError as error:
        raise CheckpointError(str(error)) from error
    names = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise CheckpointError(f"{path}: names no files of weights (no 'weight_map' of tensors and files).")
    parts = [path.parent / Path(name).name for name in dict.fromkeys(names.values())]
    if missing := [f"{part.name}: no such file next to the index" for part in parts if not part.is_file()]:
        raise CheckpointError(list_errors(f"{path}: parts of the weights are missing", missing))
    return parts


def describe_part(path: Path) -> str:
    """What a file is whose name says that it is one of several parts; empty for others."""
    part = _PART.search(path.name)
    if part is None or int(part["count"]) < 2:
        return ""
    return (
        f"part {int(part['number'])} of {int(part['count'])} of a detector's weights; give the folder of all parts, "
        f"which holds a file *{INDEX}, or that file"
    )
