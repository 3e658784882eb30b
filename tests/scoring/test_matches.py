"""The matches give pycocotools' numbers to the last bit, and what reports need."""

import copy
from typing import Any

import numpy as np
import pytest
from pycocotools.cocoeval import Params
from real_pairs import needs_pairs, read_pair

from retinanet.errors import ConfigError
from retinanet.scoring.evaluation import coco_evaluation
from retinanet.scoring.matches import (
    AP_NAMES,
    AREAS,
    FALSE_POSITIVE,
    IGNORED,
    IOUS,
    RECALLS,
    TRUE_POSITIVE,
    average_precisions,
    hit_and_miss_scores,
    match_detections,
    precision_at_recalls,
    precision_recall_curve,
)


def ground_truth() -> dict[str, Any]:
    """Ids with gaps. Class 3: a small and a medium object and a crowd; class 7: a large object; class 9: none."""
    boxes = [
        (12, 3, [10, 10, 20, 20], 0),
        (12, 3, [100, 20, 50, 50], 0),
        (12, 3, [150, 0, 50, 200], 1),
        (40, 7, [5, 5, 120, 110], 0),
    ]
    return {
        "images": [{"id": i, "width": 200, "height": 200} for i in (40, 12, 55)],
        "categories": [{"id": 9, "name": "emu"}, {"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}],
        "annotations": [
            {"id": n * 10, "image_id": i, "category_id": c, "bbox": b, "area": b[2] * b[3], "iscrowd": crowd}
            for n, (i, c, b, crowd) in enumerate(boxes, start=1)
        ],
    }


def result(image: int, category: int, box: list[float], score: float) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


RESULTS = [
    result(12, 3, [160, 10, 20, 20], 0.95),  # within the crowd
    result(12, 3, [100, 20, 50, 50], 0.8),  # the medium object
    result(55, 3, [0, 0, 20, 20], 0.9),  # a miss, small
    result(12, 3, [10, 10, 20, 20], 0.5),  # the small object
    result(40, 7, [5, 5, 120, 77], 0.7),  # IoU 0.7 with the large object
]


def test_outcomes_of_a_hand_made_case() -> None:
    matches = match_detections(ground_truth(), RESULTS)
    assert matches.image_ids_I.tolist() == [12, 40, 55]
    cat, dog, emu = matches.classes
    assert [found.category_id for found in matches.classes] == [3, 7, 9]
    assert cat.score_D.tolist() == [0.95, 0.9, 0.8, 0.5]
    assert cat.image_D.tolist() == [0, 2, 0, 0]
    hit, miss, none = TRUE_POSITIVE, FALSE_POSITIVE, IGNORED
    expected = {
        "all": [none, miss, hit, hit],
        "small": [none, miss, none, hit],
        "medium": [none, none, hit, none],
        "large": [none] * 4,
    }
    for a, area in enumerate(AREAS):
        assert cat.outcome_ATD[a].tolist() == [expected[area]] * 10, area
    assert cat.object_image_N.tolist() == [0]
    assert cat.objects_AN.tolist() == [[2], [1], [1], [0]]
    assert dog.outcome_ATD[0, :, 0].tolist() == [hit] * 5 + [miss] * 5
    assert dog.objects_AN.tolist() == [[1], [0], [0], [1]]
    assert emu.score_D.size == emu.object_image_N.size == 0


def test_thresholds_are_pycocotools_own() -> None:
    parameters = Params(iouType="bbox")
    assert np.array_equal(parameters.iouThrs, IOUS)
    assert np.array_equal(parameters.recThrs, RECALLS)
    assert tuple(parameters.areaRngLbl) == AREAS


@pytest.mark.parametrize("results", [RESULTS, RESULTS[:1], [], None], ids=["all", "one", "empty", "diverged"])
def test_average_precisions_are_coco_evaluation_s_to_the_last_bit(results: list[dict[str, Any]] | None) -> None:
    truth = ground_truth()
    before = copy.deepcopy((truth, results))
    expected = coco_evaluation(truth, results or []).metrics
    assert average_precisions(match_detections(truth, results)) == {name: expected[name] for name in AP_NAMES}
    assert (truth, results) == before


def test_a_diverged_run_has_ap_0_wherever_there_are_objects() -> None:
    truth = ground_truth()
    truth["annotations"] = truth["annotations"][:2]
    values = average_precisions(match_detections(truth, None))
    assert values == {"AP": 0, "AP50": 0, "AP75": 0, "APs": 0, "APm": 0, "APl": -1}
    truth["annotations"] = []
    matches = match_detections(truth, RESULTS)
    assert set(average_precisions(matches).values()) == {-1.0}
    assert precision_recall_curve(matches).tolist() == [-1.0] * 101


@pytest.mark.slow
@needs_pairs
@pytest.mark.parametrize("name", ["cocoapi_val2014_100_fake", "coco_val_subset_fastestdet", "voc2007_yolov2"])
def test_real_pairs_give_pycocotools_numbers_to_the_last_bit(name: str) -> None:
    truth, results, stats = read_pair(name)
    matches = match_detections(truth, results)
    assert list(average_precisions(matches).values()) == stats[:6]
    assert precision_recall_curve(matches, 0.75).mean() == pytest.approx(stats[2], rel=1e-12)


def test_precision_recall_curve_is_the_mean_over_classes_with_objects() -> None:
    matches = match_detections(ground_truth(), RESULTS)
    # Class 3 ranks a miss first: precision 1/2 then 2/3, so 2/3 at every recall. Class 7 is found at IoU .5 only.
    assert precision_recall_curve(matches) == pytest.approx(np.full(101, (2 / 3 + 1) / 2))
    assert precision_recall_curve(matches, 0.75) == pytest.approx(np.full(101, (2 / 3 + 0) / 2))
    assert (precision_at_recalls(matches)[:, :, 2] == -1).all()


def test_scores_of_hits_and_misses_leave_the_ignored_out() -> None:
    matches = match_detections(ground_truth(), RESULTS)
    samples = hit_and_miss_scores(matches)
    assert sorted(samples.true_positives) == [0.5, 0.7, 0.8]
    assert samples.false_positives.tolist() == [0.9]
    strict = hit_and_miss_scores(matches, 0.9)
    assert sorted(strict.false_positives) == [0.7, 0.9]


def test_another_iou_threshold_is_refused() -> None:
    matches = match_detections(ground_truth(), [])
    with pytest.raises(ConfigError, match=r"0\.6.*use one of 0\.50, 0\.55"):
        precision_recall_curve(matches, 0.62)
