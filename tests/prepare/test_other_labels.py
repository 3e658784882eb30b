"""Malformed files of VIA and labelme: each error names the file and the cause, in words about the file."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from retinanet.errors import DataError
from retinanet.prepare.conversion import LabeledSet
from retinanet.prepare.recognise import read_any

RECTANGLE = {"name": "rect", "x": 8, "y": 6, "width": 30, "height": 24}


def read(folder: Path, content: object) -> LabeledSet:
    """The data set of a folder with an image of 64 x 48 pixels and a JSON file."""
    Image.new("RGB", (64, 48)).save(folder / "a.png")
    (folder / "a.json").write_text(json.dumps(content), encoding="utf-8")
    found = read_any(folder)
    assert isinstance(found, LabeledSet)
    return found


def via(regions: object, filename: object = "a.png") -> dict[str, Any]:
    return {"a.png9": {"filename": filename, "size": 9, "regions": regions}}


def region(kind: object = "dog", **shape: object) -> dict[str, Any]:
    return {"shape_attributes": RECTANGLE | shape, "region_attributes": {"class": kind}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (via(5), "its regions are not a list of objects"),
        (via(["x"]), "its regions are not a list of objects"),
        (via([{"shape_attributes": "x", "region_attributes": {"class": "dog"}}]), "its regions are not a list"),
        (via([region()], None), "an image has the filename None"),
        (via([region(["dog"])]), "its class is .'dog'.; a name is needed"),
        (via([region({"dog": True, "cat": True})]), "several classes, dog, cat"),
        (via([region(name="spiral")]), "shapes of the kind 'spiral' are not known"),
        (via([region(x=None)]), "a value is not a number"),
        (via([{"shape_attributes": {}, "region_attributes": {"class": "dog"}}]), "it has no 'name'"),
        (via([region(name="polygon", all_points_x=3, all_points_y=4)]), "its points are not lists"),
        (via([{"shape_attributes": RECTANGLE, "region_attributes": {}}]), "add the attribute class in VIA"),
    ],
)
def test_malformed_files_of_via_are_explained(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(DataError, match=f"a.json.*{message}") as caught:
        read(tmp_path, content)
    assert "object is not" not in str(caught.value)


@pytest.mark.parametrize("kind", ["dog", {"dog": True, "cat": False}])
def test_a_class_is_a_text_or_the_box_that_is_ticked(tmp_path: Path, kind: object) -> None:
    found = read(tmp_path, via([region(kind), region(name="point")]))
    assert found.classes == ["dog"]
    assert found.notes == ["1 point has no box, and is left out; for example a.png"]


def labelme(**shape: object) -> dict[str, Any]:
    whole = {"label": "dog", "points": [[8, 6], [38, 30]], "shape_type": "rectangle"} | shape
    return {"imagePath": "a.png", "shapes": [{key: value for key, value in whole.items() if value != "absent"}]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"imagePath": "a.png", "shapes": None}, "its shapes are not a list of objects"),
        ({"imagePath": "a.png", "shapes": ["x"]}, "its shapes are not a list of objects"),
        (labelme() | {"imageWidth": 128, "imageHeight": 96}, "labelled at 128 x 96 .*, the file has 64 x 48"),
        (labelme(label=None), "shape 1 cannot be read: its class is None"),
        (labelme(label=" "), "shape 1 cannot be read: its label is empty"),
        (labelme(label="absent"), "it has no 'label'"),
        (labelme(points="absent"), "it has no 'points'"),
        (labelme(points="8,6"), "not a list of pairs"),
        (labelme(points=[None, [1, 2]]), "not a list of pairs"),
        (labelme(points=[[8, 6, 0], [38, 30, 0]]), "not a list of pairs"),
        (labelme(points=[["8,5", 6], [38, 30]]), "a value is not a number"),
    ],
)
def test_malformed_files_of_labelme_are_explained(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(tmp_path, content)


def test_numbers_in_quotes_are_read(tmp_path: Path) -> None:
    found = read(tmp_path, labelme(points=[["8", "6"], ["38", "30.0"]]))
    assert found.splits["all"].images[0].boxes[0].bbox == (8, 6, 30, 24)


def test_labelme_files_in_labels_are_read_and_difficult_objects_noted(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    Image.new("RGB", (64, 48)).save(tmp_path / "images/a.png")
    shape = {"label": "dog", "points": [[8, 6], [38, 30]], "shape_type": "rectangle", "difficult": True}
    content = {"shapes": [shape], "imagePath": "a.png", "imageData": None, "imageWidth": 64, "imageHeight": 48}
    (tmp_path / "labels/a.json").write_text(json.dumps(content), encoding="utf-8")
    found = read_any(tmp_path)
    assert isinstance(found, LabeledSet)
    assert found.splits["all"].images[0].boxes[0].bbox == (8, 6, 30, 24)
    assert "1 object is marked as difficult, which is not read" in "; ".join(found.notes)
