"""Resampled AP and AR, and the interval of a difference, against pycocotools on data sets with duplicated images.

The slow test checks real detectors, two of them on 200 resamples: some seconds on 6 images, some minutes with
COMPARE_IMAGES=300 python -m pytest -s -m slow tests/diagnostics/compare/test_compare_brute_force.py
"""

import os
from typing import Any

import numpy as np
import pytest
from real_pairs import needs_pairs, read_pair
from resampled_by_hand import Rows, metrics_by_hand

from retinanet.diagnostics.compare.differences import compare_detectors
from retinanet.scoring.bootstrap import draw_multiplicities
from retinanet.scoring.evaluation import METRIC_NAMES, coco_evaluation
from retinanet.scoring.intervals import percentile_interval
from retinanet.scoring.matches import match_detections
from retinanet.scoring.samples import class_metrics, mean_over_classes

IMAGES = int(os.environ.get("COMPARE_IMAGES", "6"))
QUANTILE_ERROR = 2.7
"""Standard error of the 2.5 % quantile of n normal samples, in units of deviation / sqrt(n)."""


def perturbed(results: Rows, jitter: float, seed: int) -> Rows:
    """Another detector made from one: boxes moved, scores changed, every twentieth detection lost."""
    rng = np.random.default_rng(seed)
    changed = []
    for row in results:
        shift, noise, lost = rng.normal(0, jitter, 4), rng.normal(0, 0.3), rng.random() < 0.05
        x, y, width, height = row["bbox"]
        box = [x + shift[0] * width, y + shift[1] * height, width * np.exp(shift[2]), height * np.exp(shift[3])]
        score = round(float(row["score"] ** np.exp(noise)), 4)
        if not lost:
            changed.append({**row, "bbox": [round(float(value), 2) for value in box], "score": score})
    return changed


def small_set(seed: int) -> tuple[dict[str, Any], Rows]:
    """Twelve images, three classes, objects of all sizes, crowd, more than ten detections of an image, equal scores."""
    rng = np.random.default_rng(seed)
    annotations: Rows = []
    results: Rows = []
    for image in rng.permutation(12).tolist():
        for _ in range(rng.integers(0, 9)):
            side = float(rng.choice([10, 40, 150]))
            box = [*rng.uniform(0, 200, 2).round(1).tolist(), side, side * 1.5]
            category = int(rng.choice([2, 3, 9], p=[0.7, 0.28, 0.02]))
            crowd = int(rng.random() < 0.1)
            annotations.append(
                {"id": len(annotations) + 1, "image_id": image + 5, "category_id": category, "bbox": box}
                | {"area": box[2] * box[3], "iscrowd": crowd}
            )
            for _ in range(rng.integers(0, 5)):
                near = [value + float(rng.normal(0, 0.08 * side)) for value in box[:2]]
                other = category if rng.random() < 0.8 else 2
                score = float(rng.integers(1, 8)) / 8
                results.append({"image_id": image + 5, "category_id": other, "bbox": [*near, *box[2:]], "score": score})
    categories = [{"id": number, "name": str(number)} for number in (2, 3, 9)]
    images = [{"id": number + 5} for number in range(12)]
    return {"images": images, "categories": categories, "annotations": annotations, "info": {}, "licenses": []}, results


@pytest.mark.parametrize("seed", range(3))
def test_resampled_metrics_equal_pycocotools(seed: int) -> None:
    truth, results = small_set(seed)
    multiplicity_RI = draw_multiplicities(12, 30, seed)
    given_RM = mean_over_classes(class_metrics(match_detections(truth, results), multiplicity_RI))
    by_hand_RM = metrics_by_hand(truth, results, multiplicity_RI)
    np.testing.assert_allclose(given_RM, by_hand_RM, atol=1e-9, rtol=0)
    # Some images have more than ten detections of a class, so AR10 is tested.
    assert (by_hand_RM[:, METRIC_NAMES.index("AR10")] <= by_hand_RM[:, METRIC_NAMES.index("AR100")]).all()


def test_each_class_equals_a_ground_truth_of_that_class_alone() -> None:
    truth, results = small_set(4)
    multiplicity_RI = draw_multiplicities(12, 10, 0)
    given_RKM = class_metrics(match_detections(truth, results), multiplicity_RI)
    for k, category in enumerate(truth["categories"]):
        alone = {
            **truth,
            "categories": [category],
            "annotations": [row for row in truth["annotations"] if row["category_id"] == category["id"]],
        }
        found = [row for row in results if row["category_id"] == category["id"]]
        np.testing.assert_allclose(given_RKM[:, k], metrics_by_hand(alone, found, multiplicity_RI), atol=1e-9, rtol=0)


@pytest.mark.slow
def test_two_hundred_resamples_of_a_small_set_give_the_same_interval() -> None:
    truth, first = small_set(7)
    second = perturbed(first, 0.05, 1)
    multiplicity_RI = draw_multiplicities(12, 200, 3)
    by_hand_RM = metrics_by_hand(truth, second, multiplicity_RI) - metrics_by_hand(truth, first, multiplicity_RI)
    matches = [match_detections(truth, found) for found in (first, second)]
    found = compare_detectors(*matches, ["2", "3", "9"], resamples=200, seed=3)
    np.testing.assert_allclose(found.resampled_RM, by_hand_RM, atol=1e-9, rtol=0)
    interval = percentile_interval(by_hand_RM[:, 0])
    assert (found.main.low, found.main.high) == pytest.approx(interval, abs=1e-9)
    whole = [coco_evaluation(truth, rows, "pycocotools").metrics for rows in (first, second)]
    for difference in (*found.overall, *found.sizes):
        ends = [values[difference.name] for values in whole]
        assert (difference.first, difference.second) == pytest.approx(tuple(ends), abs=1e-12)
        assert difference.difference == pytest.approx(ends[1] - ends[0], abs=1e-12)


@pytest.mark.slow
@needs_pairs
def test_real_detectors_against_two_hundred_resamples_by_hand() -> None:
    """YOLOv2 on the first images of VOC2007 test, and the same detector perturbed."""
    truth, results, _ = read_pair("voc2007_yolov2")
    kept = {row["id"] for row in sorted(truth["images"], key=lambda row: row["id"])[:IMAGES]}
    for section, key in (("images", "id"), ("annotations", "image_id")):
        truth[section] = [row for row in truth[section] if row[key] in kept]
    first = [row for row in results if row["image_id"] in kept]
    second = perturbed(first, 0.02, 5)
    names = [str(row["name"]) for row in sorted(truth["categories"], key=lambda row: row["id"])]
    matches = [match_detections(truth, found) for found in (first, second)]
    multiplicity_RI = draw_multiplicities(IMAGES, 200, 11)
    by_hand_RM = metrics_by_hand(truth, second, multiplicity_RI) - metrics_by_hand(truth, first, multiplicity_RI)
    same_draws = compare_detectors(*matches, names, resamples=200, seed=11)
    worst = float(np.nanmax(np.abs(same_draws.resampled_RM - by_hand_RM)))
    other_draws = compare_detectors(*matches, names, resamples=1000, seed=0)
    deviation = float(by_hand_RM[:, 0].std())
    by_hand = percentile_interval(by_hand_RM[:, 0])
    error = QUANTILE_ERROR * deviation * np.sqrt(1 / 200 + 1 / 1000)
    given = (other_draws.main.low, other_draws.main.high)
    print(
        f"largest difference on the same draws {worst:.2e}; AP interval by hand {by_hand}, here {given}, se {error:.2e}"
    )
    assert worst < 1e-9
    assert given == pytest.approx(by_hand, abs=4 * error)
