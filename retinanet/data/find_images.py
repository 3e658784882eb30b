"""Finding the image files that a user names. Imports no tensor library, so that a wrong path is reported at once."""

import glob
from pathlib import Path

from PIL import Image

from retinanet.errors import DataError, list_errors

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "JPEG2000", "TGA")
"""Formats that Pillow may try; others are refused (EPS, for one, runs an interpreter)."""


def find_images(inputs: list[str]) -> list[Path]:
    """The images that files, folders (without their subfolders) and glob patterns name, each once, in order.

    Raises DataError listing every input that names none.
    """
    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS}
    found: dict[Path, None] = {}
    errors = []
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            matches = sorted(p for p in path.iterdir() if p.suffix.lower() in suffixes and p.is_file())
        elif path.is_file():
            matches = [path]
        else:
            matches = sorted(Path(p) for p in glob.glob(name, recursive=True) if Path(p).is_file())  # noqa: PTH207
        if not matches:
            errors.append(
                f"{name}: {'no image in this folder' if path.is_dir() else 'no such file, folder or pattern'}"
            )
        found.update(dict.fromkeys(matches))
    if errors:
        raise DataError(list_errors("no images to read", errors))
    return list(found)
