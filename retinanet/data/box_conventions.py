"""Boxes that are valid one by one but were written in another convention than [x, y, width, height] in pixels.

Legend: N annotations, 4 coordinates as written (a, b, c, d), 2 width and height of each one's image.
What only one convention explains is read by it and noted; where several do, the file is refused. Imports no tensor
library.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.data.notes import counted

Floats = NDArray[np.float64]

_SLACK = 2.0  # pixels that a box may leave its image by
_ENOUGH = 5  # boxes that together make a convention certain
_FEW = 3  # boxes whose areas fit a convention
_SHARE = 0.1  # of the boxes that must leave their image for another convention to be considered

_FRACTIONS = "fractions of the image's size"
_PARTS = {100: "per cent of the image's size", 1000: "thousandths of the image's size"}
"""What other units of a box are, by the number that is the image's whole side."""

_NAMES = {
    "sizes": "[x, y, width, height]",
    "corners": "two corners [x1, y1, x2, y2]",
    "centres": "[centre x, centre y, width, height]",
}


class BoxReading(NamedTuple):
    """Boxes as [x, y, width, height] in pixels."""

    boxes_N4: Floats | None
    """None: as written."""
    notes: list[str]
    errors: list[str]


def read_boxes(boxes_N4: Floats, areas_N: Floats, limits_N2: Floats) -> BoxReading:
    """The boxes of a whole file by the convention that explains them.

    areas_N: NaN where missing. limits_N2: NaN where the image's size is unknown.
    """
    flipped_N = _are_flipped(boxes_N4)
    if flipped_N.any():
        return _flipped(boxes_N4, areas_N, limits_N2, flipped_N)
    as_written = BoxReading(boxes_N4=None, notes=[], errors=[])
    if not len(boxes_N4):
        return as_written
    if _are_fractions(boxes_N4, limits_N2):
        return _read_fractions(boxes_N4, areas_N, limits_N2)
    for parts, unit in _PARTS.items():
        if _areas_show_parts(boxes_N4, areas_N, limits_N2, parts):
            scaled_N4 = boxes_N4 * np.concatenate([limits_N2, limits_N2], axis=1) / parts
            why = "every 'area' is that of such a box in pixels"
            return _shown_as_given(_converted(scaled_N4, "sizes", why, unit), scaled_N4, boxes_N4)
    if _areas_show_corners(boxes_N4, areas_N):
        why = "every 'area' is that of a box between two corners"
        return _converted(boxes_N4, "corners", why, "pixels")
    with np.errstate(over="ignore", invalid="ignore"):
        over_N2 = boxes_N4[:, :2] + boxes_N4[:, 2:] > limits_N2 + _SLACK
    over_N = over_N2[:, 0] | over_N2[:, 1]
    over = int(over_N.sum())
    if over < 2 or over < _SHARE * len(boxes_N4) or (boxes_N4[:, :2] < -_SLACK).any():
        return as_written
    others = [name for name in ("corners", "centres") if _explains(name, boxes_N4, limits_N2, _SLACK)]
    if not others:
        return as_written._replace(errors=_turned_errors(boxes_N4, over_N, limits_N2))
    why = f"as [x, y, width, height], {over:,} of {len(boxes_N4):,} would leave their image"
    if len(others) == 1 and len(boxes_N4) >= _ENOUGH:
        return _converted(boxes_N4, others[0], why, "pixels")
    if over < 0.3 * len(boxes_N4):
        return as_written
    error = (
        f"the boxes look like {' or '.join(_NAMES[name] for name in others)}: {why}, as those none does, such as "
        f"{_shown(boxes_N4[over_N][0])}. Write every 'bbox' as [x, y, width, height]; if they are that, "
        "cut them at the border of their image"
    )
    return as_written._replace(errors=[error])


def _turned_errors(boxes_N4: Floats, over_N: NDArray[np.bool_], limits_N2: Floats) -> list[str]:
    """An error where many boxes leave their image, and none does with x and y exchanged."""
    turned_N4 = boxes_N4[:, [1, 0, 3, 2]]
    if over_N.sum() < max(_ENOUGH, 0.3 * len(boxes_N4)):
        return []
    if not any(_explains(name, turned_N4, limits_N2, _SLACK) for name in ("sizes", "corners")):
        return []
    return [
        f"{int(over_N.sum()):,} of {len(boxes_N4):,} boxes leave their image, such as {_shown(boxes_N4[over_N][0])}, "
        "and none would with x and y exchanged: they look like [y, x, height, width] or [y1, x1, y2, x2], or like "
        "boxes of images before their EXIF rotation. Write every 'bbox' as [x, y, width, height] of the image as "
        "viewers show it"
    ]


def _are_flipped(boxes_N4: Floats) -> NDArray[np.bool_]:
    """(N,) whether a box has a negative side, and begins where its other end is inside: drawn from another corner."""
    negative_N2 = boxes_N4[:, 2:] < -1
    ends_N2 = boxes_N4[:, :2] + np.minimum(boxes_N4[:, 2:], 0)
    flipped: NDArray[np.bool_] = (
        negative_N2.any(axis=1) & (boxes_N4[:, 2:] != 0).all(axis=1) & (ends_N2 >= 0).all(axis=1)
    )
    return flipped


def _flipped(boxes_N4: Floats, areas_N: Floats, limits_N2: Floats, flipped_N: NDArray[np.bool_]) -> BoxReading:
    """The reading of all boxes, those that are flipped with the same extent and sides above 0."""
    low_N2 = boxes_N4[:, :2] + np.minimum(boxes_N4[:, 2:], 0)
    upright_N4 = np.where(flipped_N[:, None], np.concatenate([low_N2, np.abs(boxes_N4[:, 2:])], axis=1), boxes_N4)
    first = int(np.flatnonzero(flipped_N)[0])
    kind = "boxes have a negative width or height, and are read as drawn from another corner"
    example = f"for example {_shown(boxes_N4[first])} becomes {_shown(upright_N4[first])}"
    reading = read_boxes(upright_N4, areas_N, limits_N2)
    return BoxReading(
        boxes_N4=upright_N4 if reading.boxes_N4 is None else reading.boxes_N4,
        notes=[f"{counted(int(flipped_N.sum()), kind)}; {example}", *reading.notes],
        errors=reading.errors,
    )


def read_areas(boxes_N4: Floats, reading: BoxReading, areas_N: Floats) -> Floats:
    """(N,) areas that fit the boxes as read: those that were the product of the last two numbers are computed anew."""
    if reading.boxes_N4 is None:
        return areas_N
    product_N = boxes_N4[:, 2] * boxes_N4[:, 3]
    wrong_N = np.abs(product_N - areas_N) <= np.maximum(1.0, 0.005 * np.abs(product_N))
    return np.where(wrong_N, reading.boxes_N4[:, 2] * reading.boxes_N4[:, 3], areas_N)


def _areas_show_corners(boxes_N4: Floats, areas_N: Floats) -> bool:
    """Whether areas are those between corners, and not those of width times height."""
    known_N = np.isfinite(areas_N)
    if not known_N.any() or not _ordered(boxes_N4):
        return False
    a, b, c, d = boxes_N4[known_N].T
    areas = areas_N[known_N]
    slack = np.maximum(1.0, 0.005 * areas)
    between = np.abs((c - a) * (d - b) - areas) <= slack
    product = np.abs(c * d - areas) <= slack
    return bool(between.mean() >= 0.95 and (between & ~product).mean() >= 0.5)


def _areas_show_parts(boxes_N4: Floats, areas_N: Floats, limits_N2: Floats, parts: int) -> bool:
    """Whether areas are those of boxes in parts of their image's sides, and not those of their two last numbers."""
    with np.errstate(over="ignore", invalid="ignore"):
        product_N = boxes_N4[:, 2] * boxes_N4[:, 3]
        pixels_N = product_N * limits_N2.prod(axis=1) / parts**2
        fits_N = np.abs(pixels_N - areas_N) <= np.maximum(1.0, 0.005 * pixels_N)
        as_is_N = np.abs(product_N - areas_N) <= np.maximum(1.0, 0.005 * product_N)
    low, high = boxes_N4[:, :2], boxes_N4[:, :2] + boxes_N4[:, 2:]
    inside = bool((low >= -0.01 * parts).all() and (high <= 1.01 * parts).all())
    return inside and len(boxes_N4) >= _FEW and bool(fits_N.mean() >= 0.95 and as_is_N.mean() <= 0.5)


def _ordered(boxes_N4: Floats) -> bool:
    """Whether every box can be one between two corners."""
    return bool((boxes_N4[:, 2:] >= boxes_N4[:, :2]).all() and (boxes_N4[:, 2:] > 0).any())


def _explains(convention: str, boxes_N4: Floats, limits_N2: Floats, slack: float) -> bool:
    """Whether all boxes are within their images by a convention; images of unknown size count as left."""
    if convention == "corners" and not _ordered(boxes_N4):
        return False
    low_N2, size_N2 = _low_and_size(convention, boxes_N4)
    return bool((low_N2 >= -slack).all() and (low_N2 + size_N2 <= limits_N2 + slack).all())


def _low_and_size(convention: str, boxes_N4: Floats) -> tuple[Floats, Floats]:
    first_N2, second_N2 = boxes_N4[:, :2], boxes_N4[:, 2:]
    if convention == "corners":
        return first_N2, second_N2 - first_N2
    return (first_N2 - second_N2 / 2, second_N2) if convention == "centres" else (first_N2, second_N2)


def _converted(boxes_N4: Floats, convention: str, why: str, unit: str) -> BoxReading:
    low_N2, size_N2 = _low_and_size(convention, boxes_N4)
    read_N4 = np.concatenate([low_N2, size_N2], axis=1)
    note = (
        f"{len(boxes_N4):,} boxes are read as {_NAMES[convention]} in {unit}, since {why}; for example "
        f"{_shown(boxes_N4[0])} becomes [x, y, width, height] {_shown(read_N4[0])}"
    )
    return BoxReading(boxes_N4=read_N4, notes=[note], errors=[])


def _are_fractions(boxes_N4: Floats, limits_N2: Floats) -> bool:
    """Whether no coordinate exceeds 1 although images are larger, so that as pixels the boxes were next to nothing."""
    small = boxes_N4.min() >= -0.5 and 0 < boxes_N4.max() <= 1.0 + 1e-6
    whole = (boxes_N4 == np.rint(boxes_N4)).all()
    known_N = np.isfinite(limits_N2).all(axis=1)
    large = bool((limits_N2[known_N] > 4).all())
    return bool(small and not whole and large)


def _read_fractions(boxes_N4: Floats, areas_N: Floats, limits_N2: Floats) -> BoxReading:
    ones = np.ones_like(boxes_N4[:, :2])
    fitting = [name for name in _NAMES if _explains(name, boxes_N4, ones, 1e-3)]
    if len(fitting) > 1 and (by_area := [name for name in fitting if _has_area(name, boxes_N4, areas_N, limits_N2)]):
        fitting = by_area
    known = np.isfinite(limits_N2).all()
    if len(fitting) == 1 and known and len(boxes_N4) >= 2:
        scaled_N4 = boxes_N4 * np.concatenate([limits_N2, limits_N2], axis=1)
        why = "no number is above 1, and no other order of them stays within the images"
        return _shown_as_given(_converted(scaled_N4, fitting[0], why, _FRACTIONS), scaled_N4, boxes_N4)
    what = " or ".join(_NAMES[name] for name in fitting) or "boxes that leave their images"
    error = (
        f"all boxes are fractions of the image's size, not pixels ({_shown(boxes_N4[0])} is the first), and can be "
        f"{what}. Write every 'bbox' as [x, y, width, height] in pixels: multiply by the image's width and height"
    )
    return BoxReading(boxes_N4=None, notes=[], errors=[error])


def _has_area(convention: str, boxes_N4: Floats, areas_N: Floats, limits_N2: Floats) -> bool:
    """Whether areas, in pixels or in parts of the image, are those of fractions by a convention, nearly throughout."""
    part_N = _low_and_size(convention, boxes_N4)[1].prod(axis=1)
    with np.errstate(over="ignore", invalid="ignore"):
        in_pixels_N = np.abs(part_N * limits_N2.prod(axis=1) - areas_N) <= np.maximum(1.0, 0.01 * areas_N)
        return bool(max(in_pixels_N.mean(), (np.abs(part_N - areas_N) <= 0.01 * part_N).mean()) >= 0.95)


def _shown_as_given(reading: BoxReading, scaled_N4: Floats, given_N4: Floats) -> BoxReading:
    """The reading of boxes that were scaled before, with the first one as it is written in the note."""
    return reading._replace(notes=[reading.notes[0].replace(_shown(scaled_N4[0]), _shown(given_N4[0]), 1)])


def _shown(box_4: Floats) -> str:
    return "[" + ", ".join(f"{value:.4g}" for value in box_4.tolist()) + "]"
