"""Shared by the conversions to COCO-format JSON: labelled images, reading, writing, and the command to train with."""

import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from retinanet.data.file_names import path_parts
from retinanet.data.notes import KindNotes
from retinanet.display.numbers import amount
from retinanet.errors import ConfigError, DataError, list_errors
from retinanet.files import read_text, write_json
from retinanet.prepare.listing import describing_yaml, files_below, files_of, find_folder, find_inside, root_tag

LabelFormat = Literal["voc", "yolo"]
_DECIMAL_COMMA = re.compile(r"[+-]?(0|\d+(?!,\d{3}$)),\d+")
"""Not 1,234, which may be a thousand and more."""
_REVERSED = "boxes are written from another corner"
_MOST_REVERSED = 0.2


class LabeledBox(NamedTuple):
    """One object of an image."""

    name: str
    bbox: tuple[float, float, float, float]
    """(x, y, width, height) in pixels; (0, 0) is the upper left corner of the first pixel."""
    crowd: bool


class LabeledImage(NamedTuple):
    """One image with its objects."""

    file_name: str
    """Path relative to the image folder, with forward slashes."""
    size: tuple[int, int]
    """(height, width) in pixels."""
    boxes: list[LabeledBox]


class LabeledSplit(NamedTuple):
    """The images of one split."""

    folder: Path
    """Folder that the images' names are relative to."""
    images: list[LabeledImage]


class LabeledSet(NamedTuple):
    """A data set as a labelling program wrote it."""

    form: str
    """Name of the format, such as "YOLO labels"."""
    splits: dict[str, LabeledSplit]
    classes: list[str]
    notes: list[str]
    """What was read otherwise than it is written, or left out: a line a kind."""


class ConvertedSplit(NamedTuple):
    """One annotation file that a conversion wrote."""

    name: str
    annotations: Path
    images: Path
    """Folder that the file's image paths are relative to."""
    summary: str


VOC_FOLDERS = ("Annotations", "annotation", "labels", "label", "xml", "xmls")
"""Folders of Pascal VOC's XML files, VOC's own first."""
LABEL_SUFFIXES = {".txt", ".xml", ".json", ".csv"}


def find_format(folder: Path) -> LabelFormat:
    """The format of a folder's labels. Raises DataError where it has both or none, naming what was found instead."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    formats = formats_in(folder)
    if len(formats) == 1:
        return formats[0]
    if formats:
        raise DataError(
            f"{folder}: has both Pascal VOC's XML files and YOLO's labels; name the format to convert: "
            f"retinanet data voc {folder} ... or retinanet data yolo {folder} ..."
        )
    nested = [str(child) for child in sorted(folder.iterdir()) if child.is_dir() and formats_in(child)]
    if nested:
        remedy = f"but there are labels in {', '.join(nested)}; give that folder instead"
    elif files_of(folder, ".json") or files_of(folder / "annotations", ".json"):
        remedy = f"but JSON files; if those are in COCO format, no conversion is needed: retinanet data check {folder}"
    else:
        remedy = "check the path"
    raise DataError(
        f"{folder}: has neither Pascal VOC's XML files, in it or in Annotations/, nor YOLO's data.yaml, classes.txt or "
        f"labels/, {remedy}"
    )


def formats_in(folder: Path) -> list[LabelFormat]:
    """The formats whose labels are directly in a folder."""
    labels = find_folder(folder, "labels")
    others = LABEL_SUFFIXES & {file.suffix.lower() for file in files_below(labels)} if labels is not None else set()
    below = [file for name in VOC_FOLDERS if (found := find_folder(folder, name)) for file in files_below(found)]
    files = [*files_of(folder, ".xml"), *(file for file in below if file.suffix.lower() == ".xml")]
    has_xml = any(root_tag(file) != "annotations" for file in files)  # which CVAT's own format has
    # Some tools write classes.txt next to XML files; only with further .txt files are there YOLO labels, too.
    texts = {path.name.lower() for path in files_of(folder, ".txt")}
    has_yolo = (
        describing_yaml(folder) is not None
        or bool(files_of(folder, "obj.names"))
        or (labels is not None and (not others or ".txt" in others))
        or ("classes.txt" in texts and (len(texts) > 1 or not has_xml))
    )
    formats: tuple[tuple[LabelFormat, bool], ...] = (("voc", has_xml), ("yolo", has_yolo))
    return [name for name, found in formats if found]


def find_here(written: str, homes: Sequence[Path]) -> Path | None:
    """Where a path that was written for another place is in one of the folders `homes`; None if it is in none.

    Backslashes are read as slashes. Tried are the path itself and its endings, the longest first, such as images/train
    of /content/set/images/train and of ../images/train. The result is inside its home.
    """
    parts = path_parts(written)
    for start in range(len(parts)):
        for home in homes:
            place = find_inside(home, tuple(parts[start:]))
            if place is not None and place.resolve().is_relative_to(home.resolve()):
                return place
    return None


def read_lines(path: Path) -> list[str]:
    """The lines of a text file. Raises DataError as `files.read_text`."""
    return read_text(path).splitlines()


def read_number(text: str, notes: KindNotes) -> float:
    """A finite number as any country writes it: a decimal comma is read as a point, and noted.

    Raises DataError for other texts, such as a percentage, and for a comma that may separate thousands.
    """
    plain = text.strip()
    if _DECIMAL_COMMA.fullmatch(plain):
        notes.add("numbers have a decimal comma", plain)
        plain = plain.replace(",", ".")
    try:
        number = float(plain)
    except ValueError as error:
        hint = (
            " but a percentage; write a fraction of 1 or pixels, as the format asks for" if plain.endswith("%") else ""
        )
        raise DataError(f"{text!r} is not a number{hint}") from error
    if not math.isfinite(number):
        raise DataError(f"{text!r} is not a finite number")
    return number


def in_order(corners: tuple[float, float, float, float], notes: KindNotes) -> tuple[float, float, float, float]:
    """The corners (x1, y1, x2, y2) with the upper left one first, which is noted where they were exchanged."""
    x1, y1, x2, y2 = corners
    if x2 < x1 or y2 < y1:
        notes.add(_REVERSED, f"({x1:g}, {y1:g}, {x2:g}, {y2:g})")
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def check_order(boxes: int, notes: KindNotes, errors: list[str]) -> None:
    """Add an error if a large share of the boxes had their corners reordered: they may not be corners at all."""
    reversed_boxes = notes.count(_REVERSED)
    if reversed_boxes >= 2 and reversed_boxes >= _MOST_REVERSED * boxes:
        errors.append(
            f"{reversed_boxes:,} of {boxes:,} boxes have their second corner left of or above the first: are the last "
            "two numbers width and height? Two corners x1, y1, x2, y2 are needed"
        )


def refuse_errors(folder: Path, source: str, errors: list[str]) -> None:
    """Raise DataError with all errors of a folder in the format `source`, if there are any."""
    if errors:
        raise DataError(list_errors(f"{folder}: cannot be converted from {source}", errors))


def write_splits(
    splits: Mapping[str, LabeledSplit],
    classes: Sequence[str],
    output: Path,
    description: str,
    overwrite: bool,
) -> list[ConvertedSplit]:
    """Write `output`/<split>.json for each split; category ids are 1..K in the order given.

    Raises DataError for classes that cannot be distinguished, and for files that exist where `overwrite` is not set;
    ResourceError where a file cannot be written.
    """
    errors = [f"class {name!r} is listed twice" for name in sorted({n for n in classes if list(classes).count(n) > 1})]
    errors.extend(f"split {name!r}: a plain name was expected" for name in splits if Path(name).name != name)
    if not classes:
        errors.append("there are no classes, since no object is labelled")
    if not overwrite:
        files = [output / f"{name}.json" for name in splits]
        errors.extend(f"{file} exists; --overwrite replaces it" for file in files if file.exists())
    if errors:
        raise DataError(list_errors(f"{output}: annotations cannot be written", errors))
    written = []
    for name, (folder, images) in splits.items():
        file = output / f"{name}.json"
        write_json(file, coco_document(images, classes, description))
        boxes = [box for image in images for box in image.boxes]
        empty = sum(not image.boxes for image in images)
        crowds = sum(box.crowd for box in boxes)
        flat = sum(box.bbox[2] <= 0 or box.bbox[3] <= 0 for box in boxes)
        summary = (
            f"{name}: {amount(len(images), 'image')} ({empty} without objects), {amount(len(boxes), 'box')} "
            f"({crowds} difficult, {flat} of zero area), {amount(len(classes), 'class')} -> {file}"
        )
        written.append(ConvertedSplit(name=name, annotations=file, images=folder, summary=summary))
    return written


def with_notes(written: list[ConvertedSplit], notes: Sequence[str]) -> list[ConvertedSplit]:
    """The splits with the notes of their reading below the last one's summary."""
    last = written[-1]
    return [*written[:-1], last._replace(summary="\n".join([last.summary, *(f"note: {note}" for note in notes)]))]


def coco_document(images: Sequence[LabeledImage], classes: Sequence[str], description: str) -> dict[str, object]:
    """The content of a COCO-format file; image and annotation ids count from 1 in the order given."""
    ids = {name: number for number, name in enumerate(classes, 1)}
    labelled = ((number, box) for number, image in enumerate(images, 1) for box in image.boxes)
    return {
        "info": {"description": description},
        "images": [
            {"id": number, "file_name": image.file_name, "height": image.size[0], "width": image.size[1]}
            for number, image in enumerate(images, 1)
        ],
        "annotations": [
            {
                "id": number, "image_id": image_id, "category_id": ids[box.name], "bbox": list(box.bbox),
                "area": box.bbox[2] * box.bbox[3], "iscrowd": int(box.crowd),
            }
            for number, (image_id, box) in enumerate(labelled, 1)
        ],
        "categories": [{"id": number, "name": name, "supercategory": ""} for name, number in ids.items()],
    }  # fmt: skip


def split_paths(pairs: Iterable[str]) -> dict[str, Path] | None:
    """NAME=PATH arguments as a mapping; None where there are none. Raises ConfigError."""
    splits: dict[str, Path] = {}
    for pair in pairs:
        name, equals, path = pair.partition("=")
        if not name or not equals or not path or name in splits:
            raise ConfigError(f"--split {pair}: expected NAME=PATH, each name once")
        splits[name] = Path(path)
    return splits or None


def train_command(written: Iterable[ConvertedSplit], output: Path) -> str:
    """The command that trains on one of the converted splits and evaluates on another; there must be two."""
    splits = {split.name: split for split in written}
    train = next((splits[name] for name in ("train", "trainval") if name in splits), next(iter(splits.values())))
    val = next(splits[name] for name in ("val", "valid", "test", *splits) if name in splits and splits[name] != train)
    pairs = [f"data.root={output}"]
    for role, split in (("train", train), ("val", val)):
        inside = split.images.resolve().is_relative_to(output.resolve())
        images = split.images.resolve().relative_to(output.resolve()) if inside else split.images.resolve()
        pairs += [f"data.{role}_annotations={split.annotations.name}", f"data.{role}_images={images}"]
    return shlex.join(["retinanet", "train", "own", *pairs])
