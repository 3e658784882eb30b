"""Checks of COCO-format content that describe every error; they raise nothing and change nothing.

`Rows` checks a list of JSON objects column by column, and row by row only where a column has errors.
"""

import reprlib
from collections.abc import Callable, Collection
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from retinanet.data.annotation_arrays import AnnotationArrays

Mask = NDArray[np.bool_]

NAMED_ROWS = 5
"""Rows named for each kind of error; the rest are counted, so that other kinds are not crowded out."""

EXACT = 2**53
"""The largest id: scoring also stores ids as float64, which silently changes larger ones."""

_INT64 = np.iinfo(np.int64)
_MISSING = object()


class Rows:
    """One list of JSON objects, such as the "images" of a COCO file, and the errors found in it so far."""

    def __init__(self, section: str, rows: list[object], errors: list[str]) -> None:
        """`section` is the list's name in errors; `errors` is appended to."""
        self.section = section
        self.errors = errors
        self.is_object = np.fromiter((type(row) is dict for row in rows), bool, len(rows))
        if self.is_object.all():
            self.rows: list[dict[str, object]] = rows  # type: ignore[assignment]
        else:
            self.rows = [row if isinstance(row, dict) else {} for row in rows]
            self.report(~self.is_object, lambda i: _not_object(section, rows[i]), among_objects=False)

    def name(self, i: int) -> str:
        """The name of row i in errors: its position in the list, from 0, and its id where it has one."""
        row = self.rows[i]
        return f"{self.section}[{i}]" + (f" (id {short_repr(row['id'])})" if "id" in row else "")

    def report(self, bad: Mask, describe: Callable[[int], str], among_objects: bool = True) -> None:
        """Add an error for each of the first NAMED_ROWS rows in `bad` and one line for the rest."""
        where = np.flatnonzero(bad & self.is_object if among_objects else bad)
        self.errors.extend(f"{self.name(i)} {describe(i)}" for i in where[:NAMED_ROWS].tolist())
        if len(where) > NAMED_ROWS:
            last = describe(int(where[NAMED_ROWS]))
            self.errors.append(f"... and {len(where) - NAMED_ROWS:,} more of {self.section} like it, e.g. {last}")

    def integers(self, key: str, least: int | None = None) -> tuple[NDArray[np.int64], Mask]:
        """(N,) the integers under `key` (0 where invalid) and a mask of the valid ones."""
        values = [row.get(key, _MISSING) for row in self.rows]
        if set(map(type, values)) <= {int} and _fits(values):
            numbers = np.array(values, dtype=np.int64)
            good = np.ones(len(values), bool)
        else:
            good = np.fromiter((type(v) is int and _INT64.min <= v <= _INT64.max for v in values), bool, len(values))
            self.report(~good, lambda i: _not_integer(key, values[i]))
            numbers = np.array([v if g else 0 for v, g in zip(values, good)], dtype=np.int64)
        if least is not None:
            low = good & (numbers < least)
            self.report(low, lambda i: f"has {key!r} {numbers[i]}; at least {least} is needed")
            good &= ~low
        return numbers, good

    def exact(self, key: str, ids: NDArray[np.int64], good: Mask) -> None:
        """Report ids under `key` beyond plus or minus EXACT."""
        large = good & ((ids > EXACT) | (ids < -EXACT))
        remedy = f"ids beyond plus or minus {EXACT} (2 to the 53rd) cannot be scored exactly; renumber {self.section}"
        self.report(large, lambda i: f"has {key!r} {ids[i]}; {remedy}")

    def numbers(self, key: str, optional: bool = False) -> tuple[NDArray[np.float64], Mask]:
        """(N,) the finite numbers under `key` (0 where invalid or missing) and a mask of the valid ones."""
        values = [row.get(key, _MISSING) for row in self.rows]
        fast = _all_finite(values)
        if fast is not None:
            return fast, np.ones(len(values), bool)
        present = np.fromiter((v is not _MISSING for v in values), bool, len(values))
        good = np.fromiter(map(_is_finite, values), bool, len(values))
        self.report(~good & present, lambda i: f"has {key!r} {short_repr(values[i])}; a finite number is needed")
        if not optional:
            self.report(~present, lambda i: f"has no {key!r}")
        return np.array([v if g else 0.0 for v, g in zip(values, good)], dtype=np.float64), good

    def boxes(self) -> tuple[NDArray[np.float64], Mask]:
        """(N, 4) float64 [x, y, width, height] under "bbox" (0 where invalid) and a mask of the valid ones."""
        values = [row.get("bbox", _MISSING) for row in self.rows]
        if set(map(type, values)) <= {list} and set(map(len, values)) <= {4}:  # type: ignore[arg-type]
            fast = _all_finite(list(chain.from_iterable(values)))  # type: ignore[arg-type]
            if fast is not None:
                return fast.reshape(-1, 4), np.ones(len(values), bool)
        good = np.fromiter(map(_is_box, values), bool, len(values))
        self.report(~good, lambda i: _not_box(values[i]))
        kept = [v if g else [0.0] * 4 for v, g in zip(values, good)]
        return np.array(kept, dtype=np.float64).reshape(-1, 4), good

    def texts(self, key: str) -> None:
        """Report rows whose `key` is not a string of at least one character."""
        values = [row.get(key, _MISSING) for row in self.rows]
        bad = np.fromiter((not (isinstance(v, str) and v.strip()) for v in values), bool, len(values))
        self.report(bad, lambda i: _stated(key, values[i]) + "; a string is needed" + _other_name(key, self.rows[i]))

    def unique(self, ids: NDArray[np.int64], good: Mask) -> None:
        """Report ids that several rows have."""
        where = np.flatnonzero(good)
        _, first, inverse = np.unique(ids[where], return_index=True, return_inverse=True)
        owner = np.arange(len(ids))
        owner[where] = where[first[inverse]]
        again = owner != np.arange(len(ids))
        self.report(again, lambda i: f"has the same id as {self.section}[{owner[i]}]; every id must be used once")

    def known(
        self, key: str, ids: NDArray[np.int64], good: Mask, known: Collection[int], what: str, remedy: str = ""
    ) -> None:
        """Report ids under `key` that no entry of `what` has."""
        unknown = good & ~np.isin(ids, np.fromiter(known, np.int64, len(known)))
        self.report(unknown, lambda i: f"has {key!r} {ids[i]}, which no entry of {what} has{remedy}")
        if not unknown.any() or not known:
            return
        used = np.unique(ids[good])
        first, count = int(used[0]), len(known)
        if unknown.sum() == good.sum() > 1 and first > 1:
            self.errors.append(
                f"no {key!r} of {self.section} is one of {what}: is the file of another split or data set?"
            )
        if max(known) > count and first in (0, 1) and used[-1] < count + first:
            self.errors.append(
                f"{self.section} use {key!r} {first} to {used[-1]}, and {what} have {count:,} ids from {min(known)} to "
                f"{max(known)}: they look like positions among these; write the id of position {first} as "
                f"{min(known)}, and so on"
            )
        step, verb = (1, "add 1 to") if first == 0 else (-1, "subtract 1 from")
        if first in (0, 1) and set((used + step).tolist()) <= set(known):
            self.errors.append(
                f"{self.section} use {key!r} {first} to {used[-1]} where {what} have {min(known)} to {max(known)}: "
                f"they look counted from {first}; {verb} every {key!r}"
            )


def valid_annotations(data: dict[str, object]) -> AnnotationArrays | None:
    """The columns of a file's annotations if these are valid as they are; None if there is anything to report."""
    errors: list[str] = []
    rows = {key: data.get(key) for key in ("images", "categories", "annotations")}
    sections = {key: Rows(key, value, errors) for key, value in rows.items() if isinstance(value, list)}
    if len(sections) < len(rows):
        return None
    ids = {key: sections[key].integers("id") for key in ("images", "categories")}
    known = {key: set(numbers[good].tolist()) for key, (numbers, good) in ids.items()}
    arrays = _validate_annotations(sections["annotations"], known)
    return None if errors else arrays


def validate_ground_truth(data: object, needs_files: bool = True, annotations: bool = True) -> list[str]:
    """Every error of the content of a COCO annotation file; no errors mean that it can be used.

    `needs_files`: training needs "file_name", "width" and "height" of each image, scoring does not. `annotations`:
    False leaves out annotations that are known to be valid.
    """
    if not isinstance(data, dict):
        hint = "; is it a detections file? an annotation file is needed" if isinstance(data, list) else ""
        return [f"the file contains {_kind(data)}, not an object with images, annotations and categories{hint}"]
    task = _other_task(data.get("annotations"))
    if task:
        return [f"the annotations are {task}; use the file with boxes, such as COCO's own instances_*.json"]
    errors: list[str] = []
    sections: dict[str, Rows] = {}
    for key in ("images", "categories", "annotations"):
        rows = data.get(key, _MISSING)
        if not isinstance(rows, list):
            errors.append(_stated(key, rows, "the file ") + "; a list is needed" + _ids_in_use(key, data))
        elif not rows and key != "annotations":
            errors.append(f"{key!r} is an empty list; at least one entry is needed")
        else:
            sections[key] = Rows(key, rows, errors)
    known: dict[str, set[int]] = {}
    for key in ("images", "categories"):
        if key in sections:
            ids, good = sections[key].integers("id")
            sections[key].exact("id", ids, good)
            sections[key].unique(ids, good)
            known[key] = set(ids[good].tolist())
    if "categories" in sections:
        sections["categories"].texts("name")
    if "images" in sections and needs_files:
        sections["images"].texts("file_name")
        sections["images"].integers("width", least=1)
        sections["images"].integers("height", least=1)
    if "annotations" in sections and annotations:
        _validate_annotations(sections["annotations"], known)
    return errors


def _other_task(rows: object) -> str:
    """What annotations without boxes are for, in words; empty where any has a box, or where nothing tells."""
    first = rows[0] if isinstance(rows, list) and rows and isinstance(rows[0], dict) else {}
    if "bbox" in first:
        return ""
    if "segments_info" in first:
        return "those of panoptic segmentation (segments_info)"
    return "captions" if "caption" in first else ""


def _validate_annotations(rows: Rows, known: dict[str, set[int]]) -> AnnotationArrays:
    """Their columns, of use where they have no errors."""
    columns: dict[str, NDArray[np.int64]] = {}
    for key, section in (("image_id", "images"), ("category_id", "categories")):
        columns[key], good = rows.integers(key)
        if section in known:
            rows.known(key, columns[key], good, known[section], section, "; add it there, or remove the annotation")
    boxes, _ = rows.boxes()
    areas, has_area = rows.numbers("area", optional=True)
    rows.report(has_area & (areas < 0), lambda i: f"has 'area' {areas[i]:g}; an area cannot be negative")
    crowd = [row.get("iscrowd", 0) for row in rows.rows]
    odd = np.zeros(len(crowd), bool)
    if not (set(map(type, crowd)) <= {int} and set(crowd) <= {0, 1}):
        odd = np.fromiter((type(value) is not int or value not in (0, 1) for value in crowd), bool, len(crowd))
    rows.report(odd, lambda i: f"has 'iscrowd' {short_repr(crowd[i])}; 0 or 1 is needed")
    with_id = np.fromiter(("id" in row for row in rows.rows), bool, len(rows.rows))
    identified = rows if with_id.all() else _with_id(rows, with_id)
    # Ids that are missing, 0 or used twice are renumbered when the file is loaded: nothing refers to them.
    identified.integers("id")
    return AnnotationArrays(
        image_ids_N=columns["image_id"],
        category_ids_N=columns["category_id"],
        boxes_N4=boxes,
        areas_N=np.where(has_area, areas, np.nan),
        crowd_N=np.array(crowd, dtype=bool) if not odd.any() else ~odd,
    )


def _with_id(rows: Rows, with_id: Mask) -> Rows:
    """The same rows under the same names, with id 0 where there is none."""
    filled: list[object] = [row if has else {**row, "id": 0} for row, has in zip(rows.rows, with_id)]
    return Rows(rows.section, filled, rows.errors)


def short_repr(value: object) -> str:
    """A value, shortened to fit on one line of an error."""
    return reprlib.repr(value)


def _stated(key: str, value: object, subject: str = "") -> str:
    return f"{subject}has no {key!r}" if value is _MISSING else f"{subject}has {key!r} {short_repr(value)}"


def _not_object(section: str, row: object) -> str:
    remedy = f'; write {{"id": ..., "name": "{row}"}}' if section == "categories" and isinstance(row, str) else ""
    return f"is {short_repr(row)}, not an object{remedy}"


def _other_name(key: str, row: dict[str, object]) -> str:
    """What may be meant as the "name" of a category that has none."""
    other = row.get("supercategory")
    if key != "name" or not isinstance(other, str) or not other.strip():
        return ""
    return f"; its 'supercategory' is {short_repr(other)}: if that is the class, write it as 'name'"


def _ids_in_use(key: str, data: dict[str, object]) -> str:
    """Which categories a file without any needs."""
    rows = data.get("annotations")
    if key != "categories" or not isinstance(rows, list):
        return ""
    used = sorted({row["category_id"] for row in rows if isinstance(row, dict) and type(row.get("category_id")) is int})
    return f', with an {{"id": ..., "name": ...}} for each category_id in use: {short_repr(used)}' if used else ""


def _kind(value: object) -> str:
    names = {list: "a list", str: "a string", int: "a number", float: "a number", bool: "true or false"}
    return names.get(type(value), "null" if value is None else f"a {type(value).__name__}")


def _fits(values: list[object]) -> bool:
    if not values:
        return True
    return _INT64.min <= min(values) and max(values) <= _INT64.max  # type: ignore[type-var, operator]


def _all_finite(values: list[object]) -> NDArray[np.float64] | None:
    """(N,) float64, or None where any value is not a finite number."""
    kinds = set(map(type, values))
    if not kinds <= {int, float} or (int in kinds and not _fits(values)):
        return None
    numbers = np.array(values, dtype=np.float64)
    return numbers if np.isfinite(numbers).all() else None


def _is_finite(value: object) -> bool:
    """Whether a value is a JSON number that a float64 can hold; true and false are not."""
    kind = type(value)
    return (kind is float or kind is int) and -1.7e308 < value < 1.7e308  # type: ignore[operator]


def _is_box(value: object) -> bool:
    return type(value) is list and len(value) == 4 and all(map(_is_finite, value))


def _not_integer(key: str, value: object) -> str:
    remedy = "an integer is needed"
    if isinstance(value, float) and value.is_integer():
        remedy = f"write {int(value)}, an integer"
    elif type(value) is int:
        remedy = "an integer of at most 64 bits is needed"
    elif isinstance(value, str) and value.strip().isdecimal() and len(value) < 20:
        remedy = f"write {int(value)}, an integer without quotes"
    return _stated(key, value) + f"; {remedy}"


def _not_box(value: object) -> str:
    if value is _MISSING:
        return "has no 'bbox'"
    reason = "four finite numbers [x, y, width, height] are needed"
    if isinstance(value, list) and len(value) != 4:
        reason = f"it has {len(value)} numbers; [x, y, width, height] are needed"
        if len(value) == 5:
            reason += ": leave out a score; of a box with an angle, write the upright box around it"
    return f"has 'bbox' {short_repr(value)}; {reason}"
