"""Finding the image files that a user names. Imports no tensor library, so that a wrong path is reported at once."""

import functools
import glob
import os
import re
import struct
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import PIL
from PIL import Image

from retinanet.data.unread_formats import passed_over, unread_remedy
from retinanet.errors import DataError, list_errors

_HAS_AVIF = tuple(int(part) for part in PIL.__version__.split(".")[:2]) >= (11, 3)

FORMATS = (
    "JPEG",
    "PNG",
    "WEBP",
    "BMP",
    "TIFF",
    "GIF",
    "PPM",
    "JPEG2000",
    "TGA",
    *(("AVIF",) if _HAS_AVIF else ()),
)
"""Formats that Pillow may try; others are refused (EPS, for one, runs an interpreter)."""
_FRAMES = (
    "images, folders, patterns, lists and data sets are. Save its frames, for example 2 a second, and give their "
    "folder: mkdir -p frames && ffmpeg {} -vf fps=2 frames/%06d.jpg"
)
PILLOW_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, AttributeError, OverflowError,
    RuntimeError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow's plugins raise on damaged files; found by feeding them damaged files."""

ARRAY_SUFFIX = ".npy"
"""Of a file with an array of pixels, which is read where it is named, and not found in folders."""

MOST_FOLDERS = 1000
"""Looked at for the images of a folder that has none itself."""


@functools.cache
def image_suffixes() -> frozenset[str]:
    """Suffixes of the files in FORMATS, such as ".jpg"; an .mpo file is a JPEG with more images, and opened as one."""
    kinds = {*FORMATS, "MPO"}
    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in kinds)


def find_images(inputs: list[str]) -> list[Path]:
    """The images that files, folders and glob patterns name, each once, in order.

    Of a folder, subfolders and hidden files (whose names begin with a dot) are left out; of a pattern, folders, unless
    it matches nothing else.

    Raises DataError listing every input that names none; and where all files are of kinds that are not read, such as
    films, listing those.
    """
    suffixes = {*image_suffixes(), ARRAY_SUFFIX}
    found: dict[Path, None] = {}
    errors = []
    for name in inputs:
        path = Path(name)
        if path.is_dir():
            matches = _images_in(path)
        elif path.is_file():
            matches = [path]
        else:
            paths = sorted(Path(p) for p in glob.glob(name, recursive=True))  # noqa: PTH207
            folders = [p for p in paths if p.is_dir()]
            matches = [p for p in paths if p.is_file()] or [image for p in folders for image in _images_in(p)]
        if not matches:
            errors.append(f"{name}: {_why_none(name)}")
        found.update(dict.fromkeys(matches))
    unread = {path: remedy for path in found if path.suffix.lower() not in suffixes and (remedy := _remedy(path))}
    if unread and len(unread) == len(found):
        errors += [f"{path}: {remedy}" for path, remedy in unread.items()]
    if errors:
        raise DataError(list_errors("no images to read", errors))
    return list(found)


def _images_in(folder: Path) -> list[Path]:
    suffixes = image_suffixes()
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes and _is_shown(path))


def _is_shown(path: Path) -> bool:
    """Whether a path is a file that a folder's window shows: macOS leaves a ._photo.jpg next to each photograph."""
    return path.is_file() and not path.name.startswith(".")


def _why_none(name: str) -> str:
    path = Path(name)
    if (name.isdecimal() and not path.exists()) or path.is_char_device():
        device = f"/dev/video{name}" if name.isdecimal() else name
        return f"a camera, which is not read; {_FRAMES.format(f'-f v4l2 -i {device}')}"
    if re.match(r"(rtsp|rtmp|rtp|udp|tcp|srt)s?://", name, re.IGNORECASE):
        return f"an address of a stream, which is not read; {_FRAMES.format(f'-i {name!r}')}"
    if path.is_symlink() and not path.exists():
        return f"a symbolic link to '{path.readlink()}', which does not exist"
    if ":/" in str(path):  # Path makes one slash of two
        return "an address, which is not read; download it, and give the file"
    if not path.is_dir():
        near = next((one.name for one in _siblings(path) if one.name.casefold() == path.name.casefold()), None)
        return "no such file, folder or pattern" + (f"; there is {near}" if near else "")
    others = files_passed_over([str(path)])
    return "no image in this folder" + (f", but {others}" if others else "")


def _siblings(path: Path) -> list[Path]:
    return sorted(path.parent.iterdir()) if path.parent.is_dir() else []


def _remedy(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return unread_remedy(path, file.read(16))
    except OSError:
        return ""


def files_passed_over(inputs: list[str]) -> str:
    """What `find_images` leaves out of the folders among `inputs`, by kind; empty where that is nothing of interest."""
    suffixes = image_suffixes()
    folders = [Path(name) for name in inputs if Path(name).is_dir()]
    paths = [path for folder in folders for path in sorted(folder.iterdir())]
    hidden = [
        path for path in paths if path.name.startswith(".") and path.suffix.lower() in suffixes and path.is_file()
    ]
    below = [path for path in paths if not path.name.startswith(".") and path.is_dir()]
    lines = [
        *([f"{_counted(hidden, 'hidden file')} passed over, such as {hidden[0].name}"] if hidden else []),
        *([f"{_counted(below, 'subfolder')} passed over{_with_images(below)}"] if below else []),
        *([unread] if (unread := passed_over((p for p in paths if p not in {*hidden, *below}), suffixes)) else []),
    ]
    return "\n".join(lines)


def _with_images(folders: list[Path]) -> str:
    """Names the first folder in or below these that has images, among the first ones that are looked at."""
    every = (below for folder in folders for below in _folders_below(folder))
    found = next((folder for folder in islice(every, MOST_FOLDERS) if _images_in(folder)), None)
    return "" if found is None else f"; '{found}' has images"


def _folders_below(folder: Path) -> Iterator[Path]:
    """The folder and all below it that can be listed, in order."""
    for top, names, _ in os.walk(folder):
        names.sort()
        yield Path(top)


def _counted(paths: list[Path], what: str) -> str:
    return f"{len(paths):,} {what}{'' if len(paths) == 1 else 's'}"
