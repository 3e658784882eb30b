"""Ground truth and detections as columns: what every analysis reads.

Legend: I images, K classes, N annotations in file order, D detections that COCO scores, best first over all classes;
4 is [x, y, width, height] in pixels of the stored image.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.scoring.columns import Truth, found_columns, truth_columns
from retinanet.scoring.matches import Matches

NO_OBJECT = -1
"""Matched by nothing, or matching nothing."""


class Scores(NamedTuple):
    """The detections that COCO scores: at most 100 of a class in an image. Best score first, ties by class."""

    image_D: NDArray[np.int64]
    class_D: NDArray[np.int64]
    boxes_D4: NDArray[np.float64]
    score_D: NDArray[np.float64]
    outcome_D: NDArray[np.uint8]
    """FALSE_POSITIVE, TRUE_POSITIVE or IGNORED (in a crowd) at IoU 0.5, as of `scoring.matches`."""
    object_D: NDArray[np.int64]
    """Row of the annotation that the detection is matched to at IoU 0.5, else NO_OBJECT."""
    row_D: NDArray[np.int64]
    """Place in the results."""


class Scored(NamedTuple):
    """One set of detections against one ground truth."""

    categories: tuple[tuple[int, str], ...]
    """(K,) id and name, by rising id."""
    image_names: tuple[str, ...]
    """(I,) file names, or "image ID" where the ground truth names none."""
    objects: Truth
    """Every annotation, crowd too."""
    found: Scores
    matches: Matches

    def names(self) -> list[str]:
        """Names of the classes; those that share a name have their id behind it."""
        names = [name for _, name in self.categories]
        return [f"{name} ({number})" if names.count(name) > 1 else name for number, name in self.categories]

    def counts_K(self) -> NDArray[np.int64]:
        """(K,) objects without crowd."""
        kept = ~self.objects.crowd_N
        return np.bincount(self.objects.class_N[kept], minlength=len(self.categories))


def to_columns(ground_truth: dict[str, Any], results: list[dict[str, Any]], matches: Matches) -> Scored:
    """Columns of a validated COCO dict and validated results with their matches (`match_detections` of the two)."""
    objects = truth_columns(ground_truth)
    names = {row["id"]: str(row.get("file_name") or f"image {row['id']}") for row in ground_truth["images"]}
    return Scored(
        tuple(sorted((int(row["id"]), str(row["name"])) for row in ground_truth["categories"])),
        tuple(names[number] for number in objects.image_ids_I.tolist()),
        objects,
        _in_one_order(found_columns(objects, results).boxes_D4, matches),
        matches,
    )


def _in_one_order(boxes_R4: NDArray[np.float64], matches: Matches) -> Scores:
    """Detections of all classes; boxes_R4 are those of all R results."""
    classes = matches.classes
    score_D = _joined([of_class.score_D for of_class in classes], np.float64)
    order_D = np.argsort(-score_D, kind="stable")
    row_D = _joined([of_class.detection_D for of_class in classes], np.int64)[order_D]
    class_D = np.repeat(np.arange(len(classes)), [len(of_class.score_D) for of_class in classes])
    return Scores(
        _joined([of_class.image_D for of_class in classes], np.int64)[order_D],
        class_D[order_D].astype(np.int64),
        boxes_R4[row_D],
        score_D[order_D],
        _joined([of_class.outcome_ATD[0, 0] for of_class in classes], np.uint8)[order_D],
        _joined([of_class.matched_TD[0] for of_class in classes], np.int64)[order_D],
        row_D,
    )


def _joined(parts: list[NDArray[Any]], kind: type[np.generic]) -> NDArray[Any]:
    return np.concatenate([np.zeros(0, dtype=kind), *parts]).astype(kind)
