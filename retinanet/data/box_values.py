"""Boxes that are not written as a list of four numbers. Imports no tensor library."""

import re

_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")

_SIZES = (
    ("x", "y", "width", "height"),
    ("x", "y", "w", "h"),
    ("left", "top", "width", "height"),
    ("xmin", "ymin", "width", "height"),
)
_CORNERS = (
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("x1", "y1", "x2", "y2"),
    ("left", "top", "right", "bottom"),
)


def parsed_box(value: object) -> tuple[list[float], str] | None:
    """[x, y, width, height] of a box in quotes or with named sides, and the kind of note on it; None for any other.

    Read: "[1, 2, 3, 4]", "1 2 3 4", ["1", "2", "3", "4"], and objects with the keys of _SIZES or _CORNERS.
    """
    if isinstance(value, dict):
        return _from_named(value)
    parts = re.split(r"[,;\s]+", value.strip().strip("[]()").strip()) if isinstance(value, str) else value
    if not isinstance(parts, list) or len(parts) != 4:
        return None
    numbers = [_number(part) for part in parts]
    if any(number is None for number in numbers):
        return None
    return [number for number in numbers if number is not None], "quoted boxes are read as [x, y, width, height]"


def _from_named(value: dict[str, object]) -> tuple[list[float], str] | None:
    named = {str(key).lower(): one for key, one in value.items()}
    for keys in (*_SIZES, *_CORNERS):
        if not all(key in named for key in keys):
            continue
        numbers = [number for key in keys if (number := _number(named[key])) is not None]
        if len(numbers) != 4:
            return None
        if keys in _CORNERS:
            x1, y1, x2, y2 = numbers
            return [x1, y1, x2 - x1, y2 - y1], f"boxes are read as corners, with the sides {', '.join(keys)}"
        return numbers, f"boxes are read as [x, y, width, height], with the sides {', '.join(keys)}"
    return None


def _number(value: object) -> float | None:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    return value if type(value) is int or type(value) is float else None
