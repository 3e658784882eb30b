"""Which checkpoints a mistyped path may mean."""

import difflib
from pathlib import Path

_PLACES = ("", "checkpoints/", "*/checkpoints/")
_ENDINGS = ("*.pt", "*.pth", "*.safetensors", "*.onnx", "*.pt2")
_SHOWN = 3


def describe_missing_checkpoint(path: Path, what: str = "checkpoint") -> str:
    """`PATH: no such checkpoint`, or another word for it, with the nearest ones that there are."""
    near = nearest_checkpoints(path)
    *most, last = near or [""]
    names = f"{', '.join(most)}{' and ' if most else ''}{last}"
    verb = "nearest are" if most else "nearest is"
    return f"{path}: no such {what}" + (f"; the {verb} {names}." if near else ".")


def nearest_checkpoints(path: Path) -> list[str]:
    """Up to three files in the nearest folder of `path` that exists, in the runs there and in runs/; the best first.

    Those with the same name come alone, where there are any.
    """
    home = next((folder for folder in (path, *path.parents) if _is_folder(folder)), Path())
    found = {
        str(file)
        for folder, places in ((home, _PLACES), (Path("runs"), _PLACES[2:]))
        for place in places
        for ending in _ENDINGS
        for file in folder.glob(place + ending)
    }
    same = {file for file in found if Path(file).name == path.name}
    scores = {file: difflib.SequenceMatcher(None, str(path), file).ratio() for file in same or found}
    return sorted(scores, key=lambda file: (-scores[file], file))[:_SHOWN]


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
