"""Splits whose classes have other ids, spellings or fewer entries are read by name, or refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from retinanet.data.categories import aligned
from retinanet.data.class_names import spellings
from retinanet.data.coco import CocoDataset, load_coco
from retinanet.errors import DataError
from retinanet.evaluation.evaluate import results_on
from retinanet.structures import Category

KNOWN = (Category(1, "dog"), Category(2, "cat"), Category(5, "hen"))


def split(folder: Path, ids: dict[int, str], used: list[int]) -> CocoDataset:
    """A data set of one image with an object of each category in `used`."""
    Image.new("RGB", (64, 48)).save(folder / "a.jpg")
    content: dict[str, Any] = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": k, "bbox": [n, 2, 9, 9], "area": 81, "iscrowd": 0}
            for n, k in enumerate(used, 1)
        ],
        "categories": [{"id": k, "name": name} for k, name in ids.items()],
    }
    (folder / "val.json").write_text(json.dumps(content), encoding="utf-8")
    return load_coco(folder / "val.json", folder)


def test_equal_categories_change_nothing(tmp_path: Path) -> None:
    dataset = split(tmp_path, {1: "dog", 2: "cat", 5: "hen"}, [2])
    assert aligned(dataset, KNOWN, "train") is dataset


@pytest.mark.parametrize(
    ("ids", "used", "classes", "own_ids", "note"),
    [
        ({0: "dog", 1: "cat", 2: "hen"}, [1, 0], [1, 0], (0, 1, 2), "3 of 3 classes have another id"),
        ({1: "cat", 2: "dog", 5: "hen"}, [1, 2], [1, 0], (2, 1, 5), "1 'cat' is 2 'cat' there"),
        ({1: "Dog", 2: "cat", 5: "hen"}, [1, 2], [0, 1], (1, 2, 5), "1 'Dog' is 1 'dog' there"),
        ({2: "cat"}, [2], [1], (1, 2, 3), "2 classes of train are not listed here: 1 'dog', 5 'hen'"),
        ({1: "dog", 2: "cat", 5: "hen", 7: "cow"}, [5], [2], (1, 2, 5), "classes without objects that train"),
    ],
)  # fmt: skip
def test_names_decide_which_class_is_which(
    tmp_path: Path, ids: dict[int, str], used: list[int], classes: list[int], own_ids: tuple[int, ...], note: str
) -> None:
    dataset = split(tmp_path, ids, used)
    read = aligned(dataset, KNOWN, "train")
    assert read.images[0].classes_G.tolist() == classes
    listed = [own for own in (c.id for c in read.categories) if own in ids]
    assert listed == [own for own in own_ids if own in ids]
    assert [c.name for c in read.categories] == ["dog", "cat", "hen"]
    assert any(note in one for one in read.notes)
    assert read.ground_truth is dataset.ground_truth
    # Detections come out with the ids of the file, and those of classes that it does not list are left out.
    results = [{"category_id": known.id, "score": 0.5} for known in KNOWN]
    assert [row["category_id"] for row in results_on(read, results, KNOWN)] == listed


@pytest.mark.parametrize(
    "ids",
    [{1: "dog", 2: "cat", 5: "hen", 7: "cow"}, {1: "hound", 2: "cat", 7: "hen"}, {1: "dog", 2: "DOG", 7: "hen"}],
)
def test_other_classes_with_objects_are_refused(tmp_path: Path, ids: dict[int, str]) -> None:
    dataset = split(tmp_path, ids, list(ids))
    with pytest.raises(DataError, match=r"val\.json: its categories differ from those of train"):
        aligned(dataset, KNOWN, "train")


def test_spellings_are_grouped() -> None:
    assert spellings(["dog", "Dog ", "cat", "dog"]) == [["dog", "Dog "]]
