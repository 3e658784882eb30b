"""TIDE's types of error and the AP50 lost to each."""

import numpy as np
import pytest
from real_pairs import needs_pairs, read_pair
from scenes_to_score import BOX, FAR, HALF_OFF, NEAR, random_scene, results_of, scored_of, truth_of

from retinanet.scoring.analysis.error_types import (
    BACKGROUND,
    BOTH,
    CLASSIFICATION,
    DUPLICATE,
    KINDS,
    LOCALISATION,
    NO_ERROR,
    classify_errors,
    report_errors,
)
from retinanet.scoring.analysis.scored import score_detections
from retinanet.scoring.columns import DETECTIONS, detection_columns, truth_columns
from retinanet.scoring.evaluation import coco_evaluation


def costs(objects: list, detections: list, classes: int = 2) -> dict[str, tuple[int, float]]:
    scored = scored_of(truth_of(objects, images=3, classes=classes), results_of(detections))
    report = report_errors(scored, classify_errors(scored))
    return {cost.kind: (cost.errors, cost.ap50) for cost in (*report.main, *report.special)}


@pytest.mark.parametrize(
    ("detection", "kind"),
    [
        ((1, 1, HALF_OFF, 0.5), LOCALISATION),
        ((1, 2, NEAR, 0.5), CLASSIFICATION),
        ((1, 1, NEAR, 0.5), DUPLICATE),
        ((1, 1, FAR, 0.5), BACKGROUND),
        ((2, 1, BOX, 0.5), BACKGROUND),
        ((1, 2, HALF_OFF, 0.5), BOTH),
    ],
)
def test_every_type_of_false_positive(detection: tuple, kind: int) -> None:
    """Next to a better detection that has the object."""
    scored = scored_of(truth_of([(1, 1, BOX)]), results_of([(1, 1, BOX, 0.9), detection]))
    errors = classify_errors(scored)
    assert errors.kind_D.tolist() == [NO_ERROR, kind]
    assert not errors.winner_D.any()
    assert not errors.missed_N.any()


def test_poor_localisation_comes_before_classification_even_on_top_of_another_class() -> None:
    scored = scored_of(truth_of([(1, 1, BOX), (1, 2, HALF_OFF)]), results_of([(1, 1, HALF_OFF, 0.9)]))
    assert classify_errors(scored).kind_D.tolist() == [LOCALISATION]


def test_localisation_costs_what_its_object_is_worth() -> None:
    """One class, two objects, one poorly localised: AP50 rises from 51/101 to 1. The other kinds cost nothing."""
    found = costs([(1, 1, BOX), (2, 1, BOX)], [(1, 1, BOX, 0.9), (2, 1, HALF_OFF, 0.8)])
    assert found["localisation"] == (1, pytest.approx(1 - 51 / 101))
    assert found["missed"] == (0, 0)
    assert found["classification"] == found["duplicate"] == found["background"] == found["both"] == (0, 0)
    assert found["false positives"] == (1, 0)
    assert found["false negatives"] == (1, pytest.approx(1 - 51 / 101))


def test_of_two_poor_localisations_the_better_becomes_a_true_positive_and_the_other_is_removed() -> None:
    """Both are counted, and the background detection stays what it is."""
    boxes = [(1, 1, HALF_OFF, 0.9), (1, 1, [50.0, 100.0, 100.0, 100.0], 0.8), (1, 1, FAR, 0.7)]
    found = costs([(1, 1, BOX)], boxes)
    assert found["localisation"] == (2, pytest.approx(1))
    assert found["background"] == (1, 0)


def test_a_classification_error_moves_to_the_class_of_its_object() -> None:
    """Class 1's object is found as class 2, in front of class 2's own: correcting it helps both classes."""
    objects = [(1, 1, BOX), (2, 2, BOX)]
    found = costs(objects, [(1, 2, NEAR, 0.9), (2, 2, BOX, 0.8)])
    # Before: class 1 has AP 0, class 2 has 1/2. After: both 1.
    assert found["classification"] == (1, pytest.approx(1 - 0.25))
    assert found["false positives"] == (1, pytest.approx(0.5 - 0.25))
    assert found["missed"] == (0, 0)


def test_duplicates_and_background_cost_the_precision_that_they_take() -> None:
    objects = [(1, 1, BOX), (2, 1, BOX)]
    twice = costs(objects, [(1, 1, BOX, 0.9), (1, 1, NEAR, 0.8), (2, 1, BOX, 0.7)])
    # Precision is 1 up to recall 1/2 (51 of 101 recalls), then 2/3.
    assert twice["duplicate"] == (1, pytest.approx(50 / 101 / 3))
    before = costs(objects, [(1, 1, FAR, 0.95), (1, 1, BOX, 0.9), (2, 1, BOX, 0.7)])
    assert before["background"] == (1, pytest.approx(1 / 3))


def test_a_missed_object_costs_its_recall() -> None:
    found = costs([(1, 1, BOX), (2, 1, BOX)], [(1, 1, BOX, 0.9)])
    assert found["missed"] == (1, pytest.approx(50 / 101))


def test_a_class_all_of_whose_objects_are_missed_has_ap_1_when_corrected() -> None:
    found = costs([(1, 1, BOX), (2, 2, BOX)], [(1, 1, BOX, 0.9)])
    assert found["missed"] == (1, pytest.approx(0.5))
    assert found["false negatives"] == (1, pytest.approx(0.5))


def test_detections_in_a_crowd_are_not_errors_and_a_crowd_is_never_missed() -> None:
    scored = scored_of(truth_of([(1, 1, [0.0, 0.0, 300.0, 300.0])], crowd=1), results_of([(1, 1, BOX, 0.9)]))
    errors = classify_errors(scored)
    assert errors.kind_D.tolist() == [NO_ERROR]
    assert not errors.missed_N.any()
    assert report_errors(scored, errors).ap50 == -1


@pytest.mark.parametrize("seed", range(4))
def test_on_random_scenes_the_sums_agree_and_ap50_is_coco_s(seed: int) -> None:
    truth, results = random_scene(seed)
    scored = scored_of(truth, results)
    errors = classify_errors(scored)
    report = report_errors(scored, errors)
    assert report.ap50 == pytest.approx(coco_evaluation(truth, results).metrics["AP50"], rel=1e-12)
    assert sum(cost.errors for cost in report.main[:5]) == report.special[0].errors
    assert errors.unfound_N.sum() == errors.missed_N.sum() + errors.winner_D.sum() == report.special[1].errors
    assert all(cost.ap50 >= 0 for cost in (*report.main, *report.special))
    assert np.array_equal(report.counts_TK.sum(axis=1), [cost.errors for cost in report.main])
    assert [cost.kind for cost in report.main] == list(KINDS)


@pytest.mark.parametrize("seed", range(3))
def test_corrections_equal_scoring_corrected_detections(seed: int) -> None:
    """Oracle: change the files and let coco_evaluation score them."""
    truth, results = random_scene(seed)
    scored = scored_of(truth, results)
    errors = classify_errors(scored)
    cost = {cost.kind: cost.ap50 for cost in report_errors(scored, errors).main}
    base = coco_evaluation(truth, results).metrics["AP50"]
    for kind, name in enumerate(KINDS[:5]):
        fixed = list(results)
        gone = set()
        for d in np.flatnonzero(errors.kind_D == kind):
            row = int(scored.found.row_D[d])
            if errors.winner_D[d]:
                target = truth["annotations"][errors.target_D[d]]
                fixed[row] = {**results[row], "bbox": target["bbox"], "category_id": target["category_id"]}
            else:
                gone.add(row)
        # A corrected box has IoU 1 with its object, and so takes it only from detections that did not have it.
        kept = [row for n, row in enumerate(fixed) if n not in gone]
        expected = coco_evaluation(truth, kept).metrics["AP50"] - base
        assert cost[name] == pytest.approx(expected, abs=0.02), name
    fewer = {**truth, "annotations": [a for a, gone in zip(truth["annotations"], errors.missed_N) if not gone]}
    assert cost["missed"] == pytest.approx(coco_evaluation(fewer, results).metrics["AP50"] - base, abs=1e-12)


@pytest.mark.slow
@needs_pairs
def test_a_real_detector_has_the_errors_that_the_authors_code_finds() -> None:
    """tidecv 1.0.1 on the same detections. It breaks ties of scores differently, so costs differ by thousandths."""
    expected = {
        "classification": (2824, 2.6602),
        "localisation": (22305, 9.5508),
        "both": (9629, 0.7793),
        "duplicate": (1297, 0.1263),
        "background": (53531, 2.4083),
        "missed": (1228, 5.6677),
        "false positives": (89586, 11.8663),
        "false negatives": (3484, 17.5441),
    }
    truth, results, _ = read_pair("voc2007_yolov2")
    columns = truth_columns(truth)
    # tidecv, too, takes the 100 best detections of a class and image.
    scored = score_detections(columns, detection_columns(columns, results), DETECTIONS)
    report = report_errors(scored, classify_errors(scored))
    assert 100 * report.ap50 == pytest.approx(65.8069, abs=1e-4)
    given = {cost.kind: (cost.errors, 100 * cost.ap50) for cost in (*report.main, *report.special)}
    assert {kind: errors for kind, (errors, _) in given.items()} == {
        kind: count for kind, (count, _) in expected.items()
    }
    for kind, (_, cost) in expected.items():
        assert given[kind][1] == pytest.approx(cost, abs=0.003), kind
