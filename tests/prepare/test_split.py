"""Dividing a data set: every class on both sides, copies together, the same by the same seed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retinanet.prepare.split import hold_out, same_images, stratified


def classes_of(*rows: str) -> np.ndarray:
    """(U, K) from one string of class letters a unit."""
    return np.array([[letter in row for letter in "abcd"] for row in rows], dtype=bool)


@pytest.mark.parametrize("seed", range(8))
def test_a_fifth_is_held_out_of_each_class(seed: int) -> None:
    has_UK = classes_of(*["a"] * 50, *["b"] * 20, *["c"] * 5, *[""] * 25)
    held_U = stratified(has_UK, 0.2, seed)
    assert (held_U[:, None] & has_UK).sum(axis=0).tolist() == [10, 4, 1, 0]
    assert held_U.sum() == 20


@pytest.mark.parametrize("seed", range(8))
def test_rare_classes_are_on_both_sides_and_lone_ones_are_learned(seed: int) -> None:
    has_UK = classes_of("a", "a", "b", *["ac"] * 3, *["c"] * 10)
    held_U = stratified(has_UK, 0.2, seed)
    held, kept = (has_UK[side].any(axis=0).tolist() for side in (held_U, ~held_U))
    assert held[:3] == [True, False, True]
    assert kept[:3] == [True, True, True]


def test_the_seed_decides_and_nothing_else() -> None:
    has_UK = classes_of(*["ab"] * 30, *["c"] * 30)
    sides = [stratified(has_UK, 0.3, seed).tolist() for seed in (0, 0, 1)]
    assert sides[0] == sides[1] != sides[2]


@pytest.mark.parametrize("units", [0, 1, 2, 3])
def test_few_images_leave_one_to_learn_from(units: int) -> None:
    for has in ("", "a"):
        held_U = stratified(classes_of(*[has] * units).reshape(units, 4), 0.2, 0)
        assert held_U.sum() == (1 if units > 1 else 0)


def test_copies_of_a_file_and_of_an_augmented_original_stay_together(tmp_path: Path) -> None:
    for name, colour in (("a.png", 1), ("b.png", 1), ("c.png", 2)):
        Image.new("RGB", (8, 8), (colour, 0, 0)).save(tmp_path / name)
    augmented = [
        "car_jpg.rf.0123456789abcdef.jpg",
        "car_jpg.rf.fedcba9876543210.jpg",
        "cart_jpg.rf.0123456789abcdef.jpg",
    ]
    units = same_images(["a.png", "b.png", "c.png", *augmented], tmp_path)
    assert units == [0, 0, 1, 2, 2, 3]


def test_both_sides_are_whole_coco_files(tmp_path: Path) -> None:
    images = [{"id": i, "file_name": f"{i}.png", "width": 8, "height": 8} for i in range(10, 20)]
    rows = [{"id": n, "image_id": 10 + n % 10, "category_id": 1 + n % 2, "bbox": [0, 0, 2, 2]} for n in range(30)]
    content: dict[str, Any] = {
        "info": {"description": "x"},
        "images": images,
        "annotations": rows,
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
    }
    sides = hold_out(content, tmp_path, 0.4, 0)
    assert [len(side["images"]) for side in sides] == [6, 4]
    assert sorted(row["id"] for side in sides for row in side["annotations"]) == list(range(30))
    for side in sides:
        assert {row["image_id"] for row in side["annotations"]} <= {row["id"] for row in side["images"]}
        assert side["categories"] == content["categories"]
        assert {row["category_id"] for row in side["annotations"]} == {1, 2}
