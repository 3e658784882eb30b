"""Raw outputs -> detections in each image's own frame (paper section 4, "Inference").

Legend: B images, A anchors, O outputs of an anchor, K classes, R anchors that may pass the threshold, N candidates of a
batch, D detections of an image.
"""

from itertools import accumulate, pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from retinanet.detection import boxes
from retinanet.detection.anchors import Pyramid
from retinanet.detection.grouping import group_neighbours
from retinanet.structures import Detections, Scoring

EmptyBoxes = Literal["keep", "drop_before_nms", "drop_last"]
"""What becomes of boxes without area after clipping: see `DetectRule.empty_boxes`."""


class DetectRule(NamedTuple):
    """Thresholds of inference; the fields are those of config `eval`."""

    score_threshold: float
    topk: int
    nms_iou: float
    detections: int
    empty_boxes: EmptyBoxes
    """Boxes whose width or height is 0 after clipping: `keep` (torchvision, Detectron), `drop_before_nms`
    (mmdetection: min_bbox_size 0), or `drop_last`, after the limit of `detections`
    (detectron2: detector_postprocess)."""


class Candidates(NamedTuple):
    """(anchor, class) pairs of a batch that may become detections, by image, then by level, best first."""

    scores_N: Tensor
    """(N,) float32 in 0..1."""
    images_N: Tensor
    """(N,) int64, index into the batch."""
    anchors_N: Tensor
    """(N,) int64, index into all anchors of the canvas."""
    classes_N: Tensor
    """(N,) int64 class index."""
    counts: list[int]
    """Number of candidates of each image."""


def scores_prefilter(scores_K: Tensor, threshold: float) -> Tensor:
    """Where some score, given as such, is not certainly at or below the threshold; also where one is NaN."""
    return ~(scores_K.amax(dim=-1).float() <= threshold)


GIVEN = Scoring(scores=Tensor.float, prefilter=scores_prefilter)
"""For outputs that are scores already, as those of exported graphs."""

NMS_FIRST = 4
"""NMS first tries this many candidates for each detection wanted, the best ones, and all of them only if needed."""

NMS_TOGETHER = 20_000
"""Maximum candidates of several images in one NMS call on a GPU: torchvision's class offsets stay exact, and it does
not fall back to a loop over classes."""


def best_candidates(
    outputs_BAO: Tensor, level_sizes: tuple[int, ...], rule: DetectRule, scoring: Scoring
) -> Candidates:
    """The best `topk` (anchor, class) pairs of each level that score above the threshold.

    Scores are computed only for anchors that may have such a pair, a few in a hundred.
    """
    images, anchors = outputs_BAO.shape[:2]
    outputs_RO = outputs_BAO.flatten(0, 1)
    row_R = scoring.prefilter(outputs_RO, rule.score_threshold).nonzero().squeeze(1)
    scores_RK = scoring.scores(outputs_RO[row_R])
    passing_N, class_N = (scores_RK > rule.score_threshold).nonzero(as_tuple=True)
    score_N, row_N = scores_RK[passing_N, class_N], row_R[passing_N]
    ends = torch.tensor([image * anchors + end for image in range(images) for end in accumulate(level_sizes)])
    # Pairs are in the order of their anchors, so those of a level are contiguous.
    last = torch.searchsorted(row_N, ends.to(row_N.device, non_blocking=True)).tolist()
    best = [score_N[start:end].topk(min(rule.topk, end - start)).indices + start for start, end in pairwise([0, *last])]
    levels = len(level_sizes)
    counts = [
        sum(map(len, best[first_detections : first_detections + levels]))
        for first_detections in range(0, len(best), levels)
    ]
    best_N = torch.cat(best)
    row_N = row_N[best_N]
    return Candidates(
        scores_N=score_N[best_N],
        images_N=row_N // anchors,
        anchors_N=row_N % anchors,
        classes_N=class_N[best_N],
        counts=counts,
    )


def best_detections(
    boxes_N4: Tensor, candidates: Candidates, sizes_B2: Tensor, original_sizes_B2: Tensor, rule: DetectRule
) -> list[Detections]:
    """Detections of each image, best first, in its original frame, from the candidates' boxes in the canvas frame.

    The boxes are clipped to their image, suppressed class by class (NMS), limited to the best `detections` and then
    scaled from the canvas to the stored image; `rule.empty_boxes` decides whether and when those without area go.
    """
    clipped_N4 = boxes.clip(boxes_N4, *sizes_B2[candidates.images_N].unbind(dim=1))
    columns = (clipped_N4, candidates.scores_N, candidates.classes_N)
    parts = zip(*(tensor.split(candidates.counts) for tensor in columns))
    found = [Detections(*part) for part in parts]
    kept = suppress_overlaps(without_empty(found) if rule.empty_boxes == "drop_before_nms" else found, rule)
    if rule.empty_boxes == "drop_last":
        kept = without_empty(kept)
    return [to_original_frame(*of_image) for of_image in zip(kept, sizes_B2, original_sizes_B2, strict=True)]


def suppress_overlaps(candidates: list[Detections], rule: DetectRule) -> list[Detections]:
    """The best `detections` of each image that survive NMS within each class, best first; ties keep their order.

    Whether a candidate survives depends on better ones alone, so if enough of the best few survive, the others need no
    NMS.
    """
    ordered = [sort_by_score(found) for found in candidates]
    kept = after_nms([first_detections(found, NMS_FIRST * rule.detections) for found in ordered], rule)
    short = [
        image
        for image, found in enumerate(ordered)
        if len(kept[image].scores_D) < rule.detections and len(found.scores_D) > NMS_FIRST * rule.detections
    ]
    for image, found in zip(short, after_nms([ordered[image] for image in short], rule), strict=True):
        kept[image] = found
    return [first_detections(found, rule.detections) for found in kept]


def sort_by_score(found: Detections) -> Detections:
    """Detections, best first; equal scores keep their order."""
    order_D = found.scores_D.sort(descending=True, stable=True).indices
    return Detections(*(tensor[order_D] for tensor in found))


def first_detections(found: Detections, count: int) -> Detections:
    """The first `count` detections."""
    return Detections(*(tensor[:count] for tensor in found))


def after_nms(images: list[Detections], rule: DetectRule) -> list[Detections]:
    """What NMS leaves of each image's detections, which must be sorted by score; their order is kept."""
    limit = nms_limit(images[0].scores_D.device) if images else 0
    groups = group_neighbours(images, count_detections, limit)
    return [kept for group in groups for kept in nms_together(group, rule)]


def nms_limit(device: torch.device) -> int:
    """Maximum candidates of several images in one NMS; 0: each image has its own.

    On a CPU the work grows with the square of their number, and no kernel launches are saved.
    """
    return NMS_TOGETHER if device.type == "cuda" else 0


def count_detections(images: list[Detections]) -> int:
    """Number of detections of all images."""
    return sum(len(found.scores_D) for found in images)


def nms_together(group: list[Detections], rule: DetectRule) -> list[Detections]:
    """`after_nms` of one or more images in one NMS call."""
    counts = [len(found.scores_D) for found in group]
    all_N = Detections(*(torch.cat(tensors) for tensors in zip(*group, strict=True)))
    device = all_N.scores_D.device
    image_N = torch.arange(len(group)).repeat_interleave(torch.tensor(counts)).to(device, non_blocking=True)
    # torchvision separates classes by shifting their boxes far apart, where float32 would round their sides.
    exact = torch.float32 if device.type == "mps" else torch.float64
    own_N = all_N.classes_D * len(group) + image_N
    keep = batched_nms(all_N.boxes_D4.to(exact), all_N.scores_D.to(exact), own_N, rule.nms_iou).sort().values
    return split_kept(all_N, keep, counts)


def without_empty(images: list[Detections]) -> list[Detections]:
    """Each image's detections without those whose width or height is 0; their order is kept."""
    all_N = Detections(*(torch.cat(tensors) for tensors in zip(*images, strict=True)))
    sides_N2 = all_N.boxes_D4[:, 2:] - all_N.boxes_D4[:, :2]
    keep = (sides_N2 > 0).all(dim=1).nonzero().squeeze(1)
    return split_kept(all_N, keep, [len(found.scores_D) for found in images])


def split_kept(all_N: Detections, keep: Tensor, counts: list[int]) -> list[Detections]:
    """The detections of each image at the indices `keep`, which ascend. counts: how many of `all_N` each image has."""
    ends = torch.tensor(list(accumulate(counts))).to(keep.device, non_blocking=True)
    borders = pairwise([0, *torch.searchsorted(keep, ends).tolist()])
    return [Detections(*(tensor[keep[start:end]] for tensor in all_N)) for start, end in borders]


def to_original_frame(found: Detections, size_2: Tensor, original_size_2: Tensor) -> Detections:
    """Detections in the canvas frame, scaled to the stored image. Sizes are (height, width)."""
    scale_4 = (original_size_2 / size_2).flip(0).repeat(2).to(found.boxes_D4)
    return found._replace(boxes_D4=found.boxes_D4 * scale_4)


@torch.no_grad()
def detect(
    outputs_BAO: Tensor,
    deltas_BA4: Tensor,
    pyramid: Pyramid,
    sizes_B2: Tensor,
    original_sizes_B2: Tensor,
    rule: DetectRule,
    scoring: Scoring,
) -> list[Detections]:
    """Detections of each image, best first, in its original frame, from the outputs of the class and the box head.

    The number of host-device syncs does not depend on the number of images.
    """
    candidates = best_candidates(outputs_BAO, pyramid.level_sizes, rule, scoring)
    deltas_N4 = deltas_BA4[candidates.images_N, candidates.anchors_N].float()
    boxes_N4 = boxes.decode(deltas_N4, pyramid.boxes_A4[candidates.anchors_N])
    return best_detections(boxes_N4, candidates, sizes_B2, original_sizes_B2, rule)


@torch.no_grad()
def detect_decoded(
    scores_BAK: Tensor,
    boxes_BA4: Tensor,
    level_sizes: tuple[int, ...],
    sizes_B2: Tensor,
    original_sizes_B2: Tensor,
    rule: DetectRule,
) -> list[Detections]:
    """As `detect`, from the scores and boxes (canvas frame) of every anchor, as exported graphs return them."""
    candidates = best_candidates(scores_BAK, level_sizes, rule, GIVEN)
    boxes_N4 = boxes_BA4[candidates.images_N, candidates.anchors_N]
    return best_detections(boxes_N4, candidates, sizes_B2, original_sizes_B2, rule)
