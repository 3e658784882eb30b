"""What other programs write in COCO's place: read where it can mean one thing, noted once a kind, else refused."""

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retinanet.data.coco import CocoDataset, load_coco, shared_images_note
from retinanet.data.images import decode_image
from retinanet.data.pixel_depth import DepthRange
from retinanet.data.set_notes import no_box_cause
from retinanet.errors import DataError

BOXES = ([8, 6, 30, 24], [2, 3, 10, 12], [20, 10, 30, 30], [5, 5, 50, 40])
"""One object in each of four images of 64 x 48 pixels."""
Change = Callable[[dict[str, Any]], object]


def good() -> dict[str, Any]:
    return {
        "images": [{"id": n, "file_name": f"i{n}.jpg", "width": 64, "height": 48} for n in range(4)],
        "annotations": [
            {"id": n + 1, "image_id": n, "category_id": 1, "bbox": list(box), "area": box[2] * box[3], "iscrowd": 0}
            for n, box in enumerate(BOXES)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "images").mkdir()
    for n in range(4):
        Image.new("RGB", (64, 48), (40 * n, 9, 9)).save(tmp_path / "images" / f"i{n}.jpg")
    return tmp_path


def load(folder: Path, change: Change) -> CocoDataset:
    data = copy.deepcopy(good())
    change(data)
    (folder / "a.json").write_text(json.dumps(data), encoding="utf-8")
    return load_coco(folder / "a.json", folder / "images")


def each(section: str, **values: Any) -> Change:
    """Set keys of every row of a section; a function gets the row."""

    def change(data: dict[str, Any]) -> None:
        for row in data[section]:
            row.update({key: value(row) if callable(value) else value for key, value in values.items()})

    return change


def polygon(row: dict[str, Any]) -> list[list[float]]:
    x, y, w, h = row["bbox"]
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


def without_boxes(data: dict[str, Any]) -> None:
    for row in data["annotations"]:
        row["segmentation"] = polygon(row)
        del row["bbox"]


def in_objects(key: str) -> Change:
    return each("annotations", bbox=lambda row: dict(zip(("x", "y", "width", "height"), row["bbox"], strict=True)))


KINDS: dict[str, tuple[Change, str]] = {
    "ids with a decimal point": (
        lambda data: [each("annotations", image_id=lambda row: float(row["image_id"]), iscrowd=0.0)(data)],
        "with a decimal point are read as the integers",
    ),
    "ids in quotes": (
        lambda data: [
            each("images", id=lambda row: str(row["id"]))(data),
            each("annotations", image_id=lambda row: str(row["image_id"]))(data),
        ],
        "quotes",
    ),
    "truth values": (each("annotations", iscrowd=False), "true and false of 'iscrowd' are read as 1 and 0"),
    "sizes of nothing": (each("images", width=-1, height=0), "no width and height above 0"),
    "sizes that are missing": (
        lambda data: [row.pop(key) for row in data["images"] for key in ("width", "height")],
        "no width and height above 0",
    ),
    "polygons without boxes": (without_boxes, "4 annotations have no 'bbox': the box around 'segmentation' is used"),
    "named sides": (in_objects("bbox"), "are read as [x, y, width, height]"),
    "corners with their areas": (
        each(
            "annotations",
            bbox=lambda row: [*row["bbox"][:2], row["bbox"][0] + row["bbox"][2], row["bbox"][1] + row["bbox"][3]],
        ),
        "boxes are read as two corners [x1, y1, x2, y2] in pixels",
    ),
    "a folder that is not there": (
        each("images", file_name=lambda row: f"batch1/{row['file_name']}"),
        "in a folder that is not there",
    ),
    "the image folder again": (
        each("images", file_name=lambda row: f"images/{row['file_name']}"),
        "repeat the image folder's name",
    ),
    "corners by their mode": (
        each(
            "annotations",
            bbox_mode=0,
            bbox=lambda row: [*row["bbox"][:2], row["bbox"][0] + row["bbox"][2], row["bbox"][1] + row["bbox"][3]],
        ),
        "4 boxes are read by their 'bbox_mode' as two corners",
    ),
    "sides in the annotation itself": (
        lambda data: [
            row.update(zip(("x", "y", "width", "height"), row.pop("bbox"), strict=True)) for row in data["annotations"]
        ],
        "4 boxes are read as [x, y, width, height], with the sides x, y, width, height",
    ),
    "negative sides": (
        each(
            "annotations",
            bbox=lambda row: [row["bbox"][0] + row["bbox"][2], row["bbox"][1], -row["bbox"][2], row["bbox"][3]],
        ),
        "4 boxes have a negative width or height, and are read as drawn from another corner",
    ),
    "an image twice": (
        lambda data: data["images"].append(dict(data["images"][0])),
        "1 image is listed twice: each is read once; for example 'i0.jpg'",
    ),
    "one id for all annotations": (each("annotations", id=7), "annotation ids are used more than once"),
    "names with spaces": (each("categories", name=lambda row: f"{row['name']} "), "2 category names begin or end with"),
    "the address of LVIS": (
        lambda data: [row.update(coco_url=f"http://a.org/x/{row.pop('file_name')}") for row in data["images"]],
        "4 images have no 'file_name': 'coco_url' is used",
    ),
    "other keys": (
        lambda data: [
            row.update(imageId=row.pop("image_id"), category={1: "cat"}[row.pop("category_id")])
            for row in data["annotations"]
        ],
        "4 annotations have no 'category_id': 'category' is used",
    ),
    "four corners": (
        each("annotations", bbox=lambda row: polygon(row)[0]),
        "4 boxes have eight numbers, four corners: the upright box around them is used",
    ),
    "a list of one": (each("annotations", bbox=lambda row: [row["bbox"]]), "4 boxes are in a list of one"),
    "what a data frame lacks": (
        lambda data: [row.update(area=float("nan"), iscrowd=float("nan")) for row in data["annotations"]],
        "4 annotations have no 'area'",
    ),
    "another case": (each("images", file_name=lambda row: row["file_name"].replace(".jpg", ".JPG")), "file names"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_means_one_thing_is_read_and_noted(folder: Path, kind: str) -> None:
    change, note = KINDS[kind]
    dataset = load(folder, change)
    wanted = [[x, y, x + w, y + h] for x, y, w, h in BOXES]
    assert [record.boxes_G4.tolist() for record in dataset.images] == [[box] for box in wanted]
    assert [(record.width, record.height) for record in dataset.images] == [(64, 48)] * 4
    assert sum(note in text for text in dataset.notes) == 1, dataset.notes


def test_a_correct_file_has_no_notes(folder: Path) -> None:
    assert load(folder, lambda data: None).notes == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data["annotations"][0].pop("bbox"), "no 'bbox'"),
        (lambda data: data["annotations"][0].update(bbox=[1, 2, float("nan"), 4]), "finite"),
        (lambda data: data["annotations"][0].update(image_id=1.5), "integer"),
        (each("annotations", bbox=[1, 2, 3, 4, 0.5]), "5 numbers; .* of a box with an angle"),
        (lambda data: data["annotations"][0].update(image_id=9), "has 'image_id' 9.*; add it there, or remove"),
        (lambda data: data["images"].append({**data["images"][0], "file_name": "i1.jpg"}), "same id as images"),
        (lambda data: data.update(annotations=[{"image_id": 1, "caption": "a cat"}]), "annotations are captions"),
        (lambda data: data.update(annotations=[{"image_id": 1, "segments_info": []}]), "of panoptic segmentation"),
        (lambda data: data["images"][0].update(file_name="gone.jpg"), "no such file"),
        (lambda data: data["images"][0].update(file_name="../images/../../x.jpg"), "absolute path or '..'"),
    ],
)
def test_what_is_ambiguous_is_refused(folder: Path, change: Change, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(folder, change)


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda data: data["categories"][0].update(name="Dog"), "the classes 'Dog' and 'dog' differ in upper and"),
        (lambda data: data["categories"][1].update(name="__background__"), "needs no class for the background; harm"),
        (lambda data: data["categories"][0].update(name="background"), "'background' has boxes, and is learned as"),
        (each("annotations", area=0), "most 'area' are not those of their boxes, such as 0 where"),
        (lambda data: data["images"][0].update(deleted=True), "1 image has 'deleted' true, which is not read"),
        (lambda data: data["images"][0].update(not_exhaustive_category_ids=[2]), "are not annotated throughout"),
        (lambda data: data["annotations"][0].update(isCrowd=1), "1 annotation has 'isCrowd' 1, which is not read"),
        (lambda data: data["annotations"][0].update(bbox_mode=9), "1 annotation has a 'bbox_mode' that is not known"),
    ],
)
def test_what_may_matter_is_named(folder: Path, change: Change, note: str) -> None:
    (found,) = load(folder, change).notes
    assert note in found


def test_a_set_of_crowds_only_is_explained(folder: Path) -> None:
    dataset = load(folder, each("annotations", iscrowd=1))
    assert "all 4 boxes are marked iscrowd 1" in no_box_cause(dataset.ground_truth, dataset.dropped)


def test_most_crowd_is_noted(folder: Path) -> None:
    dataset = load(folder, lambda data: [row.update(iscrowd=1) for row in data["annotations"][:3]])
    assert any("3 of 4 annotations are marked iscrowd 1" in note for note in dataset.notes)


def test_evaluating_on_the_training_images_is_noted(folder: Path) -> None:
    dataset = load(folder, lambda data: None)
    assert "the images to evaluate on are the training images" in shared_images_note(dataset, dataset)


def test_evaluating_on_copies_of_training_images_is_noted(folder: Path) -> None:
    train = load(folder, lambda data: None)
    for n in range(4):
        shutil.copy(folder / f"images/i{n}.jpg", folder / f"images/copy{n}.jpg")
    val = load(folder, each("images", file_name=lambda row: f"copy{row['id']}.jpg"))
    val = replace(val, annotation_file=folder / "val.json")
    assert "4 of the 4 images to evaluate on are copies of training images, such as copy0.jpg of i0.jpg" in (
        shared_images_note(train, val)
    )


def deep(folder: Path, low: int, high: int) -> Path:
    """A 16-bit PNG whose pixels rise from `low` to `high`."""
    pixels = np.linspace(low, high, 64 * 48).reshape(48, 64).astype(np.uint16)
    Image.fromarray(pixels).save(folder / "deep.png")
    return folder / "deep.png"


def test_a_range_of_depths_keeps_the_levels_that_the_whole_would_lose(tmp_path: Path) -> None:
    path = deep(tmp_path, 600, 1400)
    whole, ranged = decode_image(path), decode_image(path, DepthRange(600, 1400))
    assert len(whole.unique()) < 6
    assert (int(ranged.min()), int(ranged.max())) == (0, 255)
    assert len(ranged.unique()) > 200
    by_hand = np.rint(np.clip((1000 - 600) / 800, 0, 1) * 255)
    middle = np.abs(np.linspace(600, 1400, 64 * 48) - 1000).argmin()
    assert abs(int(ranged[0].flatten()[middle]) - by_hand) <= 1
