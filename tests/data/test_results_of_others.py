"""Detections as other programs write them: what means one thing is read and noted, what is wrong as a whole noticed."""

import contextlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retinanet.data.results import read_noted_results
from retinanet.errors import DataError
from retinanet.scoring.evaluation import coco_evaluation

Row = dict[str, Any]
NAMES = {3: "cat", 7: "street lamp"}
TRUTH = {
    "images": [{"id": i, "file_name": f"val/p{i}.jpg", "width": 100, "height": 80} for i in (11, 12)],
    "categories": [{"id": number, "name": name} for number, name in NAMES.items()],
    "annotations": [],
}
ROWS: list[Row] = [
    {"image_id": 11 + i % 2, "category_id": (3, 7)[i % 2], "bbox": [50.0, 30.0, 40.0 + i, 41.0], "score": (9 - i) / 10}
    for i in range(6)
]


def read(tmp_path: Path, content: object) -> tuple[list[Row], list[str]]:
    path = tmp_path / "r.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return read_noted_results(path, TRUTH)


def refusal(tmp_path: Path, content: object) -> str:
    with pytest.raises(DataError) as caught:
        read(tmp_path, content)
    return str(caught.value)


def without(row: Row, key: str) -> Row:
    return {name: value for name, value in row.items() if name != key}


def fractions(box: list[float]) -> list[float]:
    return [box[0] / 100, box[1] / 80, box[2] / 100, box[3] / 80]


def corners(box: list[float]) -> list[float]:
    return [*box[:2], box[0] + box[2], box[1] + box[3]]


FORMS: dict[str, tuple[Callable[[Row], Row], str]] = {
    "quoted score": (lambda row: {**row, "score": str(row["score"])}, "6 scores in quotes"),
    "percent": (lambda row: {**row, "score": f"{10 * row['score']:.0f}0 %"}, "'90 %' of detections[0] is 0.9"),
    "confidence": (
        lambda row: {**without(row, "score"), "confidence": row["score"]},
        "'confidence' is read as 'score'",
    ),
    "float id": (lambda row: {**row, "image_id": float(row["image_id"])}, "with a decimal point"),
    "quoted id": (lambda row: {**row, "image_id": str(row["image_id"])}, "values in quotes"),
    "file name": (lambda row: {**row, "image_id": f"val/p{row['image_id']}.jpg"}, "file name of an image"),
    "last part": (lambda row: {**row, "image_id": f"p{row['image_id']}.jpg"}, "file name of an image"),
    "stem": (lambda row: {**row, "image_id": f"p{row['image_id']}"}, "'p11' is 11"),
    "class name": (lambda row: {**row, "category_id": NAMES[row["category_id"]]}, "'cat' is 3"),
    "named sides": (
        lambda row: {**row, "bbox": dict(zip("xywh", row["bbox"], strict=True))},
        "with the sides x, y, w, h",
    ),
    "quoted box": (lambda row: {**row, "bbox": str(row["bbox"])}, "quoted boxes are read"),
    "corners": (lambda row: {**row, "bbox": corners(row["bbox"])}, "6 boxes are read as two corners"),
    "fractions": (lambda row: {**row, "bbox": fractions(corners(row["bbox"]))}, "fractions of the image's size"),
}


@pytest.mark.parametrize("form", FORMS)
def test_what_means_one_thing_is_read_and_noted(tmp_path: Path, form: str) -> None:
    change, note = FORMS[form]
    rows, notes = read(tmp_path, [change(row) for row in ROWS])
    for row, wanted in zip(rows, ROWS, strict=True):
        assert {**row, "bbox": 0} == {**wanted, "bbox": 0}
        assert row["bbox"] == pytest.approx(wanted["bbox"])
    assert note in " ".join(notes)


@pytest.mark.parametrize("key", ["annotations", "predictions", "detections", "results"])
def test_the_list_within_an_object_is_found(tmp_path: Path, key: str) -> None:
    rows, notes = read(tmp_path, {"info": {}, "images": TRUTH["images"], key: ROWS})
    assert rows == ROWS
    assert f"list {key!r}" in notes[0]


def test_good_detections_have_no_notes(tmp_path: Path) -> None:
    assert read(tmp_path, ROWS) == (ROWS, [])


def test_what_is_ambiguous_stays_refused(tmp_path: Path) -> None:
    assert "an integer is needed" in refusal(tmp_path, [{**ROWS[0], "image_id": "p13"}])
    assert "has 'score' '0.9'" in refusal(tmp_path, [{**ROWS[0], "score": "0.9"}, ROWS[1]])
    assert "fractions" in refusal(tmp_path, [{**row, "bbox": fractions(row["bbox"])} for row in ROWS])
    assert "5 numbers" in refusal(tmp_path, [{**without(ROWS[0], "score"), "bbox": [1, 2, 3, 4, 0.5]}])


def test_repetitions_are_counted(tmp_path: Path) -> None:
    rows, notes = read(tmp_path, ROWS + ROWS[:2])
    assert len(rows) == 8
    assert "2 of 8 detections are exact repetitions" in notes[0]


def test_positions_for_ids_and_another_split_are_named(tmp_path: Path) -> None:
    positions = refusal(tmp_path, [{**row, "category_id": i % 2} for i, row in enumerate(ROWS)])
    assert "write the id of position 0 as 3" in positions
    assert "another split" in refusal(tmp_path, [{**row, "image_id": row["image_id"] + 500} for row in ROWS])


def test_boxes_of_negative_size_are_scored_as_pycocotools_does(tmp_path: Path) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    objects = [
        {**without(row, "score"), "id": i, "area": row["bbox"][2] * row["bbox"][3], "iscrowd": 0}
        for i, row in enumerate(ROWS, start=1)
    ]
    truth = {**TRUTH, "annotations": objects}
    turned = [{**ROWS[0], "bbox": [90, 30, -40, 41]}, {**ROWS[1], "bbox": [91, 71, -41, -41]}, *ROWS[2:]]
    rows, _ = read(tmp_path, turned)
    assert rows[:2] == turned[:2]
    with contextlib.redirect_stdout(io.StringIO()):
        reference = coco.COCO()
        reference.dataset = truth
        reference.createIndex()
        evaluation = cocoeval.COCOeval(reference, reference.loadRes([dict(row) for row in turned]), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    found = list(coco_evaluation(truth, rows, "fast").metrics.values())[:12]
    assert 0 < found[0] < 1
    assert found == pytest.approx(evaluation.stats.tolist())
