"""Checks of a data set's image files: each must lie in the image folder and be the image that the JSON describes."""

import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal, NamedTuple

from retinanet.data.images import decode_image, read_header
from retinanet.data.validate import short_repr
from retinanet.errors import DataError

CheckImages = Literal["none", "header", "decode"]
"""What is read: nothing (but files must exist), each file's header and end, or every pixel."""

_NAMED = 10  # files named for each kind of error; the rest are counted


class _FileError(NamedTuple):
    kind: Literal["unsafe", "missing", "size", "unreadable"]
    text: str


def file_errors(rows: list[object], folder: Path, check: CheckImages, workers: int) -> list[str]:
    """Errors of the files that the rows of a COCO file's "images" name; rows without a file name are skipped."""
    if not folder.is_dir():
        return [f"{folder}: the image folder does not exist; check the path"]
    root = os.path.realpath(folder)
    entries = [row for row in rows if isinstance(row, dict) and _has_name(row)]
    step = max(1, len(entries) // (8 * max(workers, 1)))
    slices = [entries[i : i + step] for i in range(0, len(entries), step)]
    with ThreadPoolExecutor(max_workers=max(workers, 1)) as pool:
        found = [error for some in pool.map(partial(_check_slice, root, check), slices) for error in some]
    texts: list[str] = []
    for kind in ("unsafe", "missing", "size", "unreadable"):
        of_kind = [error.text for error in found if error.kind == kind]
        texts += of_kind[:_NAMED]
        if len(of_kind) > _NAMED:
            texts.append(f"... and {len(of_kind) - _NAMED:,} more images like it")
    return texts


def _has_name(row: dict[str, Any]) -> bool:
    name = row.get("file_name")
    return isinstance(name, str) and bool(name.strip())


def _check_slice(root: str, check: CheckImages, entries: list[dict[str, Any]]) -> list[_FileError]:
    """`root` is the image folder with its symbolic links resolved."""
    errors = []
    real_folders: dict[str, str] = {}
    for entry in entries:
        error = _path_error(root, entry["file_name"], real_folders)
        if error is None and check != "none":
            error = _image_error(Path(root, entry["file_name"]), entry, check)
        if error is not None:
            place = f"image {short_repr(entry.get('id'))}, file {short_repr(entry['file_name'])}"
            errors.append(_FileError(error.kind, f"{place}: {error.text}"))
    return errors


def _path_error(root: str, name: str, real_folders: dict[str, str]) -> _FileError | None:
    """The error of a name that is no file within `root`. `real_folders` caches resolved folders between calls."""
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or ".." in re.split(r"[\\/]", name):
        return _FileError(
            "unsafe", "an absolute path or '..' could leave the image folder; make it relative to that folder"
        )
    try:
        parent, base = os.path.split(os.path.join(root, name))  # noqa: PTH118  (Path costs ten times as much)
        if parent not in real_folders:
            real_folders[parent] = os.path.realpath(parent)
        real = os.path.join(real_folders[parent], base)  # noqa: PTH118
        mode = os.lstat(real).st_mode
        if stat.S_ISLNK(mode):
            real = os.path.realpath(real)
            mode = os.lstat(real).st_mode
    except FileNotFoundError:
        return _FileError("missing", "no such file in the image folder")
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have, with a zero byte for instance
        return _FileError("missing", f"not a usable file name ({error})")
    if not real.startswith(root.rstrip("/") + "/"):
        return _FileError("unsafe", "a symbolic link leads outside the image folder; put the file itself there")
    if not stat.S_ISREG(mode):
        return _FileError("missing", "not a file")
    return None


def _image_error(path: Path, entry: dict[str, Any], check: CheckImages) -> _FileError | None:
    """The error of a file that cannot be read or has another size than its entry."""
    try:
        header = read_header(path)
        if check == "decode":
            decode_image(path)
    except DataError as error:
        return _FileError("unreadable", str(error).removeprefix(f"{path}: "))
    height, width = header.size
    stated = (entry.get("height"), entry.get("width"))
    if stated == (height, width) or None in stated:
        return None
    text = f"the JSON says {stated[1]} x {stated[0]} (width x height), "
    if header.orientation >= 5 and stated == (width, height):
        text += (
            f"the size before the file's EXIF rotation; as viewers show it, it is {width} x {height}. If the boxes fit "
            "the unrotated image, remove the EXIF orientation from the file; if they fit the rotated one, swap width "
            "and height in the JSON"
        )
    else:
        text += f"the file has {width} x {height}; correct the JSON"
    return _FileError("size", text)
