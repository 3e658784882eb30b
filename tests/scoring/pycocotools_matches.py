"""Matches as pycocotools makes them, read entry by entry from its run: the oracle of the matching."""

import contextlib
import io
from typing import Any

import numpy as np
from pycocotools.cocoeval import COCOeval

from retinanet.scoring.matches import FALSE_POSITIVE, IGNORED, TRUE_POSITIVE, ClassMatches, match_detections
from retinanet.scoring.reference import index_coco

Rows = list[dict[str, Any]]


def run_pycocotools(truth: dict[str, Any], results: Rows) -> COCOeval:
    """Its matching, not yet accumulated."""
    with contextlib.redirect_stdout(io.StringIO()):
        coco = index_coco({**truth, "annotations": [dict(row) for row in truth["annotations"]]})
        empty = index_coco({**truth, "annotations": []})
        evaluation = COCOeval(coco, coco.loadRes([dict(row) for row in results]) if results else empty, "bbox")
        evaluation.evaluate()
    return evaluation


def pycocotools_matches(truth: dict[str, Any], evaluation: COCOeval) -> tuple[list[int], list[ClassMatches]]:
    """Image ids, and what COCOeval writes of each class, as ClassMatches."""
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


def assert_same_matches(truth: dict[str, Any], results: Rows, evaluation: COCOeval | None = None) -> int:
    """The number of detections that hit. evaluation: a run of pycocotools on this set, where there is one already."""
    image_ids, expected = pycocotools_matches(truth, evaluation or run_pycocotools(truth, results))
    given = match_detections(truth, results)
    assert given.image_ids_I.tolist() == image_ids
    assert len(given.classes) == len(expected)
    for found, wanted in zip(given.classes, expected, strict=True):
        for name in ClassMatches._fields:
            assert np.array_equal(found._asdict()[name], wanted._asdict()[name]), (found.category_id, name)
    return sum(int((found.outcome_ATD == TRUE_POSITIVE).sum()) for found in expected)
