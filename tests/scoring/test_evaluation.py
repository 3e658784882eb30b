"""The twelve numbers on hand-made cases, AP by class, whatever computes them."""

from typing import Any

import numpy as np
import pytest
from scenes_to_score import random_scene

from retinanet.scoring.evaluation import METRIC_NAMES, Engine, coco_evaluation


@pytest.fixture(params=["pycocotools", "fast"])
def engine(request: pytest.FixtureRequest) -> Engine:
    chosen: Engine = request.param
    return chosen


def ground_truth(crowd: bool = False) -> dict[str, Any]:
    """Three images: two objects of class 3, one of class 7 (none of class 9), and an image without objects."""
    boxes = [(1, 3, [10, 10, 50, 60]), (1, 3, [100, 20, 30, 30]), (2, 7, [5, 5, 120, 110])]
    annotations = [
        {"id": i, "image_id": image, "category_id": c, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for i, (image, c, box) in enumerate(boxes, start=1)
    ]
    if crowd:
        region = {"bbox": [150, 0, 50, 200], "area": 10_000, "iscrowd": 1}
        annotations.append({"id": 9, "image_id": 1, "category_id": 3, **region})
    return {
        "images": [{"id": i, "width": 200, "height": 200} for i in (1, 2, 3)],
        "categories": [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}, {"id": 9, "name": "emu"}],
        "annotations": annotations,
    }


def perfect(truth: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"image_id": a["image_id"], "category_id": a["category_id"], "bbox": a["bbox"], "score": 0.9}
        for a in truth["annotations"]
        if not a["iscrowd"]
    ]


def test_perfect_detections_score_one(engine: Engine) -> None:
    truth = ground_truth(crowd=True)
    evaluation = coco_evaluation(truth, perfect(truth), engine)
    # AP and AR100 of everything and of the sizes that occur; AR1 is bound by image 1's two objects of one class.
    for name in ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100"):
        assert evaluation.metrics[name] == pytest.approx(1.0, abs=1e-12), name
    assert evaluation.metrics["AR1"] == pytest.approx(0.75)
    assert [(row.name, round(row.ap, 9), row.objects) for row in evaluation.per_class] == [
        ("cat", 1.0, 2),
        ("dog", 1.0, 1),
        ("emu", -1.0, 0),
    ]


def test_a_detection_in_a_crowd_region_is_neither_hit_nor_miss(engine: Engine) -> None:
    truth = ground_truth(crowd=True)
    inside = {"image_id": 1, "category_id": 3, "bbox": [155, 10, 20, 20], "score": 0.99}
    assert coco_evaluation(truth, [*perfect(truth), inside], engine).metrics["AP"] == pytest.approx(1.0)
    without = ground_truth()
    assert coco_evaluation(without, [*perfect(without), inside], engine).metrics["AP"] < 0.9


def test_a_wrong_class_and_a_loose_box_cost_what_they_should(engine: Engine) -> None:
    truth = ground_truth()
    wrong = perfect(truth)
    wrong[2]["category_id"] = 9
    assert coco_evaluation(truth, wrong, engine).metrics["AP50"] == pytest.approx(0.5)
    loose = perfect(truth)
    loose[2]["bbox"] = [5, 5, 120, 77]  # IoU 0.7
    metrics = coco_evaluation(truth, loose, engine).metrics
    assert metrics["AP50"] == pytest.approx(1.0)
    assert metrics["AP75"] == pytest.approx(0.5)
    assert metrics["AP"] == pytest.approx((1 + 0.4) / 2, abs=0.06)


@pytest.mark.parametrize("objects", [True, False])
def test_no_detections_and_no_objects_are_numbers_too(objects: bool, engine: Engine) -> None:
    truth = ground_truth()
    if not objects:
        truth["annotations"] = []
    evaluation = coco_evaluation(truth, [], engine)
    assert evaluation.metrics["AP"] == (0.0 if objects else -1.0)
    assert [row.ap for row in evaluation.per_class] == ([0.0, 0.0, -1.0] if objects else [-1.0] * 3)


def test_class_rows_have_coco_s_ap_and_counts(engine: Engine) -> None:
    truth, results = random_scene(2)
    evaluation = coco_evaluation(truth, results, engine)
    rows = evaluation.per_class
    assert [(row.id, row.name) for row in rows] == [(row["id"], row["name"]) for row in truth["categories"]]
    for row in rows:
        plain = [a for a in truth["annotations"] if a["category_id"] == row.id and not a["iscrowd"]]
        assert (row.objects, row.images) == (len(plain), len({a["image_id"] for a in plain}))
        assert row.detections == sum(result["category_id"] == row.id for result in results)
    for name in METRIC_NAMES[:6]:
        known = [row.as_dict()[name] for row in rows if row.as_dict()[name] > -1]
        assert np.mean(known) == pytest.approx(evaluation.metrics[name])


def test_of_each_class_at_most_100_detections_of_an_image_are_counted(engine: Engine) -> None:
    truth = ground_truth()
    rows = perfect(truth)
    evaluation = coco_evaluation(truth, [rows[0]] * 103 + [rows[1], rows[2]], engine)
    assert [row.detections for row in evaluation.per_class] == [100, 1, 0]
