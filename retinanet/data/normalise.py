"""Values of COCO-format content that mean one thing, in the one form that validation accepts.

Labelling tools, spreadsheets and data frames write 1.0, "7", false or {"x": 1, ...} where COCO has 1, 7, 0 and a list.
What can be read in one way only is read so and noted once a kind; the rest is left for validation to refuse.
Nothing is changed in place, and content in COCO's own form is returned as it is. Imports no tensor library.
"""

import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import NamedTuple

from retinanet.data.annotation_arrays import AnnotationArrays
from retinanet.data.box_values import parsed_box
from retinanet.data.foreign_layout import Row, layout_of_coco
from retinanet.data.masks import mask_box
from retinanet.data.notes import KindNotes
from retinanet.data.validate import valid_annotations

_NUMBER = re.compile(r"\s*[+-]?\d{1,16}(\.0*)?\s*")
_DECIMAL = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_LARGEST = 2**53  # beyond it a float64 does not hold every integer

_AS_IS = object()
_LEFT_OUT = object()


class Normalised(NamedTuple):
    """Content in COCO's own form, as far as it can be brought there, and what was read differently."""

    data: object
    notes: list[str]
    arrays: AnnotationArrays | None = None
    """The columns of the annotations, where these were valid as they are."""


def normalise_content(data: object) -> Normalised:
    """Content of an annotation file -> the same content in the form that `validate_ground_truth` accepts.

    Read and noted: other layouts (see `layout_of_coco`), integers as 1.0 or "1" (a column in quotes as a whole),
    texts as ids of images, names as category or image ids, true and false, boxes in quotes or with named sides, null
    for a value that may be missing, and boxes that only follow from "segmentation", which is left out afterwards.
    """
    if not isinstance(data, dict):
        return Normalised(data, [])
    notes = KindNotes()
    data = layout_of_coco(data, notes)
    sections = {key: rows for key in ("images", "categories", "annotations") if (rows := _objects(data.get(key)))}
    changed = dict(sections)
    if "categories" in sections:
        changed["categories"] = whole_numbers("categories", changed["categories"], "id", notes)
        changed["categories"] = _column("categories", changed["categories"], "name", _name, notes)
        changed["categories"] = _stripped(changed["categories"], notes)
    if "images" in sections:
        for key in ("id", "width", "height"):
            changed["images"] = whole_numbers("images", changed["images"], key, notes)
    arrays: AnnotationArrays | None = None
    if "annotations" in sections:
        if not any("segmentation" in row for row in sections["annotations"]):
            arrays = valid_annotations({**data, **changed})
        if arrays is None:
            changed = _names_as_ids({**changed, "annotations": _annotations(changed["annotations"], notes)}, notes)
    if any(changed[key] is not sections[key] for key in sections):
        data = {**data, **changed}
    return Normalised(data=data, notes=notes.texts(), arrays=arrays)


def _annotations(rows: list[Row], notes: KindNotes) -> list[Row]:
    rows = _without_text_ids(rows, notes)
    rows = _without_null(rows, ("id", "area", "iscrowd"))
    for key in ("id", "image_id", "category_id", "iscrowd", "area"):
        rows = _column("annotations", rows, key, _alone, notes)
    for key in ("id", "image_id", "category_id", "iscrowd"):
        rows = whole_numbers("annotations", rows, key, notes)
    rows = _column("annotations", rows, "iscrowd", _truth_value, notes)
    rows = _column("annotations", rows, "area", _decimal, notes)
    return _boxes(rows, notes)


def _objects(rows: object) -> list[Row]:
    """The rows of a section; none where it is not a list of objects, which validation reports."""
    return rows if isinstance(rows, list) and set(map(type, rows)) == {dict} else []


def replaced_values(rows: list[Row], key: str, values: list[object]) -> list[Row]:
    """The rows with new values under `key`; `_AS_IS` keeps a row, `_LEFT_OUT` drops the key."""
    return [
        row if value is _AS_IS
        else {name: old for name, old in row.items() if name != key} if value is _LEFT_OUT
        else {**row, key: value}
        for row, value in zip(rows, values)
    ]  # fmt: skip


def whole_numbers(section: str, rows: list[Row], key: str, notes: KindNotes) -> list[Row]:
    """Whole numbers as 1.0, and "1" where the whole column is in quotes, become integers."""
    kinds = set(map(type, [row.get(key) for row in rows]))
    if kinds <= {int, type(None)}:
        return rows
    present = [row[key] for row in rows if row.get(key) is not None]
    if float in kinds:
        rows = _column(section, rows, key, _whole, notes)
    quoted = str in kinds and kinds <= {str, type(None)}
    if quoted and all(_NUMBER.fullmatch(text) for text in present):
        rows = _column(section, rows, key, _unquoted, notes)
    return rows


class _Change(NamedTuple):
    """A value in another form and the kind of note on it."""

    value: object
    kind: str


def _column(
    section: str, rows: list[Row], key: str, change: Callable[[object], _Change | None], notes: KindNotes
) -> list[Row]:
    """The rows with `change` applied to the values under `key`; None keeps a value."""
    values = [row.get(key) for row in rows]
    usual: set[type] = {int, float} if key == "area" else {str} if key == "name" else {int}
    if set(map(type, values)) <= {*usual, type(None)}:
        return rows
    changes = [None if value is None else change(value) for value in values]
    for i, made in enumerate(changes):
        if made is not None:
            notes.add(made.kind, f"{key!r} {values[i]!r} of {section}[{i}]")
    return replaced_values(rows, key, [_AS_IS if made is None else made.value for made in changes])


def _whole(value: object) -> _Change | None:
    if isinstance(value, float) and value.is_integer() and abs(value) <= _LARGEST:
        return _Change(int(value), "values with a decimal point are read as the integers that they are")
    return None


def _unquoted(value: object) -> _Change | None:
    return _Change(int(float(str(value))), "values in quotes are read as the numbers that they are")


def _decimal(value: object) -> _Change | None:
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        return _Change(float(value), "values in quotes are read as the numbers that they are")
    return None


def _alone(value: object) -> _Change | None:
    """The value of a list of one, as tensors of one value are written."""
    if isinstance(value, list) and len(value) == 1 and not isinstance(value[0], list | dict):
        return _Change(value[0], "values in a list of one are read as the value")
    return None


def _truth_value(value: object) -> _Change | None:
    if isinstance(value, str) and value.strip().lower() in ("true", "false"):
        value = value.strip().lower() == "true"
    if isinstance(value, bool):
        return _Change(int(value), "values true and false of 'iscrowd' are read as 1 and 0")
    return None


def _name(value: object) -> _Change | None:
    if type(value) is int or type(value) is float:
        return _Change(str(value), "category names that are numbers are read as text")
    return None


def _stripped(rows: list[Row], notes: KindNotes) -> list[Row]:
    """Categories without spaces and byte order marks at the ends of their names."""
    values: list[object] = [_AS_IS] * len(rows)
    for i, row in enumerate(rows):
        name = row.get("name")
        plain = name.strip().strip("\ufeff").strip() if isinstance(name, str) else name
        if plain and plain != name:
            values[i] = plain
            notes.add("category names begin or end with spaces, which are left out", repr(name))
    return replaced_values(rows, "name", values) if any(value is not _AS_IS for value in values) else rows


def _without_null(rows: list[Row], keys: tuple[str, ...]) -> list[Row]:
    """The rows without keys that are null and may as well be missing; completion of the file notes those."""
    for key in keys:
        if None in [row.get(key, 0) for row in rows]:
            rows = replaced_values(rows, key, [_LEFT_OUT if row.get(key, 0) is None else _AS_IS for row in rows])
    return rows


def _without_text_ids(rows: list[Row], notes: KindNotes) -> list[Row]:
    """The rows without ids that are texts other than numbers: nothing refers to them, and missing ones are numbered."""
    texts = [isinstance(one := row.get("id"), str) and not _NUMBER.fullmatch(one) for row in rows]
    if not any(texts):
        return rows
    notes.add("annotation ids are texts, and are replaced by numbers", repr(rows[texts.index(True)]["id"]), sum(texts))
    return replaced_values(rows, "id", [_LEFT_OUT if is_text else _AS_IS for is_text in texts])


def _boxes(rows: list[Row], notes: KindNotes) -> list[Row]:
    """Boxes as lists of four numbers; from "segmentation", which is left out, where there is no box."""
    values: list[object] = [_AS_IS] * len(rows)
    for i, row in enumerate(rows):
        box = row.get("bbox")
        if type(box) is list and len(box) == 4 and type(box[0]) not in (str, list) and "segmentation" not in row:
            continue
        made: tuple[list[float], str] | None = None
        if isinstance(box, str | dict) or (isinstance(box, list) and any(isinstance(one, str) for one in box)):
            made = parsed_box(box)
        elif isinstance(box, list) and len(box) == 1 and isinstance(box[0], list) and len(box[0]) == 4:
            made = box[0], "boxes are in a list of one: they are read as [x, y, width, height]"
        elif (
            isinstance(box, list)
            and len(box) == 4
            and isinstance(box[0], list)
            and (around := mask_box(box)) is not None
        ):
            made = around, "boxes have four points: the upright box around them is used"
        elif isinstance(box, list) and len(box) == 8 and (around := mask_box([box])) is not None:
            made = around, "boxes have eight numbers, four corners: the upright box around them is used"
        elif "bbox" not in row and "segmentation" not in row:
            made = parsed_box(row)
        elif (not box or (isinstance(box, list) and not any(box))) and "segmentation" in row:
            around = mask_box(row["segmentation"])
            if around is not None:
                made = around, "annotations have no 'bbox': the box around 'segmentation' is used"
        if made is not None:
            values[i] = made[0]
            read = [round(one, 3) for one in made[0]]
            notes.add(made[1], f"{box!r} of annotations[{i}] is {read}" if box else f"{read} for annotations[{i}]")
    if any(value is not _AS_IS for value in values):
        rows = replaced_values(rows, "bbox", values)
    if any("segmentation" in row for row in rows):
        dropped: list[object] = [_LEFT_OUT if "segmentation" in row else _AS_IS for row in rows]
        rows = replaced_values(rows, "segmentation", dropped)
    return rows


def _names_as_ids(sections: dict[str, list[Row]], notes: KindNotes) -> dict[str, list[Row]]:
    """Ids that are texts: names where annotations refer to names, numbers from 1 where images have texts as ids."""
    for section, key, name in (("images", "image_id", "file_name"), ("categories", "category_id", "name")):
        owners, rows = sections.get(section, []), sections.get("annotations", [])
        if not owners or not rows or not all(isinstance(row.get(key), str) for row in rows):
            continue
        by_text: dict[str, int] | None = None
        if all(type(row.get("id")) is int for row in owners):
            named = [str(row.get(name)) for row in owners]
            by_text = _by_name(named, [row["id"] for row in owners], {row[key] for row in rows}, section == "images")
            kind = f"annotations have a {name!r} of {section} as {key!r}: its id is used"
        elif all(isinstance(row.get("id"), str) for row in owners):
            by_text = _unique({row["id"]: number for number, row in enumerate(owners, start=1)}, len(owners))
            kind = f"annotations have a text as {key!r}: {section} are numbered from 1 in the order of the file"
        if by_text is None or not all(row[key] in by_text for row in rows):
            continue
        notes.add(kind, f"{rows[0][key]!r} is {by_text[rows[0][key]]}", len(rows))
        if isinstance(owners[0].get("id"), str):
            sections = {**sections, section: [{**row, "id": by_text[row["id"]]} for row in owners]}
        sections = {**sections, "annotations": [{**row, key: by_text[row[key]]} for row in rows]}
    return sections


def _by_name(names: list[str], ids: list[int], used: set[str], are_files: bool) -> dict[str, int] | None:
    """Ids by name, where names are unique and have all that are used; files also by name or stem without folders."""
    ways: list[Callable[[str], str]] = [str]
    if are_files:
        ways += [lambda name: PurePosixPath(name).name, lambda name: PurePosixPath(name).stem]
    for way in ways:
        found = _unique({way(name): number for name, number in zip(names, ids)}, len(names))
        if found is not None and used <= found.keys():
            return found
    return None


def _unique(by_text: dict[str, int], count: int) -> dict[str, int] | None:
    return by_text if len(by_text) == count else None
