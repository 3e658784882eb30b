"""Intervals of one detector's metrics against pycocotools on every resampled data set."""

import numpy as np
import pytest
from resampled_by_hand import metrics_by_hand
from scenes_to_score import BOX, random_scene, results_of, truth_of

from retinanet.scoring.bootstrap import draw_multiplicities
from retinanet.scoring.evaluation import METRIC_NAMES, coco_evaluation
from retinanet.scoring.metric_intervals import measure_intervals, pivotal_interval


@pytest.mark.slow
def test_intervals_of_all_metrics_and_of_each_class_by_hand() -> None:
    truth, results = random_scene(4, images=14)
    found = measure_intervals(coco_evaluation(truth, results), resamples=60, seed=3)
    multiplicity_RI = draw_multiplicities(14, 60, 3)

    def by_hand(kept: dict[str, object], rows: list[dict[str, object]]) -> np.ndarray:
        itself_M = np.array(list(coco_evaluation(kept, rows, "pycocotools").metrics.values()))
        low_M, high_M = np.nanquantile(metrics_by_hand(kept, rows, multiplicity_RI), [0.025, 0.975], axis=0)
        return np.clip([2 * itself_M - high_M, 2 * itself_M - low_M], 0, 1)

    expected_2M = by_hand(truth, results)
    for m, name in enumerate(METRIC_NAMES):
        assert tuple(found.metrics[name]) == pytest.approx(tuple(expected_2M[:, m]), abs=1e-9), name
    for k in range(3):
        of_class = [row for row in truth["annotations"] if row["category_id"] == k + 1]
        kept = {**truth, "annotations": of_class, "categories": [truth["categories"][k]]}
        expected = by_hand(kept, [row for row in results if row["category_id"] == k + 1])[:, 0]
        assert tuple(found.classes[k]) == pytest.approx(tuple(expected), abs=1e-9)
    assert not found.classes[3].known()  # it has no object


def test_the_deviations_of_the_resamples_are_subtracted() -> None:
    metric_R = np.array([0.5, *np.linspace(0.5, 0.6, 101)])
    assert tuple(pivotal_interval(metric_R)) == pytest.approx((0.4025, 0.4975))
    assert tuple(pivotal_interval(np.array([0.1, *np.linspace(0.1, 0.4, 101)]))) == pytest.approx((0.0, 0.0925))


def test_too_few_images_have_no_interval() -> None:
    few = truth_of([(i, 1, BOX) for i in range(1, 6)], images=20, classes=2)
    found = measure_intervals(coco_evaluation(few, results_of([(1, 1, BOX, 0.9)])), resamples=40)
    assert not any(interval.known() for interval in (*found.metrics.values(), *found.classes))
    enough = truth_of([(i, 1, BOX) for i in range(1, 7)], images=20, classes=2)
    found = measure_intervals(coco_evaluation(enough, results_of([(1, 1, BOX, 0.9)])), resamples=40)
    assert [interval.known() for interval in found.classes] == [True, False]
    assert found.metrics["AP"].known()
    none = measure_intervals(coco_evaluation(truth_of([], images=0), []), resamples=40)
    assert not none.metrics["AP"].known()
