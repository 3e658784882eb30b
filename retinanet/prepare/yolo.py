"""YOLO text labels (one file per image, lines of `class cx cy w h` in fractions of the image) to COCO-format JSON.

Images stay where they are. `yolo_layout` finds the classes and splits, `yolo_lines` reads a line.
"""

import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from retinanet.data.find_images import image_suffixes
from retinanet.data.images import image_header
from retinanet.data.notes import KindNotes
from retinanet.data.unread_formats import passed_over
from retinanet.errors import DataError
from retinanet.prepare.conversion import (
    ConvertedSplit,
    LabeledImage,
    LabeledSet,
    LabeledSplit,
    find_here,
    read_lines,
    refuse_errors,
    with_notes,
    write_splits,
)
from retinanet.prepare.yolo_layout import find_layout
from retinanet.prepare.yolo_lines import LabelRule, fields_of, looks_like_key_points, read_line


def convert_yolo(
    folder: Path,
    output: Path,
    splits: Mapping[str, Path] | None = None,
    *,
    clip: bool = False,
    overwrite: bool = False,
) -> list[ConvertedSplit]:
    """Write `output`/<split>.json for every split; returns what was written.

    `folder` contains data.yaml (names; train, val and test) or classes.txt. Labels are in labels/, which mirrors
    images/, or next to the images; an image without a label file is an empty image. `splits` maps a name to a folder
    of images, or to a text file that lists them, and replaces those of data.yaml; only with it may images be outside
    `folder`. `clip` cuts boxes that cross the border instead of refusing them.
    Raises DataError with every error of the folder in one list.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    read = read_yolo(folder, splits, clip=clip)
    written = write_splits(
        read.splits, read.classes, output, f"converted from {read.form}, folder {folder.name}", overwrite
    )
    return with_notes(written, read.notes)


def read_yolo(
    folder: Path, splits: Mapping[str, Path] | None = None, *, clip: bool = False, described: Path | None = None
) -> LabeledSet:
    """The content of a folder with YOLO's labels; arguments as of `convert_yolo`, `described` as of `find_layout`."""
    errors: list[str] = []
    notes = KindNotes()
    layout = find_layout(folder, splits, errors, notes, described)
    refuse_errors(folder, "YOLO", errors)
    rule = LabelRule(classes=layout.classes, key_points=layout.key_points, clip=clip)
    converted: dict[str, LabeledSplit] = {}
    polygons: list[list[str]] = []
    for name, sources in layout.sources.items():
        files = _image_files(sources, folder, errors, notes)
        if not files:
            unread = passed_over(file for source in sources for file in sorted(source.rglob("*")))
            errors.append(f"{name}: no image in {', '.join(map(str, sources))}" + (f", but {unread}" if unread else ""))
            continue
        base = sources[0] if len(sources) == 1 and sources[0].is_dir() else _common_folder(files)
        images = [_read_image(file, base, rule, errors, notes, polygons) for file in files]
        unlabeled = [file for file in files if not _label_of(file).is_file()]
        if len(unlabeled) == len(files):
            errors.append(f"{name}: none of {len(files)} images has a label file, for example {_label_of(files[0])}")
        for file in unlabeled:
            notes.add("images have no label file, and are read as empty", file.name)
        for orphan in _orphans(files):
            notes.add("label files have no image, and are left out", str(orphan))
        converted[name] = LabeledSplit(base, images)
    if not layout.key_points and looks_like_key_points(polygons):
        errors.append(
            f"every line has {len(polygons[0])} values, the first four a box around the others: key points, not "
            "polygons. Add kpt_shape: [POINTS, 2] (or 3, with visibility) to data.yaml"
        )
    refuse_errors(folder, "YOLO", errors)
    return LabeledSet(form="YOLO labels", splits=converted, classes=layout.classes, notes=notes.texts())


def _image_files(sources: list[Path], folder: Path, errors: list[str], notes: KindNotes) -> list[Path]:
    """Every image of a split, once each, sorted within each source."""
    files: dict[Path, None] = {}
    for source in sources:
        if source.is_dir():
            found = sorted(file for file in source.rglob("*") if file.suffix.lower() in image_suffixes())
        elif source.is_file() and source.suffix == ".txt":
            found = _listed_files(source, folder, errors, notes)
        else:
            errors.append(f"{source}: neither a folder of images nor a .txt file that lists them")
            continue
        files.update(dict.fromkeys(found))
    return list(files)


def _listed_files(source: Path, folder: Path, errors: list[str], notes: KindNotes) -> list[Path]:
    """The images that a text file lists, one path per line, relative to the file's own folder or found in `folder`."""
    try:
        lines = read_lines(source)
    except DataError as error:
        errors.append(str(error))
        return []
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        file = Path(os.path.normpath(source.parent / line.strip()))
        if not file.is_file() or not file.resolve().is_relative_to(source.parent.resolve()):
            here = find_here(line, [source.parent, folder])
            if here is None or not here.is_file():
                errors.append(f"{source}:{number}: no image {line.strip()} in {source.parent}")
                continue
            notes.add(
                f"paths are written for another place in {source.name}: those here are used",
                f"{line.strip()} is {here}",
            )
            file = here
        found.append(file)
    return found


def _common_folder(files: list[Path]) -> Path:
    return Path(os.path.commonpath([file.parent for file in files]))


def _label_of(image: Path) -> Path:
    """Its label file: in labels/ in place of the path's last images/ if that exists, otherwise next to the image."""
    parts = image.parent.parts
    for index in range(len(parts) - 1, -1, -1):
        if parts[index] == "images":
            mirrored = Path(*parts[:index], "labels")
            if mirrored.is_dir():
                return Path(mirrored, *parts[index + 1 :], image.stem + ".txt")
            break
    return image.with_suffix(".txt")


def _orphans(files: list[Path]) -> list[Path]:
    """The label files of a labels/ folder that belong to no image."""
    labels = {_label_of(file) for file in files}
    folders = sorted({label.parent for label, file in zip(map(_label_of, files), files) if label.parent != file.parent})
    return [
        file
        for folder in folders
        if folder.is_dir()
        for file in sorted(folder.glob("*.txt"))
        if file not in labels and file.name != "classes.txt"
    ]


def _read_image(
    file: Path, base: Path, rule: LabelRule, errors: list[str], notes: KindNotes, polygons: list[list[str]]
) -> LabeledImage:
    """One image's header and its label file; every error is added to `errors`, lines of polygons to `polygons`."""
    name = PurePosixPath(file.relative_to(base)).as_posix()
    label = _label_of(file)
    try:
        height, width = image_header(file)
        lines = read_lines(label) if label.is_file() else []
    except DataError as error:
        errors.append(str(error))
        return LabeledImage(name, (1, 1), [])
    boxes = []
    for number, line in enumerate(lines, 1):
        fields = fields_of(line)
        if not fields:
            continue
        if len(fields) > 6:
            polygons.append(fields)
        try:
            boxes.append(read_line(fields, (height, width), rule, notes))
        except DataError as error:
            errors.append(f"{label}:{number}: {error}")
    return LabeledImage(name, (height, width), boxes)
