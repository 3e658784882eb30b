"""The grid of the same images with every arm: the detections that are drawn, and those that count as right."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from study_on_disk import make_shapes, make_study

from retinanet.ablation.report.collect import StudyResult
from retinanet.ablation.report.data import ReportData, detections_path, gather
from retinanet.ablation.report.same_images import RIGHT_COLOR, best_f1_score, build_grid, counts_text, draw_same_images
from retinanet.scoring.matches import match_detections


def perfect(truth: dict) -> list[dict]:
    return [
        {"image_id": row["image_id"], "category_id": row["category_id"], "bbox": row["bbox"], "score": 0.5}
        for row in truth["annotations"]
    ]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    statuses = {("focal", 0): "failed", **{("none", seed): "diverged" for seed in (0, 1, 2)}}
    return make_study(tmp_path_factory.mktemp("grid"), {"focal": 0.8, "none": 0.5}, statuses)


@pytest.fixture(scope="module")
def data(study: StudyResult) -> ReportData:
    """The first finished seed of the first arm finds everything, names one object wrongly and has one false box.

    One object of the second image is a crowd.
    """
    truth = json.loads(study.test_annotations.read_text(encoding="utf-8"))
    second = truth["images"][1]["id"]
    next(row for row in truth["annotations"] if row["image_id"] == second)["iscrowd"] = 1
    annotations = study.test_annotations.with_name("crowd.json")
    annotations.write_text(json.dumps(truth), encoding="utf-8")
    study = study._replace(test_annotations=annotations)
    results = perfect(truth)
    first = results[0]
    others = [category["id"] for category in truth["categories"] if category["id"] != first["category_id"]]
    results[0] = {**first, "category_id": others[0]}
    results.append({**first, "bbox": [0, 0, 2, 2], "score": 0.1})
    detections_path(study.cells[1]).write_text(json.dumps(results), encoding="utf-8")
    return gather(study, resamples=10)


def test_right_wrong_and_missed_are_distinguished(data: ReportData) -> None:
    grid = build_grid(data)
    row = grid.rows[0]
    assert row.threshold == 0.5
    assert row.remark == "seed 1, score ≥ 0.50"
    for image, found in zip(grid.images, row.found, strict=True):
        wrong = 1 if image.id == data.ground_truth["annotations"][0]["image_id"] else 0
        assert found.objects == len(image.boxes_G4)
        assert counts_text(found) == f"{found.objects - wrong} right, {wrong} wrong, {wrong} missed"


def test_a_score_at_the_studys_threshold_is_left_out_as_in_its_numbers(data: ReportData) -> None:
    at = build_grid(gather(data.result, resamples=10, threshold=0.1))
    assert [counts_text(one) for one in at.rows[0].found] == [
        counts_text(one) for one in build_grid(data).rows[0].found
    ]


def test_an_arm_without_a_finished_seed_says_so(data: ReportData) -> None:
    row = build_grid(data).rows[1]
    assert row.found == ()
    assert "diverged" in row.remark


def test_picture_has_a_row_an_arm_and_a_column_an_image(data: ReportData, tmp_path: Path) -> None:
    grid = build_grid(data)
    assert len(grid.images) == 8
    path = draw_same_images(grid, tmp_path / "grid.png")
    with Image.open(path) as picture:
        pixels = np.asarray(picture)
    right = (pixels == RIGHT_COLOR).all(axis=-1)
    columns = np.flatnonzero(right[300:500].any(axis=0))
    assert columns.max() - columns.min() > 6 * 236
    assert not right[:250].any()


def test_best_f1_is_that_of_trying_every_score(tmp_path: Path) -> None:
    truth = json.loads((make_shapes(tmp_path) / "annotations" / "val.json").read_text(encoding="utf-8"))
    rng = np.random.default_rng(0)
    results = []
    for number, row in enumerate(perfect(truth)):
        hit = rng.random() < 0.6
        box = row["bbox"] if hit else [0.0, 0.0, 3.0, 3.0]
        results.append({**row, "bbox": box, "score": round(float(rng.beta(4, 2) if hit else rng.beta(2, 4)), 3)})
        results[-1]["score"] += number * 1e-6
    matches = match_detections(truth, results)

    def f1(score: float) -> float:
        kept = [row for row in results if row["score"] >= score]
        hits = sum(row["bbox"] != [0.0, 0.0, 3.0, 3.0] for row in kept)
        return 2 * hits / (len(kept) + len(truth["annotations"]))

    assert f1(best_f1_score(matches)) == max(f1(row["score"]) for row in results)


def test_without_any_hit_the_threshold_is_one(data: ReportData) -> None:
    assert best_f1_score(match_detections(data.ground_truth, None)) == 1.0
