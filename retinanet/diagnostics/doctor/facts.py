"""What `retinanet doctor` measures on data, detections and a detector; the causes judge nothing else.

Legend: K classes, 4 [x, y, width, height] in pixels of the stored image.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.build.network import build_anchor_spec
from retinanet.config.schema import Config
from retinanet.data.coco import CocoDataset
from retinanet.diagnostics.anchors.report import measure_anchors
from retinanet.diagnostics.anchors.suggest import as_arguments, suggest_anchors
from retinanet.scoring.analysis.overlaps import pairs_within_images
from retinanet.scoring.columns import detection_columns, truth_columns
from retinanet.structures import Category
from retinanet.training.causes import RunEvidence

FOUND_IOU = 0.5
"""IoU from which a detection has found an object, whatever its class."""


class BoxFormat(NamedTuple):
    """How the boxes of an annotation file read as [x, y, width, height] and as other formats."""

    boxes: int
    over: int
    """Reach over the right or lower border of their image by more than a pixel."""
    as_corners: int
    """Are boxes within their image when read as [x1, y1, x2, y2]."""
    fractions: int
    """Have no number above 1, in an image of more than 16 pixels."""


class SplitFacts(NamedTuple):
    """A split of the data set."""

    file: str
    categories: tuple[Category, ...]
    images: int
    objects_by_class: dict[str, int]
    objects_I: NDArray[np.int64]
    """(I,) objects of each image, without crowd regions."""
    image_side: float
    """Median square root of an image's area, pixels."""
    object_share: float
    """Median side of an object over the side of its image (square roots of areas); NaN without objects."""
    boxes: BoxFormat

    def objects(self) -> int:
        """The number of objects, without crowd regions."""
        return int(self.objects_I.sum())


class AnchorFacts(NamedTuple):
    """How the anchors reach the training set's objects."""

    objects: int
    reached: int
    """Objects whose best anchor is positive by its IoU."""
    mean_iou: float
    positive_iou: float
    suggestion: str
    """Words that set better anchors; empty where none are found."""
    suggested_reached: int


class FoundFacts(NamedTuple):
    """The detections of a run on its val split."""

    problem: str | None
    """Why they cannot be compared with the ground truth; then all counts are 0."""
    detections: int
    images: int
    images_without: int
    """Images without a detection."""
    best_score: float
    names: tuple[str, ...]
    found_KK: NDArray[np.int64]
    """Objects of class k whose best-scored overlapping detection is of class j."""
    objects_K: NDArray[np.int64]


class SampleScore(NamedTuple):
    """A detector on a few images of a split."""

    images: int
    ap50: float
    """With every detection, whatever its score."""
    ap50_kept: float
    """With the detections from eval.score_threshold."""
    best_score: float
    brightness: float
    """Mean of the images' mean pixel, 0..255."""
    brightness_deviation: float
    """Standard deviation of the images' mean pixels."""


class TrialFacts(NamedTuple):
    """The best weights on a few training and validation images."""

    train: SampleScore
    val: SampleScore
    input_mean: float
    """Of the normalised pixels of the training images."""
    input_deviation: float
    plain_ap50: float | None
    """On the same val images, of the last weights without the moving average; None: not measured."""
    average_ap50: float | None
    """Of the last moving average."""


class Evidence(NamedTuple):
    """All that is known of a run; None for what could not be read."""

    run: RunEvidence
    known: tuple[Category, ...] | None
    """The classes of the detector."""
    train: SplitFacts | None
    val: SplitFacts | None
    anchors: AnchorFacts | None
    found: FoundFacts | None
    trial: TrialFacts | None


def split_facts(dataset: CocoDataset) -> SplitFacts:
    """Counts and sizes of a split."""
    counts: dict[str, int] = {category.name: 0 for category in dataset.categories}
    shares: list[float] = []
    for record in dataset.images:
        for index in record.classes_G.tolist():
            counts[dataset.categories[index].name] += 1
        sides_G2 = record.boxes_G4[:, 2:] - record.boxes_G4[:, :2]
        shares += np.sqrt(sides_G2.prod(axis=1) / (record.height * record.width)).tolist()
    sides = [(record.height * record.width) ** 0.5 for record in dataset.images]
    return SplitFacts(
        file=str(dataset.annotation_file),
        categories=dataset.categories,
        images=len(dataset.images),
        objects_by_class=counts,
        objects_I=np.array([len(record.boxes_G4) for record in dataset.images], dtype=np.int64),
        image_side=float(np.median(sides)) if sides else float("nan"),
        object_share=float(np.median(shares)) if shares else float("nan"),
        boxes=box_format(dataset.ground_truth["annotations"], dataset.ground_truth["images"]),
    )


def box_format(annotations: Sequence[dict[str, Any]], images: Sequence[dict[str, Any]]) -> BoxFormat:
    """How the boxes of a COCO file's rows read in each format."""
    sizes = {row["id"]: (row["width"], row["height"]) for row in images}
    boxes_N4 = np.array([row["bbox"] for row in annotations], dtype=np.float64).reshape(-1, 4)
    sizes_N2 = np.array([sizes[row["image_id"]] for row in annotations], dtype=np.float64).reshape(-1, 2)
    first_N2, second_N2 = boxes_N4[:, :2], boxes_N4[:, 2:]
    return BoxFormat(
        boxes=len(boxes_N4),
        over=int((first_N2 + second_N2 > sizes_N2 + 1).any(axis=1).sum()),
        as_corners=int(((second_N2 > first_N2) & (second_N2 <= sizes_N2 + 1)).all(axis=1).sum()),
        fractions=int(((boxes_N4 <= 1).all(axis=1) & (sizes_N2 > 16).all(axis=1)).sum()),
    )


def anchor_facts(config: Config, dataset: CocoDataset) -> AnchorFacts | None:
    """The recall of the config's anchors on a split, and better ones where they reach few; None without objects."""
    placed, recall = measure_anchors(config, dataset)
    overall = recall.overall
    if not overall.boxes:
        return None
    better = None
    if 2 * overall.positive < overall.boxes:
        better = suggest_anchors(placed, build_anchor_spec(config.model), recall, config.seed)
    return AnchorFacts(
        objects=overall.boxes,
        reached=overall.positive,
        mean_iou=overall.mean_iou,
        positive_iou=config.assign.positive_iou,
        suggestion=as_arguments(better[0]) if better else "",
        suggested_reached=better[1].overall.positive if better else 0,
    )


def found_facts(results: list[dict[str, Any]], ground_truth: dict[str, Any]) -> FoundFacts:
    """Counts of detections, and the class that each object is detected as. Both arguments are validated."""
    truth = truth_columns(ground_truth)
    found = detection_columns(truth, results)
    classes, images = len(truth.category_ids_K), len(truth.image_ids_I)
    plain = np.flatnonzero(~truth.crowd_N)
    pairs = pairs_within_images(found.image_D, found.boxes_D4, truth.image_N[plain], truth.boxes_N4[plain])
    close = np.flatnonzero(pairs.iou_P >= FOUND_IOU)
    # Of repeated indices the last assignment stays: the best score.
    order = close[np.argsort(found.score_D[pairs.first_P[close]], kind="stable")]
    class_M = np.full(len(plain), -1, dtype=np.int64)
    class_M[pairs.second_P[order]] = found.class_D[pairs.first_P[order]]
    hit = class_M >= 0
    found_KK = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(found_KK, (truth.class_N[plain][hit], class_M[hit]), 1)
    return FoundFacts(
        problem=None,
        detections=len(results),
        images=images,
        images_without=images - len(np.unique(found.image_D)),
        best_score=float(found.score_D.max()) if len(results) else 0.0,
        names=truth.category_names_K,
        found_KK=found_KK,
        objects_K=truth.objects_K(),
    )


def unreadable_detections(problem: str) -> FoundFacts:
    """Facts of detections that do not belong to the ground truth."""
    nothing = np.zeros(0, dtype=np.int64)
    return FoundFacts(
        problem=problem,
        detections=0,
        images=0,
        images_without=0,
        best_score=0.0,
        names=(),
        found_KK=nothing.reshape(0, 0),
        objects_K=nothing,
    )
