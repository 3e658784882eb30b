"""The matching is pycocotools', detection by detection: its entries, read one by one, are the oracle."""

import contextlib
import io
from typing import Any

import numpy as np
import pytest
from pycocotools.cocoeval import COCOeval, Params
from random_sets import random_set
from real_pairs import every_pair, needs_pairs, read_pair

from retinanet.errors import DataError
from retinanet.scoring.columns import DETECTIONS
from retinanet.scoring.matches import (
    AREA_RANGES,
    FALSE_POSITIVE,
    IGNORED,
    TRUE_POSITIVE,
    ClassMatches,
    match_detections,
)
from retinanet.scoring.reference import index_coco

Rows = list[dict[str, Any]]


def pycocotools_matches(truth: dict[str, Any], results: Rows) -> tuple[list[int], list[ClassMatches]]:
    """Image ids, and what COCOeval writes of each class, as ClassMatches."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = index_coco({**truth, "annotations": [dict(row) for row in truth["annotations"]]})
        empty = index_coco({**truth, "annotations": []})
        evaluation = COCOeval(coco, coco.loadRes([dict(row) for row in results]) if results else empty, "bbox")
        evaluation.evaluate()
    row_of = {0: -1} | {annotation["id"]: row for row, annotation in enumerate(truth["annotations"])}
    images = len(evaluation.params.imgIds)
    classes = []
    for k, category_id in enumerate(evaluation.params.catIds):
        of_class = evaluation.evalImgs[k * 4 * images : (k + 1) * 4 * images]
        of_area = [of_class[a * images : (a + 1) * images] for a in range(4)]
        detections = []
        for i, entries in enumerate(zip(*of_area, strict=True)):
            for d, score in enumerate(entries[0]["dtScores"] if entries[0] else ()):
                outcomes = [
                    [
                        IGNORED if ignored else TRUE_POSITIVE if matched else FALSE_POSITIVE
                        for matched, ignored in zip(entry["dtMatches"][:, d], entry["dtIgnore"][:, d], strict=True)
                    ]
                    for entry in entries
                ]
                matched = [row_of[int(annotation)] for annotation in entries[0]["dtMatches"][:, d]]
                detections.append((score, i, entries[0]["dtIds"][d] - 1, outcomes, matched))
        detections.sort(key=lambda detection: -detection[0])
        counts = {
            i: [int(np.sum(np.array(entry["gtIgnore"]) == 0)) for entry in entries]
            for i, entries in enumerate(zip(*of_area, strict=True))
            if entries[0]
        }
        counts = {i: per_area for i, per_area in counts.items() if any(per_area)}
        classes.append(
            ClassMatches(
                category_id=int(category_id),
                image_D=np.array([row[1] for row in detections]),
                score_D=np.array([row[0] for row in detections], dtype=float),
                outcome_ATD=np.array([row[3] for row in detections]).reshape(-1, 4, 10).transpose(1, 2, 0),
                object_image_N=np.array(list(counts)),
                objects_AN=np.array(list(counts.values())).reshape(-1, 4).T,
                detection_D=np.array([row[2] for row in detections]),
                matched_TD=np.array([row[4] for row in detections]).reshape(-1, 10).T,
            )
        )
    return [int(image_id) for image_id in evaluation.params.imgIds], classes


def assert_same(truth: dict[str, Any], results: Rows) -> int:
    """The number of detections that hit."""
    image_ids, expected = pycocotools_matches(truth, results)
    given = match_detections(truth, results)
    assert given.image_ids_I.tolist() == image_ids
    assert len(given.classes) == len(expected)
    for found, wanted in zip(given.classes, expected, strict=True):
        for name in ClassMatches._fields:
            assert np.array_equal(found._asdict()[name], wanted._asdict()[name]), (found.category_id, name)
    return sum(int((found.outcome_ATD == TRUE_POSITIVE).sum()) for found in expected)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_random_sets_match_as_pycocotools_does(part: int) -> None:
    hits = [assert_same(*random_set(seed)) for seed in range(1000 + 50 * part, 1050 + 50 * part)]
    assert sum(hit > 0 for hit in hits) > 20, "the sets must have something to match"


@needs_pairs
@every_pair
def test_real_pairs_match_as_pycocotools_does(name: str) -> None:
    truth, results, _ = read_pair(name)
    assert_same(truth, results)


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
