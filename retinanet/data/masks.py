"""The box around a COCO "segmentation": polygons or run-length encoded masks, compressed or not."""

import numpy as np
from numpy.typing import NDArray


def mask_box(segmentation: object) -> list[float] | None:
    """[x, y, width, height] around a mask, in pixels; None where it is empty or no valid mask."""
    if isinstance(segmentation, dict):
        return _rle_box(segmentation)
    points_P2 = _polygon_points(segmentation)
    if points_P2 is None or not np.isfinite(points_P2).all():
        return None
    low, high = points_P2.min(axis=0), points_P2.max(axis=0)
    return [*low.tolist(), *(high - low).tolist()]


def _polygon_points(segmentation: object) -> NDArray[np.float64] | None:
    """(P, 2) the corners of all polygons: [[x, y, x, y, ...], ...], one flat list, or lists of [x, y]."""
    if not isinstance(segmentation, list):
        return None
    flat: list[float] = []
    waiting = [segmentation]
    while waiting:
        values = waiting.pop()
        if all(type(value) is int or type(value) is float for value in values):
            if len(values) % 2:
                return None
            flat += values
        elif all(isinstance(value, list) for value in values):
            waiting += values
        else:
            return None
    if len(flat) < 6:
        return None
    return np.array(flat, dtype=np.float64).reshape(-1, 2)


def _rle_box(mask: dict[str, object]) -> list[float] | None:
    """Runs are counted down the columns, background first (pycocotools' maskApi.c)."""
    counts, size = mask.get("counts"), mask.get("size")
    if isinstance(counts, str):
        counts = _decompressed(counts)
    if not isinstance(counts, list) or not isinstance(size, list) or len(size) != 2:
        return None
    if not all(type(value) is int and value >= 0 for value in (*counts, *size)):
        return None
    height, width = size
    ends = np.cumsum(np.array(counts, dtype=np.int64))
    if not len(ends) or ends[-1] != height * width:
        return None
    first, last = ends[:-1:2], ends[1::2] - 1  # foreground runs, both ends included
    filled = last >= first
    if not filled.any():
        return None
    first, last = first[filled], last[filled]
    columns = first // height, last // height
    several = columns[0] < columns[1]  # a run over a column's end covers its last and the next one's first row
    top = np.where(several, 0, first % height).min()
    bottom = np.where(several, height - 1, last % height).max()
    left, right = columns[0].min(), columns[1].max()
    return [float(left), float(top), float(right - left + 1), float(bottom - top + 1)]


def _decompressed(text: str) -> list[int] | None:
    """Counts of a compressed mask: 5 bits a character, the lowest first, from the third on as differences."""
    counts: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            return None
        value |= (code & 31) << shift
        shift += 5
        if not code & 32:
            if code & 16:
                value -= 1 << shift
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    return counts if not shift else None
