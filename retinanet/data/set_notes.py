"""Notes on a valid data set as a whole: what is possible one by one but unlikely, or has no effect, altogether.

Legend: N annotations, 2 width and height. Imports no tensor library.
"""

from collections import Counter
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retinanet.data.annotation_arrays import AnnotationArrays
from retinanet.data.notes import counted

_FEW = 3  # boxes of which most leave their images
_SOME, _MANY = 10, 20  # boxes whose common extent looks like percentages, or like that of smaller images
_UNITS = {
    100: ", or like percentages of the image's size (multiply by width / 100 and height / 100)",
    1000: ", or like thousandths of the image's size (multiply by width / 1000 and height / 1000)",
}  # fmt: skip
"""What boxes that leave their images may be in, by the largest number of such a unit."""
_SAME_IMAGES = 4  # images, likewise
_LEAST_SHARE, _MOST_SHARE = 0.02, 2.0  # usual parts that the area of a mask is of its box
_PASSED_OVER = ("ignore", "difficult", "deleted", "is_crowd", "isCrowd", "isgroupof", "IsGroupOf", "ignore_flag")
"""Keys of other programs that mark what training or scoring should pass over."""


def set_notes(data: dict[str, Any], arrays: AnnotationArrays, limits_N2: NDArray[np.float64]) -> list[str]:
    """Sentences on crowd regions, duplicates, boxes of other images' sizes, and keys that are not read.

    data: valid content. arrays: of its annotations. limits_N2: size of each one's image, NaN where unknown.
    """
    rows = data["annotations"]
    notes = [*_crowd_notes(arrays), *_duplicate_notes(rows, arrays), *_file_notes(data["images"])]
    notes += _area_notes(arrays)
    notes += [*_extent_notes(arrays, limits_N2), *_key_notes(rows), *_image_key_notes(data["images"])]
    return notes


def no_box_cause(ground_truth: dict[str, Any], dropped: dict[str, int]) -> str:
    """Why none of a data set's annotations is a box to learn from. dropped: how many, by kind."""
    rows = ground_truth["annotations"]
    if not rows:
        return "'annotations' is empty"
    crowd = sum(row.get("iscrowd", 0) for row in rows)
    if crowd == len(rows):
        return (
            f"all {len(rows):,} boxes are marked iscrowd 1, which training and scoring pass over; some programs mark "
            "masks so: write iscrowd 0 for objects"
        )
    kinds = ", ".join(f"{count:,} {kind.replace('_', ' ')}" for kind, count in dropped.items() if count)
    return f"of {len(rows):,} boxes {crowd:,} are marked iscrowd 1, and left out are {kinds}"


def _crowd_notes(arrays: AnnotationArrays) -> list[str]:
    crowds, total = int(arrays.crowd_N.sum()), len(arrays.crowd_N)
    if not crowds:
        return []
    remedy = "training and scoring pass over them. If they are single objects, write iscrowd 0"
    if crowds * 2 >= total:
        return [f"{crowds:,} of {total:,} annotations are marked iscrowd 1: {remedy}"]
    # Products may overflow and clash, which is improbable and only decides on a note.
    pairs_N = arrays.image_ids_N * np.int64(0x9E3779B97F4A7C1) + arrays.category_ids_N
    pairs, counts = np.unique(pairs_N[arrays.crowd_N], return_counts=True)
    objects = pairs_N[~arrays.crowd_N]
    place = np.searchsorted(pairs, objects).clip(max=len(pairs) - 1)
    counts[place[pairs[place] == objects]] = 0
    alone = int(counts.sum())
    if alone * 2 > crowds:
        return [f"{alone:,} of {crowds:,} annotations with iscrowd 1 are alone of their class in their image: {remedy}"]
    return []


def _duplicate_notes(rows: list[dict[str, Any]], arrays: AnnotationArrays) -> list[str]:
    """Boxes that are there twice: hashes are compared first, since almost all differ."""
    bits_N4 = (arrays.boxes_N4 + 0.0).view(np.uint64)
    columns = (arrays.image_ids_N.view(np.uint64), arrays.category_ids_N.view(np.uint64), *bits_N4.T)
    hashes_N = np.zeros(len(rows), dtype=np.uint64)
    for column_N in columns:
        hashes_N = (hashes_N ^ column_N ^ (column_N >> np.uint64(29))) * np.uint64(0x9E3779B97F4A7C15)
    ordered = np.sort(hashes_N)
    again = ordered[1:][ordered[1:] == ordered[:-1]]
    candidates = np.flatnonzero(np.isin(hashes_N, again)) if len(again) else np.zeros(0, dtype=np.int64)
    counts = Counter(
        (int(arrays.image_ids_N[i]), int(arrays.category_ids_N[i]), *arrays.boxes_N4[i].tolist())
        for i in candidates.tolist()
    )
    repeated = [key for key, count in counts.items() if count > 1]
    if not repeated:
        return []
    extra = sum(counts[key] - 1 for key in repeated)
    box = ", ".join(f"{value:g}" for value in repeated[0][2:])
    return [
        f"{extra:,} annotations repeat the image, class and box of another, which counts the object twice; for example "
        f"[{box}] of image {repeated[0][0]}"
    ]


def _file_notes(images: list[dict[str, Any]]) -> list[str]:
    names = Counter(row["file_name"] for row in images if isinstance(row.get("file_name"), str))
    twice = [name for name, count in names.items() if count > 1]
    if not twice:
        return []
    ids = [row["id"] for row in images if row.get("file_name") == twice[0]]
    return [
        f"{counted(len(twice), 'image files are listed under several ids')}, each with its own annotations only, so "
        "that objects of one count as background of the other; for example "
        f"{twice[0]} under {', '.join(map(str, ids[:3]))}"
    ]


def _area_notes(arrays: AnnotationArrays) -> list[str]:
    """Areas that belong to no box or mask of their annotations, such as 0, or in another unit."""
    areas_N = arrays.areas_N
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        box_N = arrays.boxes_N4[:, 2] * arrays.boxes_N4[:, 3]
        share_N = areas_N[(box_N > 1) & np.isfinite(areas_N)] / box_N[(box_N > 1) & np.isfinite(areas_N)]
    if not len(share_N) or _LEAST_SHARE <= np.median(share_N) <= _MOST_SHARE:
        return []
    first = int(np.flatnonzero((box_N > 1) & np.isfinite(areas_N))[0])
    return [
        f"most 'area' are not those of their boxes, such as {areas_N[first]:g} where width * height is "
        f"{box_N[first]:g}: scoring sorts objects into small, medium and large by it; leave 'area' out, or write pixels"
    ]


def _extent_notes(arrays: AnnotationArrays, limits_N2: NDArray[np.float64]) -> list[str]:
    """Boxes that all lie in one corner of their images, or mostly outside."""
    boxes_N4 = arrays.boxes_N4
    if len(boxes_N4) < _FEW or not np.isfinite(limits_N2).all():
        return []
    with np.errstate(over="ignore", invalid="ignore"):
        far_N2 = (boxes_N4[:, :2] + boxes_N4[:, 2:]) / limits_N2
    outside = int((far_N2 > 1.05).any(axis=1).sum())
    if outside * 2 > len(boxes_N4):
        highest = float((boxes_N4[:, :2] + boxes_N4[:, 2:]).max())
        unit = next((name for most, name in _UNITS.items() if 0.5 * most < highest <= 1.005 * most), "")
        return [
            f"{outside:,} of {len(boxes_N4):,} boxes leave their image on the right or below: they look like boxes of "
            f"larger images{unit}; use the images that were annotated, or scale the boxes"
        ]
    if len(boxes_N4) < _SOME or len(np.unique(arrays.image_ids_N)) < _SAME_IMAGES:
        return []
    reach = far_N2.max(axis=0)
    largest = (boxes_N4[:, :2] + boxes_N4[:, 2:]).max()
    if (reach < 0.6).all() and 50 < largest <= 100.5:
        return [
            f"no box reaches beyond {largest:.4g} pixels, in images of up to {limits_N2.max():g}: they look like "
            "percentages of the image's size, as Label Studio has them; multiply by width / 100 and height / 100"
        ]
    if (reach < 0.6).all() and len(boxes_N4) >= _MANY:
        return [
            f"all boxes lie in the left {reach[0]:.0%} and upper {reach[1]:.0%} of their images: they look like boxes "
            "of smaller images; use the images that were annotated, or scale the boxes"
        ]
    return []


def _key_notes(rows: list[dict[str, Any]]) -> list[str]:
    """Keys of other programs that a user may expect to have an effect."""
    notes: list[str] = []
    if set(chain.from_iterable(rows)).isdisjoint(("score", *_PASSED_OVER, "attributes", "rotation", "angle")):
        return notes
    scored = sum("score" in row for row in rows)
    if scored:
        notes.append(
            f"{scored:,} annotations have a 'score', as detections do: is this ground truth? All count as objects"
        )
    for key in _PASSED_OVER:
        marked = [row for row in rows if row.get(key) and not row.get("iscrowd")]
        if marked:
            notes.append(
                f"{counted(len(marked), 'annotations have')} {key!r} {marked[0][key]!r}, which is not read: they count "
                "as objects; write iscrowd 1 for what training and scoring should pass over, or leave them out"
            )
    turned = sum(_is_turned(row) for row in rows if "attributes" in row or "rotation" in row or "angle" in row)
    if turned:
        notes.append(f"{turned:,} annotations have a rotation: their upright 'bbox' is used as it is")
    return notes


def _image_key_notes(images: list[dict[str, Any]]) -> list[str]:
    """Keys of images that a user may expect to have an effect."""
    notes: list[str] = []
    deleted = [row for row in images if row.get("deleted") is True]
    if deleted:
        notes.append(
            f"{counted(len(deleted), 'images have')} 'deleted' true, which is not read: they are used, such as "
            f"{deleted[0].get('file_name')}; leave them out of 'images' if they should not be"
        )
    partly = sum(bool(row.get("not_exhaustive_category_ids")) for row in images)
    if partly:
        notes.append(
            f"{counted(partly, 'images have')} classes that are not annotated throughout (not_exhaustive_category_ids, "
            "of LVIS), which is not read: objects without a box count as background in training and scoring"
        )
    return notes


def _is_turned(row: dict[str, Any]) -> bool:
    attributes = row.get("attributes")
    places = (row, attributes) if isinstance(attributes, dict) else (row,)
    return any(
        isinstance(place.get(key), int | float) and place[key] for place in places for key in ("rotation", "angle")
    )
