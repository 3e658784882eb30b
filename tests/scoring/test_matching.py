"""The matching is pycocotools', detection by detection: its entries, read one by one, are the oracle."""

from typing import Any

import numpy as np
import pytest
from pycocotools.cocoeval import Params
from pycocotools_matches import assert_same_matches
from random_sets import random_set

from retinanet.errors import DataError
from retinanet.scoring.columns import DETECTIONS
from retinanet.scoring.matches import AREA_RANGES, FALSE_POSITIVE, IGNORED, TRUE_POSITIVE, match_detections

Rows = list[dict[str, Any]]


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_random_sets_match_as_pycocotools_does(part: int) -> None:
    hits = [assert_same_matches(*random_set(seed)) for seed in range(1000 + 50 * part, 1050 + 50 * part)]
    assert sum(hit > 0 for hit in hits) > 20, "the sets must have something to match"


def test_areas_and_the_limit_of_detections_are_pycocotools_own() -> None:
    parameters = Params(iouType="bbox")
    assert np.array_equal(parameters.areaRng, AREA_RANGES)
    assert parameters.maxDets[-1] == DETECTIONS


def of_one_image(boxes: list[list[float]], crowd: tuple[int, ...] = ()) -> dict[str, Any]:
    return {
        "images": [{"id": 8}],
        "categories": [{"id": 5, "name": "a"}],
        "annotations": [
            {"id": n + 1, "image_id": 8, "category_id": 5, "bbox": box, "area": 400.0, "iscrowd": int(n in crowd)}
            for n, box in enumerate(boxes)
        ],
    }


def detections(*boxes: list[float]) -> Rows:
    """Detections with descending scores."""
    return [{"image_id": 8, "category_id": 5, "bbox": box, "score": 0.9 - 0.1 * n} for n, box in enumerate(boxes)]


def test_of_equal_overlaps_the_last_object_is_taken_then_the_other() -> None:
    (found,) = match_detections(of_one_image([[0, 0, 10, 10]] * 2), detections(*[[0.0, 0, 10, 10]] * 3)).classes
    assert found.matched_TD[0].tolist() == [1, 0, -1]
    assert found.outcome_ATD[0, 0].tolist() == [TRUE_POSITIVE, TRUE_POSITIVE, FALSE_POSITIVE]


def test_an_object_goes_before_a_crowd_region_that_is_overlapped_more() -> None:
    truth = of_one_image([[0, 0, 100, 100], [0, 0, 10, 14]], crowd=(0,))
    (found,) = match_detections(truth, detections(*[[0, 0, 10, 10]] * 3)).classes
    assert found.matched_TD[0].tolist() == [1, 0, 0], "the crowd region takes any number"
    assert found.outcome_ATD[0, 0].tolist() == [TRUE_POSITIVE, IGNORED, IGNORED]
    assert found.matched_TD[9].tolist() == [0, 0, 0], "an IoU of 10 / 14 is not enough at 0.95"


def test_rows_lead_back_to_results_and_annotations() -> None:
    truth, results = random_set(12)
    for found in match_detections(truth, results).classes:
        for d, row in enumerate(found.detection_D):
            assert results[row]["score"] == found.score_D[d]
            assert results[row]["category_id"] == found.category_id
            for n in found.matched_TD[:, d]:
                assert n == -1 or truth["annotations"][n]["image_id"] == results[row]["image_id"]


@pytest.mark.parametrize("scale", [1e-200, 1e160])
def test_ious_that_are_not_numbers_are_an_error_that_names_the_boxes(scale: float) -> None:
    truth, results = of_one_image([[0, 0, scale, scale]]), detections([1, 1, 2, 2], [0, 0, scale, scale])
    with pytest.raises(DataError, match=r"1 error.*\n.*detection 1 .*annotation 0 .*image_id 8"):
        match_detections(truth, results)
