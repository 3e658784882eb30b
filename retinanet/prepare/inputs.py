"""Files that name pictures to detect on: lists, archives and data sets, as the paths of these pictures."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.data.find_images import image_suffixes
from retinanet.data.unread_formats import passed_over
from retinanet.errors import DataError, list_errors
from retinanet.files import read_json
from retinanet.prepare.conversion import find_here, read_lines
from retinanet.prepare.json_kinds import json_kind
from retinanet.prepare.listing import exists, files_below, images_below

_LABELS = (".json", ".json.gz", ".xml", ".csv")
_SHOWN = 10


class NamedPictures(NamedTuple):
    """What a command line names."""

    paths: list[str]
    """Images, folders and patterns, as for `find_images`."""
    notes: list[str]
    """Which pictures were taken, a line for each file that names some."""


def named_pictures(inputs: list[str], held_out: float) -> NamedPictures:
    """The inputs with each file that names pictures replaced by these; other inputs stay as they are.

    Such files are a list of paths (.txt), an archive (.zip), of which all pictures are taken, and a data set's file
    (data.yaml, or JSON, XML or CSV with annotations), of which those of the val split are, or else of test or train.
    held_out: config `data.hold_out`, for the cache that zips are unpacked into.

    Raises DataError with the errors of all files.
    """
    paths: list[str] = []
    notes: list[str] = []
    errors: list[str] = []
    for name in inputs:
        path = Path(name)
        try:
            found = _pictures_of(path, held_out) if exists(path) and path.is_file() else None
        except DataError as error:
            errors.append(str(error))
            continue
        if found is None:
            paths.append(name)
            continue
        what, pictures = found
        if not pictures:
            errors.append(f"{path}: no picture {what}")
        paths += map(str, pictures)
        notes.append(f"{path}: {len(pictures):,} picture{'' if len(pictures) == 1 else 's'} {what}")
    if errors:
        raise DataError("\n".join(errors))
    return NamedPictures(paths, notes)


def _pictures_of(path: Path, held_out: float) -> tuple[str, list[Path]] | None:
    """Where the pictures that a file names come from, and their paths; None for a file that is one itself."""
    ending = path.name.lower()
    if ending.endswith(".txt"):
        return _listed(path)
    if ending.endswith(".zip"):
        return _packed(path, held_out)
    if ending.endswith((".yaml", ".yml")):
        # Imported here and below: they need a tensor library, which an image's path does not.
        from retinanet.prepare.yolo import described_images

        split, images = described_images(path)
        return f"of its {split} split", images
    return _labeled(path) if ending.endswith(_LABELS) else None


def _listed(path: Path) -> tuple[str, list[Path]]:
    """The pictures of a list, one a line, relative to its folder or the current one; # begins a comment."""
    lines = [(number, line.strip().strip("\"'")) for number, line in enumerate(read_lines(path), 1)]
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    found = [(number, line, _listed_file(line, path.parent)) for number, line in lines]
    missing = [f"line {number}: no file {line[:200]}" for number, line, file in found if file is None]
    if missing:
        title = f"{path}: taken for a list of pictures, one path a line, relative to its folder or the current one"
        raise DataError(list_errors(title, missing, _SHOWN))
    return "in its list", [file for _, _, file in found if file is not None]


def _listed_file(line: str, folder: Path) -> Path | None:
    for place in (Path(os.path.normpath(folder / line)), Path(line)):
        if exists(place) and place.is_file():
            return place
    here = find_here(line, [folder, Path()])
    return here if here is not None and here.is_file() else None


def _packed(path: Path, held_out: float) -> tuple[str, list[Path]]:
    from retinanet.prepare.source import unpacked_archive

    folder = unpacked_archive(path, held_out)
    images = images_below(folder)
    unread = passed_over(files_below(folder), image_suffixes())
    return f"in it, unpacked into {folder}" + (f"; {unread}" if unread else ""), images


def _labeled(path: Path) -> tuple[str, list[Path]]:
    """The pictures of annotations in any format that is read."""
    content: Any = read_json(path, leave_out="segmentation", nan_as_null=True) if ".json" in path.name.lower() else None
    if isinstance(content, dict) and (json_kind(content) == "coco" or isinstance(content.get("images"), list)):
        return "of its list of images", _coco_images(path, content)
    from retinanet.prepare.recognise import CocoFiles, read_any

    read = read_any(path)
    if isinstance(read, CocoFiles):
        raise AssertionError(f"{path}: COCO files are read above")
    split = next((name for name in ("val", "test", "train") if name in read.splits), next(iter(read.splits)))
    folder, images = read.splits[split]
    return f"of {read.form}", [folder / image.file_name for image in images]


def _coco_images(path: Path, content: dict[str, Any]) -> list[Path]:
    from retinanet.data.image_files import file_errors, find_image_files
    from retinanet.prepare.check import find_image_folder

    folder = find_image_folder(path, content, "give the folder itself, or put the file there")
    files = find_image_files(content["images"], folder, path.parent, workers=4)
    if files.errors:
        errors = file_errors(files.rows, files.errors)
        raise DataError(list_errors(f"{path}: images that it names cannot be found", errors))
    named = [place for i in range(len(files.rows)) if (place := files.path_of(folder, i)) is not None]
    return list(dict.fromkeys(named))
