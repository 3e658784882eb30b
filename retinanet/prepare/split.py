"""Dividing a data set into training and validation images: by a seed, whole images, each class on both sides.

Legend: U units (groups of images that must stay together), K classes.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_COPY = re.compile(r"(?P<name>.+)_(jpg|jpeg|png|bmp|webp|tif|tiff)\.rf\.[0-9a-zA-Z]{6,}\.\w+$", re.IGNORECASE)
"""Roboflow's name of an augmented copy: photo_jpg.rf.0123456789abcdef.jpg."""


def hold_out(content: dict[str, Any], folder: Path, part: float, seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Training and validation content of a COCO dict; about `part` of the images are held out.

    Copies of a file, and of an augmented original, are on one side. Both have every category.
    """
    images = content["images"]
    position = {row["id"]: index for index, row in enumerate(images)}
    category = {row["id"]: k for k, row in enumerate(content["categories"])}
    units = same_images([str(row["file_name"]) for row in images], folder)
    has_UK = np.zeros((max(units, default=-1) + 1, len(category)), dtype=np.bool_)
    for row in content["annotations"]:
        if row["image_id"] in position and row["category_id"] in category:
            has_UK[units[position[row["image_id"]]], category[row["category_id"]]] = True
    held_U = stratified(has_UK, part, seed)
    sides: tuple[list[Any], list[Any]] = ([], [])
    for row, unit in zip(images, units, strict=True):
        sides[int(held_U[unit])].append(row)
    return _only(content, sides[0]), _only(content, sides[1])


def _only(content: dict[str, Any], images: list[Any]) -> dict[str, Any]:
    ids = {row["id"] for row in images}
    rows = [row for row in content["annotations"] if row["image_id"] in ids]
    return {**content, "images": images, "annotations": rows}


def stratified(has_UK: NDArray[np.bool_], part: float, seed: int) -> NDArray[np.bool_]:
    """(U,) which units are held out: about `part` of all and of each class, at least one of each class that has two.

    has_UK: whether a unit has objects of a class. Iterative stratification (Sechidis et al. 2011, ECML PKDD): the
    rarest class first, each of its units to the side that still needs it most. At least one unit is trained on, and at
    least one is held out of two or more.
    """
    units = len(has_UK)
    order_U = np.random.default_rng(seed).permutation(units)
    count_K = has_UK.sum(axis=0)
    wanted_K = np.where(count_K >= 2, np.clip(np.round(part * count_K), 1, count_K - 1), 0)
    wanted = int(np.clip(round(part * units), min(1, units - 1), max(units - 1, 0)))
    held_U = np.zeros(units, dtype=np.bool_)
    free_U = np.ones(units, dtype=np.bool_)
    while True:
        left_K = (has_UK & free_U[:, None]).sum(axis=0)
        rare = int(np.argmin(np.where(left_K > 0, left_K, np.iinfo(np.int64).max))) if (left_K > 0).any() else -1
        if rare < 0:
            break
        for unit in order_U[(has_UK[:, rare] & free_U)[order_U]]:
            lacking = wanted_K[rare] - has_UK[held_U, rare].sum()
            owed = count_K[rare] - wanted_K[rare] - (has_UK[:, rare] & ~held_U & ~free_U).sum()
            held_U[unit] = lacking > 0 and lacking >= owed
            free_U[unit] = False
    empty = [unit for unit in order_U if free_U[unit]]
    for unit in empty[: max(0, wanted - int(held_U.sum()))]:
        held_U[unit] = True
    if not held_U.any() and units > 1:
        held_U[order_U[0]] = True
    return held_U


def same_images(names: Sequence[str], folder: Path) -> list[int]:
    """Number of the unit of each image: equal for copies of a file and for augmented copies of one original."""
    by_size: dict[int, list[int]] = defaultdict(list)
    keys: list[str] = []
    for index, name in enumerate(names):
        copy = _COPY.match(Path(name).name)
        keys.append(f"copy {copy['name']}" if copy else f"name {name}")
        file = folder / name
        if file.is_file():
            by_size[file.stat().st_size].append(index)
    for same_size in by_size.values():
        if len(same_size) > 1:
            first: dict[str, str] = {}
            for index in same_size:
                digest = hashlib.sha256((folder / names[index]).read_bytes()).hexdigest()
                keys[index] = first.setdefault(digest, keys[index])
    numbers: dict[str, int] = {}
    return [numbers.setdefault(key, len(numbers)) for key in keys]
