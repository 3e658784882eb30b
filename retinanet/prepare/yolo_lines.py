"""Lines of YOLO's label files: boxes, oriented boxes, polygons, key points and predictions as boxes in pixels.

A line is `class cx cy w h` in fractions of the image; with more numbers it is a polygon `class x1 y1 x2 y2 x3 y3 ...`
(an oriented box has four points), of which the box around is taken; a box and key points where data.yaml has
`kpt_shape`; or a box and a confidence. Boxes are (x, y, w, h) in pixels, rounded to a thousandth; boxes that leave the
image by at most one pixel, the rounding of the fractions, are cut.
"""

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple, assert_never

from retinanet.data.notes import KindNotes
from retinanet.errors import DataError
from retinanet.prepare.conversion import LabeledBox, read_number

ROUNDING_PIXELS = 1.0
FEWEST_POSES = 3
"""Lines that must all be a box with points inside for a set of polygons to be taken for key points."""

Convention = Literal["centres", "corners", "sizes"]
_CONVENTIONS: dict[Convention, str] = {
    "corners": "two corners, class x1 y1 x2 y2", "sizes": "a corner and a size, class x1 y1 w h",
}  # fmt: skip
_ENOUGH = 5  # boxes that together make a convention certain
_SHARE = 0.2  # of the boxes that must leave their image for another convention to be considered
_SLACK = 0.01  # of the image's side that a box may leave it by


_CLASS = re.compile(r"\d{1,8}(\.\d*)?([eE][+-]?\d{1,2})?")
"""The number of a class, also as NumPy writes it: 1.000000e+00."""


class LabelRule(NamedTuple):
    """What lines mean."""

    classes: list[str]
    key_points: int
    """Numbers of the key points of a line (`kpt_shape`: points times 2 or 3); 0 for a data set without."""
    convention: Convention
    """How the four numbers of a box are meant; see `convention_of`."""
    tracked: bool
    """Whether a box is followed by its confidence and the number of a track; see `have_tracks`."""
    clip: bool
    """Cut boxes whose centre is in the image but that cross the border, instead of refusing them."""


def read_line(fields: list[str], size: tuple[int, int], rule: LabelRule, notes: KindNotes) -> LabeledBox:
    """One line of a label file; size: (height, width) in pixels. Raises DataError, whose place the caller adds."""
    name = _class_name(fields[0], rule.classes, notes)
    values = [read_number(field, notes) for field in fields[1:]]
    if rule.key_points and len(values) == 4 + rule.key_points:
        notes.add(
            "lines have key points (kpt_shape), which are left out",
            " ".join(fields[:5]),
        )
        values = values[:4]
    elif len(values) == 5 and not 0 <= values[4] <= 1:
        raise DataError(
            f"the sixth value, {values[4]:g}, is no confidence (0 to 1): an angle? Write an oriented box as its four "
            "corners, class x1 y1 x2 y2 x3 y3 x4 y4"
        )
    elif len(values) == 5:
        notes.add("lines have a confidence, which is left out: are these predictions?", " ".join(fields))
        values = values[:4]
    elif rule.tracked and len(values) == 6:
        kind = "lines have a confidence and the number of a track, which are left out: are these predictions?"
        notes.add(kind, " ".join(fields))
        values = values[:4]
    if len(values) == 4:
        if values[2] < 0 or values[3] < 0:
            notes.add("boxes have a negative width or height, which is read without its sign", " ".join(fields))
        corners = _corners_by(rule.convention, values)
    elif len(values) >= 6 and len(values) % 2 == 0:
        corners = min(values[::2]), min(values[1::2]), max(values[::2]), max(values[1::2])
    else:
        raise DataError(
            f"{len(fields)} values; expected class cx cy w h, or class and at least three points x y; for key points "
            "data.yaml needs kpt_shape"
        )
    return LabeledBox(name, _in_pixels(corners, size, rule.clip, notes), False)


def fields_of(line: str) -> list[str]:
    """The values of a line, between spaces, commas with spaces, or, where it has no space, commas."""
    fields = line.split()
    if len(fields) > 1 and all(field.endswith(",") for field in fields[:-1]):
        return [field.rstrip(",") for field in fields]
    return line.strip().split(",") if len(fields) == 1 and line.count(",") >= 4 else fields


def looks_like_key_points(lines: list[list[str]]) -> bool:
    """Whether lines that would be polygons are all a box of four numbers with points inside: key points.

    Polygons of a data set differ in length, and the first two points of one are not a box around the others.
    """
    long = [fields for fields in lines if len(fields) > 9 and len(fields) % 2]
    return len(long) >= FEWEST_POSES and len({len(fields) for fields in long}) == 1 and all(map(_is_pose, long))


def may_be_two_key_points(lines: list[list[str]]) -> bool:
    """Whether lines of eight numbers may be a box and two key points rather than four corners.

    All are a box with points inside, and none has the corners of an oriented box, a parallelogram.
    """
    if len(lines) < FEWEST_POSES or any(len(fields) != 9 for fields in lines) or not all(map(_is_pose, lines)):
        return False
    return not any(
        abs(x1 - x2 + x3 - x4) < _SLACK and abs(y1 - y2 + y3 - y4) < _SLACK
        for x1, y1, x2, y2, x3, y3, x4, y4 in (_plain_numbers(fields[1:]) for fields in lines)
    )


def have_tracks(lines: Sequence[list[str]]) -> bool:
    """Whether lines of seven values are boxes with a confidence and the number of a track, not triangles.

    The last value is a whole number in all of them and above 1, the end of an image, in some.
    """
    ends = [_plain_numbers(fields[-2:]) for fields in lines if len(fields) == 7]
    whole = all(len(end) == 2 and 0 <= end[0] <= 1 and end[1].is_integer() for end in ends)
    return whole and any(end[1] > 1 for end in ends)


def _is_pose(fields: list[str]) -> bool:
    try:
        values = [float(field) for field in fields[1:]]
    except ValueError:
        return False
    x1, y1, x2, y2 = _corners_by("centres", values[:4])
    points = values[4:]
    return all(x1 <= x <= x2 for x in points[::2]) and all(y1 <= y <= y2 for y in points[1::2])


def _class_name(text: str, classes: list[str], notes: KindNotes) -> str:
    if text in classes and not text.isdecimal():
        notes.add("lines have the names of classes, not their numbers", text)
        return text
    number = float(text) if _CLASS.fullmatch(text) else -1.0
    if not number.is_integer() or not 0 <= number < len(classes):
        hint = "; classes count from 0" if number == len(classes) else ""
        raise DataError(f"class {text!r} is not one of 0 to {len(classes) - 1}{hint}")
    return classes[int(number)]


def convention_of(lines: Sequence[list[str]], notes: KindNotes, errors: list[str]) -> Convention:
    """How the four numbers of the boxes of a data set are meant, from all its lines.

    As centres, YOLO's own, unless many leave their image so while none does as corners or as a corner and a size.
    Where both others explain them an error is added to `errors`.
    """
    rows = [numbers for fields in lines if len(fields) == 5 and (numbers := _plain_numbers(fields[1:]))]
    leaving = [row for row in rows if not _is_inside(_corners_by("centres", row))]
    if len(leaving) < max(_ENOUGH, _SHARE * len(rows)):
        return "centres"
    others: tuple[Convention, ...] = ("corners", "sizes")
    fitting = [one for one in others if all(_is_inside(_corners_by(one, row)) for row in rows)]
    if not fitting:
        return "centres"
    first = " ".join(f"{number:g}" for number in leaving[0])
    why = (
        f"as class cx cy w h, {len(leaving):,} of {len(rows):,} would leave their image, such as {first}, and as these "
        "none does"
    )
    if len(fitting) > 1:
        names = " or ".join(_CONVENTIONS[one] for one in fitting)
        errors.append(f"the boxes look like {names}: {why}. Write class cx cy w h")
        return "centres"
    notes.say(f"{len(rows):,} boxes are read as {_CONVENTIONS[fitting[0]]}: {why}")
    return fitting[0]


def _plain_numbers(fields: list[str]) -> list[float]:
    """The numbers of a line; none where one is no number."""
    try:
        return [float(field) for field in fields]
    except ValueError:
        return []


def _is_inside(corners: tuple[float, float, float, float]) -> bool:
    x1, y1, x2, y2 = corners
    return -_SLACK <= x1 <= x2 <= 1 + _SLACK and -_SLACK <= y1 <= y2 <= 1 + _SLACK


def _corners_by(convention: Convention, values: list[float]) -> tuple[float, float, float, float]:
    """(x1, y1, x2, y2) of the four numbers of a line; of a centre, sizes count without their sign."""
    a, b, c, d = values
    match convention:
        case "centres":
            return a - abs(c) / 2, b - abs(d) / 2, a + abs(c) / 2, b + abs(d) / 2
        case "corners":
            return a, b, c, d
        case "sizes":
            return a, b, a + c, b + d
        case _:
            assert_never(convention)


def _in_pixels(
    corners: tuple[float, float, float, float], size: tuple[int, int], clip: bool, notes: KindNotes
) -> tuple[float, float, float, float]:
    """(x, y, w, h) in pixels of corners in fractions of an image of (height, width) pixels."""
    height, width = size
    x1, y1, x2, y2 = corners
    x1, y1, x2, y2 = x1 * width, y1 * height, x2 * width, y2 * height
    least, most = min(x1, y1), max(x2 - width, y2 - height)
    if least < -ROUNDING_PIXELS or most > ROUNDING_PIXELS:
        largest = max(map(abs, corners))
        if largest > 2:
            raise DataError(
                f"a corner is {largest:g}, which no fraction of the image is; are these pixels, or per cent? Divide "
                f"x and width by {width}, y and height by {height} (pixels), or all by 100"
            )
        what = f"box from ({x1:.1f}, {y1:.1f}) to ({x2:.1f}, {y2:.1f})"
        if not (0 <= x1 + x2 <= 2 * width and 0 <= y1 + y2 <= 2 * height):
            raise DataError(
                f"{what} is outside the image of {width} x {height} pixels; values must be fractions of the image"
            )
        if not clip:
            raise DataError(
                f"{what} leaves the image of {width} x {height} pixels; values must be fractions of the image; to cut "
                "boxes at the border, use --clip"
            )
        notes.add("boxes are cut at the border of the image", what.removeprefix("box "))
    x1, x2 = min(max(x1, 0.0), width), min(max(x2, 0.0), width)
    y1, y2 = min(max(y1, 0.0), height), min(max(y2, 0.0), height)
    return round(x1, 3), round(y1, 3), round(x2 - x1, 3), round(y2 - y1, 3)
