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

    Those of the same folder come before others, and then those of the same name.
    """
    home = next((folder for folder in (path, *path.parents) if _is_folder(folder)), Path())
    found = {
        str(file)
        for folder, places in ((home, _PLACES), (Path("runs"), _PLACES[2:]))
        for place in places
        for ending in _ENDINGS
        for file in folder.glob(place + ending)
    }
    scores = {file: _likeness(path, Path(file), home) for file in found}
    close = [file for file in found if scores[file] > max(scores.values()) - 0.5]
    return sorted(close, key=lambda file: (-scores[file], file))[:_SHOWN]


def _likeness(path: Path, file: Path, home: Path) -> float:
    is_inside = home != Path() and file.is_relative_to(home)
    return difflib.SequenceMatcher(None, str(path), str(file)).ratio() + 0.5 * (file.name == path.name) + is_inside


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
