"""Precision, recall and F1 by threshold against counting at every threshold."""

import math

import numpy as np
import pytest
from scenes_to_score import analysis_of, random_scene, results_of, scored_of, truth_of

from retinanet.scoring.analysis.scored import Scored
from retinanet.scoring.analysis.thresholds import (
    OperatingPoint,
    best_operating_point,
    curve_over_scores,
    find_thresholds,
)
from retinanet.scoring.eval_file import eval_content
from retinanet.scoring.matches import FALSE_POSITIVE, TRUE_POSITIVE


def counted(scored: Scored, score: float, k: int | None) -> tuple[int, int, int]:
    """Hits, false detections and objects of a class (None: of all) by counting one detection after another."""
    hits = false = 0
    for value, of_class, outcome in zip(scored.found.score_D, scored.found.class_D, scored.found.outcome_D):
        if value >= score and k in (None, of_class):
            hits += outcome == TRUE_POSITIVE
            false += outcome == FALSE_POSITIVE
    objects = scored.objects.objects_K()
    return hits, false, int(objects.sum() if k is None else objects[k])


@pytest.mark.parametrize("seed", range(3))
def test_best_thresholds_against_every_score_there_is(seed: int) -> None:
    scored = scored_of(*random_scene(seed))
    found = find_thresholds(scored)
    for k, point in [(None, found.overall), *enumerate(found.by_class)]:
        best = (0.0, None)
        for score in sorted(set(scored.found.score_D.tolist()), reverse=True):
            hits, false, objects = counted(scored, score, k)
            f1 = 2 * hits / (hits + false + objects) if objects else 0.0
            best = max(best, (f1, score), key=lambda pair: pair[0])
        if best[1] is None:
            assert point == OperatingPoint(score=None, precision=None, recall=None, f1=None)
            continue
        hits, false, objects = counted(scored, best[1], k)
        assert point == (best[1], hits / (hits + false), hits / objects, pytest.approx(best[0], rel=1e-14))
    assert found.by_class[3].score is None  # a class without objects


def test_curves_against_counting() -> None:
    scored = scored_of(*random_scene(7))
    curve = find_thresholds(scored).curve
    assert curve.score_G[[0, -1]].tolist() == [0, 1]
    for g in range(0, len(curve.score_G), 9):
        hits, false, objects = counted(scored, curve.score_G[g], None)
        assert curve.recall_G[g] == pytest.approx(hits / objects)
        assert curve.f1_G[g] == pytest.approx(2 * hits / (hits + false + objects))
        assert math.isnan(curve.precision_G[g]) if hits + false == 0 else curve.precision_G[g] == hits / (hits + false)


def test_curves_of_low_scores_end_at_the_largest() -> None:
    scored = scored_of(truth_of([(1, 1, [0, 0, 9, 9])]), results_of([(1, 1, [0, 0, 9, 9], 0.02)]))
    assert find_thresholds(scored).curve.score_G[[0, -1]].tolist() == [0, 0.02]


def test_of_equal_f1_the_highest_score_is_taken_and_equal_scores_stay_together() -> None:
    hit = np.array([True, False, True, False, False])
    # F1: 2/3, then 2/4 and 4/5 for the two at 0.8, taken together 4/5, then less.
    assert best_operating_point(np.array([0.9, 0.8, 0.8, 0.3, 0.2]), hit, 2) == (0.8, 2 / 3, 1.0, 0.8)
    same = np.array([True, False, False, True, False])
    assert best_operating_point(np.array([0.9, 0.8, 0.7, 0.6, 0.5]), same, 2)[0] == pytest.approx(
        0.9
    )  # 2/3 at 0.9 and 0.6


@pytest.mark.parametrize(
    ("objects", "detections"), [([], [(1, 1, [0, 0, 9, 9], 0.5)]), ([(1, 1, [0, 0, 9, 9])], []), ([], [])]
)
def test_nothing_to_choose_by(
    objects: list[tuple[int, int, list[float]]], detections: list[tuple[int, int, list[float], float]]
) -> None:
    truth, results = truth_of(objects), results_of(detections)
    assert find_thresholds(scored_of(truth, results)).overall == OperatingPoint(
        score=None, precision=None, recall=None, f1=None
    )
    as_data = eval_content(analysis_of(truth, results), step=None, precision=None)["thresholds"]
    assert as_data["iou"] == 0.5
    assert as_data["by_class"][0] == {
        "id": 1, "name": "class 1", "score": None, "precision": None, "recall": None, "f1": None,
    }  # fmt: skip


def test_curve_without_objects_has_precision_only() -> None:
    curve = curve_over_scores(np.array([0.6]), np.array([False]), 0, np.array([0.5, 0.7]))
    assert curve.precision_G[0] == 0
    assert np.isnan(curve.f1_G).all()
