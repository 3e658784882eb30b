"""Matched detections of all classes in one order: the input of every analysis.

Legend: I images, K classes, N annotations in file order, D detections, best first over all classes;
4 is [x, y, width, height] in pixels of the stored image.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.scoring.columns import DetectionColumns, TruthColumns
from retinanet.scoring.matches import Matches, match_columns

HIT_IOU = 0.5
"""IoU from which a detection can be a true positive in the analyses."""
NO_OBJECT = -1
"""Row of the object of a detection that is matched to none."""


class ScoredDetections(NamedTuple):
    """All detections, or those within a limit of an image and class. Best score first, ties by class."""

    image_D: NDArray[np.int64]
    class_D: NDArray[np.int64]
    boxes_D4: NDArray[np.float64]
    score_D: NDArray[np.float64]
    outcome_D: NDArray[np.uint8]
    """FALSE_POSITIVE, TRUE_POSITIVE or IGNORED (in a crowd) at HIT_IOU, as in `scoring.matches`."""
    object_D: NDArray[np.int64]
    """Row of the annotation that the detection is matched to at HIT_IOU, else NO_OBJECT."""
    row_D: NDArray[np.int64]
    """Row in the results."""


class Scored(NamedTuple):
    """One set of detections against one ground truth."""

    objects: TruthColumns
    """Every annotation, crowd regions included."""
    found: ScoredDetections
    matches: Matches

    def names(self) -> list[str]:
        """(K,) names of the classes; equal names are followed by their id."""
        names = self.objects.category_names_K
        ids = self.objects.category_ids_K.tolist()
        return [f"{name} ({number})" if names.count(name) > 1 else name for number, name in zip(ids, names)]


def score_detections(truth: TruthColumns, found: DetectionColumns, max_detections: int | None = None) -> Scored:
    """Match detections and sort those of all classes by score.

    max_detections: as for `match_columns`, which also says what is raised.
    """
    matches = match_columns(truth, found, max_detections)
    classes = matches.classes
    score_D = _joined([of_class.score_D for of_class in classes], np.float64)
    order_D = np.argsort(-score_D, kind="stable")
    row_D = _joined([of_class.detection_D for of_class in classes], np.int64)[order_D]
    class_D = np.repeat(np.arange(len(classes)), [len(of_class.score_D) for of_class in classes])
    detections = ScoredDetections(
        image_D=_joined([of_class.image_D for of_class in classes], np.int64)[order_D],
        class_D=class_D[order_D].astype(np.int64),
        boxes_D4=found.boxes_D4[row_D],
        score_D=score_D[order_D],
        outcome_D=_joined([of_class.outcome_ATD[0, 0] for of_class in classes], np.uint8)[order_D],
        object_D=_joined([of_class.matched_TD[0] for of_class in classes], np.int64)[order_D],
        row_D=row_D,
    )
    return Scored(truth, detections, matches)


def _joined(parts: list[NDArray[Any]], kind: type[np.generic]) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype=kind), *parts]).astype(kind)
