"""Checks of a data set's image files: each must lie in the image folder and be the image that the JSON describes."""

import os
import re
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Literal, NamedTuple, TypeVar

from retinanet.data.file_names import path_in
from retinanet.data.frames import frames_note
from retinanet.data.images import ImageHeader, decode_image, depth_note, read_header
from retinanet.data.jpeg_damage import jpeg_warning
from retinanet.data.locate import locate
from retinanet.data.notes import counted
from retinanet.data.pixel_depth import DepthRange
from retinanet.data.transparency import transparency_note
from retinanet.data.validate import short_repr
from retinanet.errors import DataError

CheckImages = Literal["none", "header", "decode"]
"""What is read: nothing (but files must exist), each file's header and end, or every pixel."""

_NAMED = 10  # files named for each kind of error; the rest are counted
_SAMPLED = 16  # images of more than 8 bits whose pixels are read for a note on them

_Entries = list[dict[str, Any]]
_T = TypeVar("_T")


class FileError(NamedTuple):
    """What is wrong with the file of one image."""

    kind: Literal["unsafe", "missing", "size", "unreadable"]
    text: str


class NamedFiles(NamedTuple):
    """Rows of "images" with the names of files that exist, as far as they could be found."""

    rows: list[Any]
    errors: dict[int, FileError]
    """Row -> why it has no file."""
    notes: list[str]

    def path_of(self, folder: Path, i: int) -> Path | None:
        """The file of row i, or None where it has none."""
        return path_in(folder, self.rows[i]["file_name"]) if i not in self.errors and _has_name(self.rows[i]) else None


def find_image_files(rows: list[Any], folder: Path, root: Path | None, workers: int) -> NamedFiles:
    """Files of the rows of a COCO file's "images"; rows without a file name are skipped.

    A name that leads to no file is replaced by that of the file that it obviously means; see `locate`. Every file must
    be within `folder`, or else, where `locate` finds it there, within `root`, after symbolic links are resolved.
    """
    named = [i for i, row in enumerate(rows) if isinstance(row, dict) and _has_name(row)]
    entries = [rows[i] for i in named]
    errors = dict(enumerate(_in_threads(_path_errors_within(os.path.realpath(folder)), entries, workers)))
    failed = {i: error for i, error in errors.items() if error is not None}
    if not failed:
        return NamedFiles(rows, {}, [])
    located = locate(entries, {i for i, error in failed.items() if error.text != _LINK}, folder, root)
    renamed: dict[int, dict[str, Any]] = {}
    for i, name in located.names.items():
        base = root if root is not None and name.startswith("../") else folder
        path = os.path.normpath(folder / name)
        error = _path_error(os.path.realpath(base), os.path.relpath(path, base), {})
        if error is None:
            del failed[i]
            renamed[named[i]] = {**entries[i], "file_name": name}
        else:
            failed[i] = error
    for i, hint in located.hints.items():
        failed[i] = FileError(failed[i].kind, f"{failed[i].text}; {hint}")
    rows = [renamed.get(i, row) for i, row in enumerate(rows)]
    return NamedFiles(rows, {named[i]: error for i, error in failed.items()}, located.notes)


class CheckedFiles(NamedTuple):
    """What the files of the images are like."""

    errors: dict[int, FileError]
    """Row -> what is wrong with its file."""
    notes: list[str]


def check_files(
    rows: list[Any], skipped: set[int], folder: Path, check: CheckImages, workers: int, depth_range: DepthRange | None
) -> CheckedFiles:
    """Errors of image files that cannot be read or have another size than their row; rows in `skipped` are not opened.

    check: "none" opens no file. depth_range: see `decode_image`; without one, images of 16 bits that use few of their
    levels are noted, as are frames and transparency, which are not read.
    """
    opened = [i for i, row in enumerate(rows) if i not in skipped and isinstance(row, dict) and _has_name(row)]
    if check == "none":
        return CheckedFiles({}, [])

    def look(entries: _Entries) -> list[tuple[FileError | None, ImageHeader | None]]:
        return [_image_error(path_in(folder, entry["file_name"]), entry, check) for entry in entries]

    damaged = _damaged_scans([path_in(folder, rows[i]["file_name"]) for i in opened]) if check == "decode" else []
    seen = _in_threads(look, [rows[i] for i in opened], workers)
    errors = {i: error for i, (error, _) in zip(opened, seen) if error is not None}
    headers = {i: header for i, (error, header) in zip(opened, seen) if header is not None and error is None}
    paths = {i: path_in(folder, rows[i]["file_name"]) for i in headers}
    deep = [i for i, header in headers.items() if header.is_deep]
    if check == "header":
        # Of a TIFF, only the pixels show whether they lie in the range that is read.
        errors |= _pixel_errors(
            {i: paths[i] for i in _sampled([i for i in deep if headers[i].format == "TIFF"])}, depth_range
        )
    frames = frames_note({paths[i]: header.frames for i, header in headers.items()})
    depth = "" if depth_range else _depth_note([paths[i] for i in deep if i not in errors])
    same = _same_file_note({rows[i]["file_name"]: path for i, path in paths.items()})
    notes = [frames, depth, transparency_note(list(paths.values())), same]
    return CheckedFiles(errors, [*damaged, *filter(None, notes)])


def _pixel_errors(paths: dict[int, Path], depth_range: DepthRange | None) -> dict[int, FileError]:
    """The errors of images whose header is right and whose pixels cannot be read."""
    errors = {}
    for i, path in paths.items():
        try:
            decode_image(path, depth_range, warn=False)
        except DataError as error:
            errors[i] = FileError("unreadable", str(error).removeprefix(f"{path}: "))
    return errors


def _sampled(items: list[_T]) -> list[_T]:
    """At most _SAMPLED of them, spread evenly."""
    return items[:: max(len(items) // _SAMPLED, 1)][:_SAMPLED]


def _damaged_scans(paths: list[Path]) -> list[str]:
    """A note on JPEGs whose decoder passes over damage and makes up the pixels behind it."""
    found = [f"{path.name} ({warning})" for path in paths if (warning := jpeg_warning(path))]
    if not found:
        return []
    more = f" and {len(found) - _NAMED:,} more" if len(found) > _NAMED else ""
    return [f"{len(found):,} JPEGs are damaged, part of their pixels may be wrong: {', '.join(found[:_NAMED])}{more}"]


def _depth_note(deep: list[Path]) -> str:
    sample = _sampled(deep)
    note = depth_note(sample)
    return f"{note} ({len(deep):,} images have more than 8 bits, {len(sample)} were read)" if note else ""


def _same_file_note(paths: dict[str, Path]) -> str:
    """A note on files that several names lead to, such as a.jpg, ./a.jpg and a link to it; empty without any."""
    first: dict[tuple[int, int], str] = {}
    again: list[tuple[str, str]] = []
    for name, path in paths.items():
        try:
            status = path.stat()
        except OSError:
            continue
        other = first.setdefault((status.st_dev, status.st_ino), name) if status.st_ino else name
        again += [(other, name)] if other != name else []
    if not again:
        return ""
    kind = "images are the file of another one under a second name"
    return (
        f"{counted(len(again), kind)}, each with its own annotations only, so that objects of one count as background "
        f"of the other; for example {again[0][0]} and {again[0][1]}"
    )


def file_errors(rows: list[Any], errors: dict[int, FileError]) -> list[str]:
    """The errors as lines, kind by kind, the first few of each kind named and the others counted."""
    texts: list[str] = []
    for kind in ("unsafe", "missing", "size", "unreadable"):
        of_kind = [i for i, error in sorted(errors.items()) if error.kind == kind]
        for i in of_kind[:_NAMED]:
            place = f"image {short_repr(rows[i].get('id'))}, file {short_repr(rows[i]['file_name'])}"
            texts.append(f"{place}: {errors[i].text}")
        if len(of_kind) > _NAMED:
            texts.append(f"... and {len(of_kind) - _NAMED:,} more images like it")
    return texts


def _in_threads(look: Callable[[_Entries], list[_T]], entries: _Entries, workers: int) -> list[_T]:
    """`look` at all entries, in slices, in threads."""
    step = max(1, len(entries) // (8 * max(workers, 1)))
    slices = [entries[i : i + step] for i in range(0, len(entries), step)]
    with ThreadPoolExecutor(max_workers=max(workers, 1)) as pool:
        return [one for some in pool.map(look, slices) for one in some]


def _has_name(row: dict[str, Any]) -> bool:
    name = row.get("file_name")
    return isinstance(name, str) and bool(name.strip())


_LINK = (
    "a symbolic link leads outside the image folder; put the file itself there (cp -rL copies a folder with the files "
    "that its links lead to)"
)


def _path_errors_within(root: str) -> Callable[[_Entries], list[FileError | None]]:
    """`root` is the image folder with its symbolic links resolved."""

    def path_errors(entries: _Entries) -> list[FileError | None]:
        real_folders: dict[str, str] = {}
        return [_path_error(root, entry["file_name"], real_folders) for entry in entries]

    return path_errors


def _path_error(root: str, name: str, real_folders: dict[str, str]) -> FileError | None:
    """The error of a name that is no file within `root`. `real_folders` caches resolved folders between calls."""
    if PurePosixPath(name).is_absolute() or PureWindowsPath(name).drive or ".." in re.split(r"[\\/]", name):
        return FileError(
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
        return FileError("missing", "no such file in the image folder")
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have, with a zero byte for instance
        return FileError("missing", f"not a usable file name ({error})")
    if not real.startswith(root.rstrip("/") + "/"):
        return FileError("unsafe", _LINK)
    if not stat.S_ISREG(mode):
        return FileError("missing", "not a file")
    return None


def _image_error(path: Path, entry: dict[str, Any], check: CheckImages) -> tuple[FileError | None, ImageHeader | None]:
    """The error of a file that cannot be read or has another size than its entry; its header, if it has one."""
    try:
        header = read_header(path)
        if check == "decode":
            decode_image(path, warn=False)
    except DataError as error:
        return FileError("unreadable", str(error).removeprefix(f"{path}: ")), None
    height, width = header.size
    stated = (entry.get("height"), entry.get("width"))
    if stated == (height, width) or any(type(side) is not int or side < 1 for side in stated):
        return None, header
    text = f"the JSON says {stated[1]} x {stated[0]} (width x height), "
    if header.orientation >= 5 and stated == (width, height):
        text += (
            f"the size before the file's EXIF rotation; as viewers show it, it is {width} x {height}. If the boxes fit "
            "the unrotated image, remove the EXIF orientation from the file; if they fit the rotated one, swap width "
            "and height in the JSON"
        )
    else:
        text += f"the file has {width} x {height}; " + _size_remedy((height, width), stated)
    return FileError("size", text), header


def _size_remedy(size: tuple[int, int], stated: tuple[Any, Any]) -> str:
    ratio = stated[0] / size[0], stated[1] / size[1]
    if abs(ratio[0] / ratio[1] - 1) < 0.02:
        return "use the image that was annotated, or scale its boxes and correct the JSON"
    return "correct the JSON"
