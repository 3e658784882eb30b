"""Rows of a COCO file's "images" whose names lead to no file, given the files that they obviously mean.

A file is taken only if one alone fits, if no other image has it, and if no other name leads to it. Imports no tensor
library.
"""

import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.data.file_names import FolderIndex, Found, is_other_split, path_parts, shown_name, split_of_name
from retinanet.data.notes import KindNotes

_HINTS = 10  # missing images that are looked for outside the image folder
_NUMBERED = re.compile(r"\D{0,8}\d{1,12}")  # stems such as 000001 or frame12, which many folders have


class Located(NamedTuple):
    """Where the images are that are not where their names say."""

    names: dict[int, str]
    """Row -> its file, relative to the image folder, with slashes; outside it with "..", but within the root."""
    hints: dict[int, str]
    """Row -> why none is taken, or where a file of that name is, for rows that stay missing."""
    notes: list[str]


def locate(rows: list[dict[str, Any]], missing: Collection[int], folder: Path, root: Path | None) -> Located:
    """Files for the rows `missing` of `rows`, which all have a "file_name".

    folder: the image folder, which exists. root: the data set's folder, searched where the image folder has none of
    its images; None searches nothing else.
    """
    index = FolderIndex(str(folder))
    used = {posixpath.normpath(row["file_name"]) for i, row in enumerate(rows) if i not in missing}
    used_folders = {posixpath.dirname(name) for name in used}
    found: dict[int, Found] = {}
    hints: dict[int, str] = {}
    for i in missing:
        fits = _fitting(index, rows[i]["file_name"], used_folders)
        if fits is None:
            continue
        if len(fits.paths) > 1:
            hints[i] = f"{len(fits.paths)} files fit, such as {fits.paths[0]} and {fits.paths[1]}"
        elif fits.paths[0] in used:
            hints[i] = f"{fits.paths[0]} is called so, but another image has that file_name"
        else:
            found[i] = fits
    hints |= _refuse_moved(index, found, is_all=len(found) == len(rows))
    for path, claimants in _claims(rows, found).items():
        if len({rows[i]["file_name"] for i in claimants}) > 1:
            for i in claimants:
                hints[i] = f"{path} is called so, but {len(claimants)} images have that last name"
                del found[i]
    if not found and len(missing) == len(rows) and root is not None and not hints:
        found, hints = _in_root(rows, folder, root)
    elif root is not None:
        hints |= _outside(rows, [i for i in missing if i not in found and i not in hints][:_HINTS], folder, root)
    return Located({i: fits.paths[0] for i, fits in found.items()}, hints, _notes(rows, found, folder))


def _fitting(index: FolderIndex, name: str, used_folders: set[str]) -> Found | None:
    """What the name means; if other images are in its folder, only files of that folder."""
    found = index.find(name)
    own = posixpath.dirname("/".join(path_parts(name)))
    if found is None or own not in used_folders:
        return found
    there = [path for path in found.paths if posixpath.dirname(path) == own]
    return Found(paths=there, kind=found.kind, is_moved=False) if there else None


def _refuse_moved(index: FolderIndex, found: dict[int, Found], is_all: bool) -> dict[int, str]:
    """Remove from `found` files in folders that their names do not end with, unless they are obviously meant.

    They are if all images (`is_all`) are in one such folder, which has no others or whose names are not just numbers:
    a 000001.jpg in a folder of another name proves nothing. Returns hints on what has been removed.
    """
    moved = {i: fits for i, fits in found.items() if fits.is_moved}
    folders = {posixpath.dirname(fits.paths[0]) for fits in moved.values()}
    chosen = {fits.paths[0] for fits in moved.values()}
    if is_all and len(moved) == len(found) and len(folders) == 1:
        numbered = all(_NUMBERED.fullmatch(posixpath.splitext(posixpath.basename(path))[0]) for path in chosen)
        if not numbered or chosen == index.images_in(folders):
            return {}
    for i in moved:
        del found[i]
    return {i: f"{fits.paths[0]} is called so; if it is the image, correct the folder" for i, fits in moved.items()}


def _claims(rows: list[dict[str, Any]], found: dict[int, Found]) -> dict[str, list[int]]:
    claims: dict[str, list[int]] = defaultdict(list)
    for i, fits in found.items():
        claims[fits.paths[0]].append(i)
    return claims


def _in_root(rows: list[dict[str, Any]], folder: Path, root: Path) -> tuple[dict[int, Found], dict[int, str]]:
    """All images from one other folder of the root, where each name fits one file of it."""
    index = FolderIndex(str(root))
    split = split_of_name(folder.name)
    fitting = {i: fits for i, row in enumerate(rows) if (fits := index.find(row["file_name"])) and len(fits.paths) == 1}
    found = {i: fits for i, fits in fitting.items() if not is_other_split(fits.paths[0], split)}
    own_names = {row["file_name"]: "/".join(path_parts(row["file_name"])) for row in rows}
    exact = all(path in index.files for path in own_names.values())
    is_all = len(found) == len(rows)
    if exact or (is_all and not _refuse_moved(index, dict(found), is_all=True)):
        kind = f"are those of files outside the image folder {folder}, but within {root}"
        paths = {i: own_names[row["file_name"]] if exact else found[i].paths[0] for i, row in enumerate(rows)}
        if len(set(paths.values())) == len({row["file_name"] for row in rows}):
            relative = {i: _relative(root / path, folder) for i, path in paths.items()}
            return {i: Found(paths=[path], kind=kind, is_moved=True) for i, path in relative.items()}, {}
    return {}, _outside(rows, list(range(min(len(rows), _HINTS))), folder, root)


def _outside(rows: list[dict[str, Any]], missing: list[int], folder: Path, root: Path) -> dict[int, str]:
    """Where in the root files with the names of missing images are."""
    if not missing or not root.is_dir():
        return {}
    index = FolderIndex(str(root))
    hints = {}
    for i in missing:
        fits = index.find(rows[i]["file_name"])
        if fits is not None:
            where = root / fits.paths[0]
            hints[i] = (
                f"a file of that name is {where}; if it is the image, let the image folder be one that holds both, "
                "or write the name relative to it"
            )
    return hints


def _relative(path: Path, folder: Path) -> str:
    return os.path.relpath(path, folder).replace(os.sep, "/")


def _notes(rows: list[dict[str, Any]], found: dict[int, Found], folder: Path) -> list[str]:
    notes = KindNotes()
    for i, fits in found.items():
        name, kind = rows[i]["file_name"], fits.kind
        parts = path_parts(name)
        if len(parts) > 1 and parts[0] == folder.name and kind.startswith("are in a folder"):
            kind = "repeat the image folder's name"
        notes.add(f"file names {kind}: the files that they mean are used", f"{shown_name(name)} is {fits.paths[0]}")
    return notes.texts()
