"""A data set that is a Python object: the same training as from files, and errors that name the record."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import retinanet
from retinanet.api.python_data import write_data


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETINANET_CACHE", str(tmp_path / "cache"))


class Mine:
    """Records in a list."""

    def __init__(self, records: Sequence[Any], categories: Sequence[str] | Mapping[int, str] = ("cat", "dog")) -> None:
        self.records = records
        self.categories = categories

    def __len__(self) -> int:
        return len(self.records)

    def record(self, i: int) -> Mapping[str, Any]:
        one: Mapping[str, Any] = self.records[i]
        return one


def from_coco(root: Path, split: str, *, pixels: bool) -> Mine:
    """A split of a COCO data set as an object, with paths or pixels."""
    content = json.loads((root / "annotations" / f"{split}.json").read_text(encoding="utf-8"))
    records = []
    for row in content["images"]:
        own = [one for one in content["annotations"] if one["image_id"] == row["id"]]
        boxes = [[x, y, x + w, y + h] for x, y, w, h in (one["bbox"] for one in own)]
        path = root / split / row["file_name"]
        image = np.asarray(Image.open(path).convert("RGB")) if pixels else path
        records.append({"image": image, "boxes": boxes, "labels": [one["category_id"] for one in own]})
    return Mine(records, {one["id"]: one["name"] for one in content["categories"]})


@pytest.mark.slow
def test_an_object_trains_as_its_files_do(shapes: Path, tiny_yaml: Path, tmp_path: Path) -> None:
    words = {"schedule.iterations": 1}
    files = retinanet.train(tiny_yaml, output=tmp_path / "files", overrides=words)
    data = from_coco(shapes, "train", pixels=True), from_coco(shapes, "val", pixels=False)
    run = retinanet.train(tiny_yaml, data=data, output=tmp_path / "own", overrides=words)
    found, expected = ([row.get("loss") for row in one.rows()] for one in (run, files))
    assert found == expected
    # Sizes of objects differ: those of the files are areas of outlines, those of an object areas of boxes.
    assert [run.metrics[name] for name in ("AP", "AP50", "AR100")] == [
        files.metrics[n] for n in ("AP", "AP50", "AR100")
    ]
    assert retinanet.evaluate(run, data=data[1], output=tmp_path / "eval", report=False).ap == run.best_ap
    resumed = retinanet.train(tiny_yaml, data=data, output=tmp_path / "own", overrides=words, resume=True)
    assert resumed.best_ap == run.best_ap


def test_one_object_is_divided_and_written_once(tmp_path: Path) -> None:
    pixels = [np.full((8, 10, 3), value, dtype=np.uint8) for value in range(10)]
    images = [pixels[0], torch.from_numpy(pixels[1]).permute(2, 0, 1), Image.fromarray(pixels[2]), *pixels[3:]]
    boxes = torch.tensor([[1.0, 2.0, 5.0, 6.0], [0.0, 0.0, 2.0, 2.0]])
    records = [{"image": image, "boxes": boxes, "labels": np.array([0, 1]), "crowd": [False, True]} for image in images]
    records[9] = {"image": images[9], "boxes": [], "labels": []}
    written = write_data(Mine(records), None, 0.3)
    parts = [json.loads(path.read_text(encoding="utf-8")) for path in (written.train, written.val)]
    assert [len(part["images"]) for part in parts] == [7, 3]
    assert parts[0]["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    first = next(one for part in parts for one in part["annotations"] if one["image_id"] == 1)
    assert (first["bbox"], first["category_id"], first["iscrowd"]) == ([1.0, 2.0, 4.0, 4.0], 1, 0)
    row = next(one for part in parts for one in part["images"] if one["id"] == 2)
    assert (row["width"], row["height"]) == (10, 8)
    assert np.array_equal(np.asarray(Image.open(written.root / row["file_name"])), pixels[1])
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert write_data(Mine(records), None, 0.3) == written
    assert {path: path.stat().st_mtime_ns for path in times} == times


PIXELS = np.zeros((8, 10, 3), dtype=np.uint8)
GOOD: dict[str, Any] = {"image": PIXELS, "boxes": [[1, 1, 4, 4]], "labels": ["cat"]}
ERRORS = {
    "record(0): unknown key bboxes; did you mean boxes or": {"image": PIXELS, "bboxes": [], "labels": []},
    "record(0): has no boxes and no labels": {"image": PIXELS},
    "record(0): is a tuple; give a dict": (PIXELS, [], []),
    "record(0): has 1 boxes, but 2 labels": {**GOOD, "labels": ["cat", "cat"]},
    "and 2 of crowd": {**GOOD, "crowd": [0, 0]},
    "there is no class 'cta'; did you mean cat?": {**GOOD, "labels": ["cta"]},
    "there is no class 2; the labels are 0, 1": {**GOOD, "labels": [2]},
    "the label 1.5 is neither": {**GOOD, "labels": [1.5]},
    "boxes have the shape (1, 3), not (G, 4)": {**GOOD, "boxes": [[1, 1, 4]]},
    "a box is not finite: [1.0, 1.0, nan, 4.0]": {**GOOD, "boxes": [[1, 1, np.nan, 4]]},
    "boxes are not (G, 4) numbers": {**GOOD, "boxes": "none"},
    "the box [5.0, 5.0, 2.0, 2.0] ends before it begins": {**GOOD, "boxes": [[5, 5, 2, 2]]},
    "nowhere.jpg": {**GOOD, "image": "nowhere.jpg"},
    "record(0): the array has type float64, not uint8": {**GOOD, "image": np.zeros((4, 4, 3))},
}


@pytest.mark.parametrize("message", list(ERRORS))
def test_a_wrong_record_is_named(message: str) -> None:
    with pytest.raises(retinanet.DataError) as caught:
        write_data(Mine([ERRORS[message], GOOD]), None, 0.5)
    assert message in str(caught.value)
    assert "records of Mine that cannot be used (1 error)" in str(caught.value)


def test_categories_and_images_are_needed() -> None:
    with pytest.raises(retinanet.DataError, match="give a list of names"):
        write_data(Mine([GOOD], "cat"), None, 0.5)
    with pytest.raises(retinanet.DataError, match="no images"):
        write_data(Mine([]), None, 0.5)


def test_labels_and_ids_in_other_forms_are_read() -> None:
    for categories, label, wanted in (
        (["cat", "dog"], 1.0, 2),
        ({"cat": 4, "dog": 7}, 7, 7),
        ({4: "cat", 7: "dog"}, 4, 4),
    ):
        written = write_data(Mine([{**GOOD, "labels": [label]}] * 2, categories), None, 0.5)
        content = json.loads(written.train.read_text(encoding="utf-8"))
        assert {one["category_id"] for one in content["annotations"]} == {wanted}
    with pytest.raises(retinanet.DataError, match=r"the labels are 0, 1; if yours count from 1"):
        write_data(Mine([{**GOOD, "labels": [2]}]), None, 0.5)
    with pytest.raises(retinanet.DataError, match="give a list of names, or a mapping of ids to names"):
        write_data(Mine([GOOD], {"cat": "dog"}), None, 0.5)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([GOOD], r"data: a list has no categories and no record; wrap it in an object whose categories are the names"),
        ({"train": "a"}, r"data: a dict has no categories and no record; give a path, or an object with categories"),
        (("train", "val"), r"data: a str has no categories and no record; give one path, of a folder with both splits"),
        (torch.utils.data.TensorDataset(torch.zeros(2)), r"a TensorDataset has no categories and no record; wrap it"),
        (7, r"data: a int has no categories and no __len__ and no record; give a path"),
    ],
)
def test_what_is_no_data_set_is_refused_with_the_remedy(tmp_path: Path, data: Any, message: str) -> None:
    with pytest.raises(retinanet.DataError, match=message):
        retinanet.train("quickstart", data=data, output=tmp_path / "run")
