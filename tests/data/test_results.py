"""Reading detections: nothing that would lead to a silently wrong AP passes."""

import contextlib
import gzip
import io
import json
from pathlib import Path

import pytest
from places import SHARED

from retinanet.data.ground_truth import load_ground_truth
from retinanet.data.results import read_results
from retinanet.errors import DataError
from retinanet.files import read_json

GROUND_TRUTH = {"images": [{"id": 1}, {"id": 2}], "categories": [{"id": 5, "name": "cat"}], "annotations": []}


def detection(**changed: object) -> dict:
    return {"image_id": 1, "category_id": 5, "bbox": [1.5, 2, 3, 4], "score": 0.5, **changed}


def read(tmp_path: Path, content: object) -> list[dict]:
    path = tmp_path / "detections.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return read_results(path, GROUND_TRUTH)


def test_good_detections_come_back_with_their_four_keys(tmp_path: Path) -> None:
    rows = [detection(), detection(), detection(image_id=2, score=1, bbox=[-3, -4, 0, 0])]
    assert read(tmp_path, [{**row, "caption": "x", "segmentation": []} for row in rows]) == rows


@pytest.mark.parametrize("folder", ["", "some/where/", "C:\\photos\\"])
def test_file_names_must_be_those_of_the_ids(tmp_path: Path, folder: str) -> None:
    """As written by `retinanet predict`, whose image ids are positions."""
    truth = {**GROUND_TRUTH, "images": [{"id": 1, "file_name": "val/b.jpg"}, {"id": 2, "file_name": "val/a.jpg"}]}
    path = tmp_path / "detections.json"

    def read_named(*names: str) -> list[dict]:
        rows = [detection(image_id=i + 1, file_name=folder + name) for i, name in enumerate(names)]
        path.write_text(json.dumps([*rows, detection()]), encoding="utf-8")
        return read_results(path, truth)

    assert len(read_named("b.jpg", "a.jpg")) == 3
    with pytest.raises(
        DataError, match=r"1 of 3 .*image_id 2 .*c\.jpg.*'a\.jpg'.*positions.*retinanet eval CHECKPOINT"
    ):
        read_named("b.jpg", "c.jpg")
    rows = [detection(image_id=0, file_name=folder + "b.jpg")]
    path.write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(DataError, match=r"image_id 0 .*no image has that id.*positions"):
        read_results(path, truth)
    with pytest.raises(DataError, match=r"image_id 1 .*positions"):
        read_named("a.jpg", "b.jpg", "c.jpg")  # the third id is unknown, but the cause comes first


def test_file_names_are_ignored_where_one_side_has_none(tmp_path: Path) -> None:
    assert read(tmp_path, [detection(file_name="x.jpg")]) == [detection()]
    assert read(tmp_path, [detection(file_name=7)]) == [detection()]


def test_no_detections_are_fine(tmp_path: Path) -> None:
    assert read(tmp_path, []) == []


def test_gzip(tmp_path: Path) -> None:
    path = tmp_path / "detections.json.gz"
    path.write_bytes(gzip.compress(json.dumps([detection()]).encode()))
    assert read_results(path, GROUND_TRUTH) == [detection()]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"image_id": 3}, "'image_id' 3, which no entry of the ground truth's images has"),
        ({"category_id": 1}, "'category_id' 1, which no entry of the ground truth's categories has"),
        ({"image_id": "1"}, "'image_id' '1'; write 1, an integer without quotes"),
        ({"image_id": True}, "'image_id' True; an integer is needed"),
        ({"image_id": None}, "'image_id' None; an integer is needed"),
        ({"bbox": [1, 2, 3]}, "it has 3 numbers"),
        ({"bbox": [1, 2, 3, 4, 5]}, "it has 5 numbers"),
        ({"bbox": {"x": 1}}, "four finite numbers"),
        ({"score": "0.5"}, "'score' '0.5'; a finite number is needed"),
        ({"score": None}, "'score' None; a finite number is needed"),
        ({"score": True}, "'score' True; a finite number is needed"),
    ],
)
def test_an_invalid_value_is_named_with_its_remedy(tmp_path: Path, changed: dict, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, [detection(), detection(**changed)])
    assert "detections.json" in str(caught.value)
    assert "(1 error)" in str(caught.value)
    assert "detections[1]" in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("key", ["image_id", "category_id", "bbox", "score"])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    row = detection()
    del row[key]
    with pytest.raises(DataError, match=rf"detections\[0\] has no '{key}'"):
        read(tmp_path, [row])


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_does_not_know(tmp_path: Path, number: str) -> None:
    for place in ("0.5", "1.5"):
        with pytest.raises(DataError, match=rf"line 1, column \d+: {number} is not valid JSON"):
            read(tmp_path, json.dumps([detection()]).replace(place, number))


def test_overflowing_score(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'score' inf; a finite number"):
        read(tmp_path, json.dumps([detection()]).replace("0.5", "1e999"))


def test_all_errors_at_once_and_many_are_counted(tmp_path: Path) -> None:
    rows = [detection(image_id=9) for _ in range(100)] + [detection(score="a"), detection(bbox=[]), 7]
    with pytest.raises(DataError) as caught:
        read(tmp_path, rows)
    for expected in (
        "and 95 more of detections",
        "detections[100] has 'score'",
        "it has 0 numbers",
        "detections[102] is 7",
    ):
        assert expected in str(caught.value)


@pytest.mark.parametrize("content", [{"images": []}, "5", '"text"', "null"])
def test_content_that_is_not_a_list(tmp_path: Path, content: object) -> None:
    with pytest.raises(DataError, match="COCO detections are a list"):
        read(tmp_path, content)


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data folder next to the checkout")
@pytest.mark.parametrize("pair", ["voc2007_yolov2", "coco_val_subset_fastestdet"])
def test_real_pairs_pass(pair: str) -> None:
    folder = SHARED / "eval_pairs"
    files = json.loads((folder / "expected_stats.json").read_text(encoding="utf-8"))[pair]
    ground_truth = load_ground_truth(folder / files["gt"])
    assert read_results(folder / files["detections"], ground_truth) == read_json(folder / files["detections"])


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data folder next to the checkout")
def test_a_validated_pair_scores_exactly_as_pycocotools_alone() -> None:
    coco = pytest.importorskip("pycocotools.coco")
    cocoeval = pytest.importorskip("pycocotools.cocoeval")
    folder = SHARED / "eval_pairs"
    expected = json.loads((folder / "expected_stats.json").read_text(encoding="utf-8"))["cocoapi_val2014_100_fake"]
    ground_truth = load_ground_truth(folder / expected["gt"])
    results = read_results(folder / expected["detections"], ground_truth)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO()
        truth.dataset = ground_truth
        truth.createIndex()
        evaluation = cocoeval.COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert evaluation.stats.tolist() == expected["stats"]
