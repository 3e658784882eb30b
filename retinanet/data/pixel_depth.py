"""Pixels of more than 8 bits: the range that maps to 0..255, and what is lost without one."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.errors import DataError

Levels = NDArray[np.int64] | NDArray[np.float64]

_FEW = 128
"""Of 256 levels; fewer than half are worth a note."""


class DepthRange(NamedTuple):
    """The pixel values that become 0 and 255; values between are mapped linearly, others to the nearer end."""

    low: float
    high: float


def bytes_of_levels(levels: Levels, depth_range: DepthRange | None, path: Path | str) -> NDArray[np.uint8]:
    """Pixels of more than 8 bits as bytes, of the same shape.

    Without a range, integers are taken as 0..65535 and float pixels as 0..1 or 0..255. Raises DataError naming the
    image for values beyond that, or that are not finite.
    """
    remedy = "store it with 8 bits a channel, or set data.depth_range=[low, high]"
    if depth_range is not None:
        if not np.isfinite(levels).all():
            raise DataError(f"{path}: some pixels are not finite numbers; {remedy}")
        share = (levels - depth_range.low) / (depth_range.high - depth_range.low)
        return np.rint(np.clip(share, 0, 1) * 255).astype(np.uint8)
    if np.issubdtype(levels.dtype, np.integer):
        if levels.min() < 0 or levels.max() > 65_535:
            raise DataError(f"{path}: integer pixels outside 0..65535; {remedy}")
        return _scaled(levels).astype(np.uint8)
    if not np.isfinite(levels).all() or levels.min() < 0 or levels.max() > 255:
        raise DataError(f"{path}: float pixels must lie in 0..1 or 0..255; {remedy}")
    return np.rint(levels * 255 if levels.max() <= 1 else levels).astype(np.uint8)


def _scaled(levels: Levels | int) -> Levels:
    return np.asarray((levels * 255 + 32_767) // 65_535)


def describe_few_levels(name: str, low: int, high: int) -> str:
    """A note where 16-bit pixels from `low` to `high` leave few levels as bytes; empty where they do not.

    name: of the image, or of the images.
    """
    left = int(_scaled(high) - _scaled(low)) + 1
    if left >= _FEW or high <= 0 or low < 0:
        return ""
    what = f"{left} of 256 levels are" if left > 1 else "1 of 256 levels is"
    return (
        f"16-bit pixels of {name} reach {high:,} of 65,535: {what} left as 8 bits. "
        f"Scale the images, or set data.depth_range=[{low}, {max(high, low + 1)}]"
    )
