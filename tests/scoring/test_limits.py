"""The limit on detections: what it hides, and AP at another one."""

from typing import Any

import pytest
from pydantic import ValidationError
from random_sets import random_set

from retinanet.config.eval_keys import EvalKeys
from retinanet.display.numbers import points
from retinanet.scoring.analysis.analyse import analyse
from retinanet.scoring.columns import DETECTIONS, detection_columns, truth_columns
from retinanet.scoring.evaluation import coco_evaluation
from retinanet.scoring.limits import describe_empty_boxes, describe_limit, measure_limit
from retinanet.scoring.matches import average_precisions, match_detections
from retinanet.scoring.reference import pycocotools_numbers, twelve_numbers


def crowded(*counts: dict[int, int], crowd: int = 0) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Images with the given number of objects of each category id, side by side, and perfect detections of them."""
    boxes = [
        (image, category, [12.0 * (k % 60), 12.0 * (k // 60), 10.0, 10.0])
        for image, per_class in enumerate(counts, 1)
        for category, count in per_class.items()
        for k in range(count)
    ]
    truth = {
        "images": [{"id": image, "width": 800, "height": 800} for image in range(1, len(counts) + 1)],
        "categories": [{"id": category, "name": f"c{category}"} for category in (1, 2)],
        "annotations": [
            {
                "id": number,
                "image_id": image,
                "category_id": category,
                "bbox": box,
                "area": 100.0,
                "iscrowd": int(number <= crowd),
            }
            for number, (image, category, box) in enumerate(boxes, 1)
        ],
    }
    results = [
        {"image_id": image, "category_id": category, "bbox": box, "score": 0.9 - 1e-4 * number}
        for number, (image, category, box) in enumerate(boxes)
    ]
    return truth, results


@pytest.mark.parametrize("engine", ["fast", pytest.param("pycocotools", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "counts", [({1: 250},), ({1: 250, 2: 3}, {1: 20}), ({1: 100, 2: 100},), ({1: 101}, {2: 40}, {1: 300}), ({2: 1},)]
)
def test_the_reachable_ap_is_that_of_perfect_detections(engine: Any, counts: tuple[dict[int, int], ...]) -> None:
    truth, results = crowded(*counts)
    limit = measure_limit(truth_columns(truth), DETECTIONS)
    scored = coco_evaluation(truth, results, engine)
    assert limit.reachable_ap == pytest.approx(scored.metrics["AP"], abs=1e-12)
    wide = coco_evaluation(truth, results, engine, max_detections=500)
    assert wide.metrics["AP"] == pytest.approx(1.0, abs=1e-12)
    assert {name: wide.metrics[name] for name in ("AR1", "AR10", "AR100")} == {
        name: scored.metrics[name] for name in ("AR1", "AR10", "AR100")
    }


def test_by_hand_with_a_crowd_region_and_two_classes() -> None:
    truth, _ = crowded({1: 251, 2: 4}, {1: 50}, crowd=1)
    limit = measure_limit(truth_columns(truth), 100)
    # Class 1: 100 + 50 of 250 + 50 objects, recall 0.5, so 51 of 101 recalls; class 2: all.
    assert limit.reachable_ap == pytest.approx((51 / 101 + 1) / 2)
    assert (limit.images, limit.most) == (1, 250)
    text = describe_limit(limit, points)
    assert text is not None
    assert "1 image has more than 100 objects of a class (up to 250)" in text
    assert "AP cannot exceed 75.2; eval.max_detections" in text
    assert describe_limit(measure_limit(truth_columns(truth), 250), points) is None


def test_without_objects_there_is_nothing_to_reach() -> None:
    truth, _ = crowded({})
    limit = measure_limit(truth_columns(truth), 100)
    assert (limit.images, limit.most, limit.reachable_ap) == (0, 0, -1.0)


@pytest.mark.parametrize("seed", range(4))
def test_both_engines_and_the_matching_agree_at_another_limit(seed: int) -> None:
    truth, results = random_set(seed)
    first = coco_evaluation(truth, results, "fast", max_detections=150)
    second = coco_evaluation(truth, results, "pycocotools", max_detections=150)
    assert first.metrics == second.metrics
    assert first.per_class == second.per_class
    assert average_precisions(match_detections(truth, results, 150))["AP"] == first.metrics["AP"]


@pytest.mark.parametrize("seed", range(3))
def test_the_twelve_are_pycocotools_own_where_it_can_tell(seed: int) -> None:
    numbers = pycocotools_numbers(*random_set(seed))
    assert twelve_numbers(numbers.precision_TQKAM, numbers.recall_TKAM) == numbers.twelve


def test_analyses_take_every_detection() -> None:
    truth, results = crowded({1: 250})
    analysis = analyse(coco_evaluation(truth, results))
    assert analysis.thresholds.overall.f1 == 1.0
    assert all(cost.errors == 0 for cost in analysis.errors.main)


@pytest.mark.parametrize("sides", [(0.0, 5.0), (-3.0, 5.0), (4.0, -1.0), (-2.0, -2.0)])
def test_boxes_without_area_are_counted_and_change_nothing_else(sides: tuple[float, float]) -> None:
    truth, results = crowded({1: 5})
    odd = [{"image_id": 1, "category_id": 1, "bbox": [3.0, 3.0, *sides], "score": 0.1}]
    with_odd = coco_evaluation(truth, results + odd, "fast")
    assert with_odd.metrics == coco_evaluation(truth, results + odd, "pycocotools").metrics
    text = describe_empty_boxes(with_odd.found)
    assert text is not None
    assert text.startswith("1 detection has a width or height of 0 or less")
    assert describe_empty_boxes(detection_columns(truth_columns(truth), results)) is None


def test_a_detector_must_keep_what_counts() -> None:
    with pytest.raises(ValidationError, match="keeps only 100 an image: set detections"):
        EvalKeys(max_detections=300)
    assert EvalKeys(max_detections=300, detections=300).max_detections == 300
    assert EvalKeys(detections=20).max_detections == DETECTIONS
