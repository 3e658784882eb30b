"""Widths and heights of a COCO file's "images" that are missing or swapped, from the image files themselves."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.data.annotation_arrays import AnnotationArrays
from retinanet.data.file_names import path_in
from retinanet.data.images import ImageHeader, read_header
from retinanet.errors import DataError

_SLACK = 1.0  # pixels that a box may leave its image by and still fit


class Sized(NamedTuple):
    """Rows of "images" with sizes from the files."""

    rows: list[Any]
    notes: list[str]


def with_missing_sizes(rows: list[Any], path_of: Callable[[int], Path | None], workers: int) -> Sized:
    """The rows, those without a positive width and height with the image's own after its EXIF rotation.

    path_of: the file of a row, None where it has none. Rows whose file cannot be read stay as they are.
    """
    lacking = [i for i, row in enumerate(rows) if isinstance(row, dict) and _lacks_size(row)]
    if not lacking:
        return Sized(rows, [])
    headers = _headers([path_of(i) for i in lacking], workers)
    filled = {i: header.size for i, header in zip(lacking, headers) if header is not None}
    if not filled:
        return Sized(rows, [])
    i, (height, width) = next(iter(filled.items()))
    note = (
        f"{len(filled):,} images have no width and height above 0: the size of the file is used; for example image "
        f"{rows[i].get('id')} is {width} x {height}"
    )
    return Sized(_resized(rows, filled), [note])


def with_turned_sizes(rows: list[dict[str, Any]], arrays: AnnotationArrays, folder: Path, workers: int) -> Sized:
    """The rows, those that have width and height swapped with the image's own, where that is certain.

    rows: valid, and each with a file. It is certain where all boxes of such images fit the file and either some do not
    fit the stated size, or every image that is not square is swapped and none is turned by EXIF. Files are opened only
    if a box leaves its image or the first image that is not square is swapped.
    """
    fits_I2 = _fitting(rows, arrays)
    oblong = [i for i, row in enumerate(rows) if row["width"] != row["height"]]
    if not oblong:
        return Sized(rows, [])
    suspicious = (fits_I2[:, 1] & ~fits_I2[:, 0]).any()
    first = None if suspicious else _header(path_in(folder, rows[oblong[0]]["file_name"]))
    if not suspicious and (first is None or not _is_swapped(rows[oblong[0]], first)):
        return Sized(rows, [])
    headers = dict(zip(oblong, _headers([path_in(folder, rows[i]["file_name"]) for i in oblong], workers)))
    swapped = {i: header for i, header in headers.items() if header is not None and _is_swapped(rows[i], header)}
    turned: dict[int, tuple[int, int]] = {}
    for by_exif in (False, True):
        group = [i for i, header in swapped.items() if (header.orientation >= 5) == by_exif]
        fits_G2 = fits_I2[group]
        every = not by_exif and len(group) == len(oblong)
        if len(group) and fits_G2[:, 1].all() and (every or not fits_G2[:, 0].all()):
            turned |= {i: swapped[i].size for i in group}
    if not turned:
        return Sized(rows, [])
    i, (height, width) = next(iter(turned.items()))
    note = (
        f"{len(turned):,} images have width and height swapped: the size of the file is used, which all boxes fit; for "
        f"example image {rows[i]['id']} is {width} x {height}"
    )
    return Sized(_resized(rows, turned), [note])


def _lacks_size(row: dict[str, Any]) -> bool:
    sides = row.get("width"), row.get("height")
    return any(side is None or (type(side) is int and side < 1) for side in sides)


def _headers(paths: Sequence[Path | None], workers: int) -> list[ImageHeader | None]:
    with ThreadPoolExecutor(max_workers=max(workers, 1)) as pool:
        return list(pool.map(_header, paths))


def _header(path: Path | None) -> ImageHeader | None:
    try:
        return None if path is None else read_header(path)
    except DataError:
        return None


def _is_swapped(row: dict[str, Any], header: ImageHeader) -> bool:
    return header.size == (row["width"], row["height"])


def _fitting(rows: list[dict[str, Any]], arrays: AnnotationArrays) -> NDArray[np.bool_]:
    """(I, 2) whether all boxes of an image fit its stated size, and whether they fit it with both sides swapped."""
    sizes_I2 = np.array([(row["width"], row["height"]) for row in rows], dtype=np.float64)
    image_N = arrays.image_index([row["id"] for row in rows])
    far_N2 = arrays.boxes_N4[:, :2] + np.maximum(arrays.boxes_N4[:, 2:], 0)
    fits_I2 = np.ones((len(rows), 2), dtype=bool)
    for column, limits_I2 in enumerate((sizes_I2, sizes_I2[:, ::-1])):
        fits_I2[image_N[(far_N2 > limits_I2[image_N] + _SLACK).any(axis=1)], column] = False
    return fits_I2


def _resized(rows: list[Any], sizes: dict[int, tuple[int, int]]) -> list[Any]:
    return [{**row, "height": sizes[i][0], "width": sizes[i][1]} if i in sizes else row for i, row in enumerate(rows)]
