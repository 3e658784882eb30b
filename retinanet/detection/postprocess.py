"""Raw outputs -> detections in each image's own frame (paper section 4, "Inference").

Legend: B images, A anchors, O outputs of an anchor, K classes, R anchors that may pass the threshold, N candidates or
detections of a batch, G groups, D detections of an image.

With CUDA all images of a batch are processed together, so that the number of kernel launches does not grow with theirs.
A CPU, which saves no launches, takes the best of each level and suppresses overlaps image by image, in less work.
"""

from collections.abc import Sequence
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
    class_agnostic: bool
    """Whether NMS suppresses overlaps between classes too."""
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


class BatchDetections(NamedTuple):
    """Detections of a batch in one tensor each, by image."""

    boxes_N4: Tensor
    scores_N: Tensor
    classes_N: Tensor
    images_N: Tensor
    """(N,) int64, index into the batch, ascending."""
    counts: list[int]
    """Number of detections of each image."""


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
    ends_G = ends.to(row_N.device, non_blocking=True)
    sizes = [end - start for start, end in pairwise([0, *torch.searchsorted(row_N, ends_G).tolist()])]
    if goes_together(row_N.device):
        best_N = best_of_groups(score_N, torch.searchsorted(ends_G, row_N, right=True), sizes, rule.topk)
    else:
        best_N = best_of_each(score_N, sizes, rule.topk)
    levels = len(level_sizes)
    kept = [min(size, rule.topk) for size in sizes]
    counts = [sum(kept[first : first + levels]) for first in range(0, len(kept), levels)]
    row_N = row_N[best_N]
    return Candidates(
        scores_N=score_N[best_N],
        images_N=row_N // anchors,
        anchors_N=row_N % anchors,
        classes_N=class_N[best_N],
        counts=counts,
    )


def goes_together(device: torch.device) -> bool:
    """Whether images are processed together rather than one by one, which gives the same detections.

    Equal scores within a level may be in another order: that of anchors, where a CPU has that of its `topk`.
    """
    return device.type == "cuda"


def best_of_each(scores_N: Tensor, sizes: list[int], limit: int) -> Tensor:
    """Indices of the best `limit` scores of each group of neighbours, best first. sizes: those of the groups."""
    best = [
        scores_N[start:end].topk(min(limit, end - start)).indices + start
        for start, end in pairwise(accumulate(sizes, initial=0))
    ]
    return torch.cat(best)


def best_of_groups(scores_N: Tensor, groups_N: Tensor, sizes: list[int], limit: int) -> Tensor:
    """As `best_of_each`, for all groups at once; equal scores keep their order. groups_N: ascending."""
    return best_first(scores_N, groups_N)[leading(sizes, [limit] * len(sizes), scores_N.device)]


def best_first(scores_N: Tensor, groups_N: Tensor) -> Tensor:
    """Indices in the order of groups, within each by score, best first; equal scores keep their order."""
    order_N = scores_N.sort(descending=True, stable=True).indices
    return order_N[groups_N[order_N].sort(stable=True).indices]


def leading(sizes: Sequence[int], limits: Sequence[int], device: torch.device) -> Tensor:
    """Indices of the first members of consecutive groups: of each as many as its limit, or all. No sync."""
    kept = [min(size, limit) for size, limit in zip(sizes, limits, strict=True)]
    places = zip(accumulate(sizes, initial=0), accumulate(kept, initial=0))
    shifts = [start - place for (start, place), _ in zip(places, kept)]
    shifts_G, kept_G = torch.tensor([shifts, kept]).to(device, non_blocking=True)
    count = sum(kept)
    places_N: Tensor = torch.arange(count, device=device) + shifts_G.repeat_interleave(kept_G, output_size=count)
    return places_N


def best_detections(
    boxes_N4: Tensor, candidates: Candidates, sizes_B2: Tensor, original_sizes_B2: Tensor, rule: DetectRule
) -> list[Detections]:
    """Detections of each image, best first, in its original frame, from the candidates' boxes in the canvas frame.

    The boxes are clipped to their image, suppressed class by class (NMS), limited to the best `detections` and then
    scaled from the canvas to the stored image; `rule.empty_boxes` decides whether and when those without area go.
    """
    found = BatchDetections(
        boxes_N4=boxes.clip(boxes_N4, *sizes_B2[candidates.images_N].unbind(dim=1)),
        scores_N=candidates.scores_N,
        classes_N=candidates.classes_N,
        images_N=candidates.images_N,
        counts=candidates.counts,
    )
    kept = suppress_overlaps(without_empty(found) if rule.empty_boxes == "drop_before_nms" else found, rule)
    if rule.empty_boxes == "drop_last":
        kept = without_empty(kept)
    scale_N4 = original_scale(sizes_B2, original_sizes_B2)[kept.images_N]
    columns = (kept.boxes_N4 * scale_N4, kept.scores_N, kept.classes_N)
    return [Detections(*of_image) for of_image in zip(*(column.split(kept.counts) for column in columns))]


def suppress_overlaps(found: BatchDetections, rule: DetectRule) -> BatchDetections:
    """The best `detections` of each image that survive NMS, best first; ties keep their order.

    Whether a candidate survives depends on better ones alone, so if enough of the best few survive, the others need no
    NMS.
    """
    ordered = pick(found, best_first(found.scores_N, found.images_N), found.counts)
    few = NMS_FIRST * rule.detections
    kept = after_nms(first_detections(ordered, [few] * len(found.counts)), rule)
    needs_all = [count < rule.detections and all_ > few for count, all_ in zip(kept.counts, found.counts, strict=True)]
    if any(needs_all):
        again = after_nms(first_detections(ordered, [all_ * need for all_, need in zip(found.counts, needs_all)]), rule)
        kept = first_detections(kept, [count * (not need) for count, need in zip(kept.counts, needs_all)])
        kept = merge(kept, again)
    return first_detections(kept, [rule.detections] * len(kept.counts))


def pick(found: BatchDetections, keep: Tensor, counts: list[int]) -> BatchDetections:
    """The detections at the indices `keep`, of which each image has `counts`."""
    boxes_N4, scores_N, classes_N, images_N = (column[keep] for column in found[:4])
    return BatchDetections(boxes_N4=boxes_N4, scores_N=scores_N, classes_N=classes_N, images_N=images_N, counts=counts)


def pick_counted(found: BatchDetections, keep: Tensor) -> BatchDetections:
    """The detections at the indices `keep`, which ascend. The host waits for the number of each image."""
    last_B = torch.arange(len(found.counts), device=keep.device)
    ends = torch.searchsorted(found.images_N[keep], last_B, right=True).tolist()
    return pick(found, keep, [end - start for start, end in pairwise([0, *ends])])


def first_detections(found: BatchDetections, limits: list[int]) -> BatchDetections:
    """The first detections of each image, as many as its limit."""
    counts = [min(pair) for pair in zip(found.counts, limits, strict=True)]
    keep = leading(found.counts, limits, found.scores_N.device)
    return found if counts == found.counts else pick(found, keep, counts)


def merge(some: BatchDetections, others: BatchDetections) -> BatchDetections:
    """Detections of the same batch, each image's in only one of both; their order is kept."""
    counts = [sum(pair) for pair in zip(some.counts, others.counts, strict=True)]
    images_N = torch.cat([some.images_N, others.images_N])
    columns = [torch.cat(pair) for pair in zip(some[:3], others[:3], strict=True)]
    both = BatchDetections(
        boxes_N4=columns[0], scores_N=columns[1], classes_N=columns[2], images_N=images_N, counts=counts
    )
    return pick(both, images_N.sort(stable=True).indices, counts)


def after_nms(found: BatchDetections, rule: DetectRule) -> BatchDetections:
    """What NMS leaves of each image's detections, which must be sorted by score; their order is kept."""
    limit = nms_limit(found.scores_N.device)
    groups = group_neighbours(range(len(found.counts)), lambda images: sum(found.counts[i] for i in images), limit)
    ends = [0, *accumulate(found.counts)]
    keep = [nms_together(found, slice(ends[images[0]], ends[images[-1] + 1]), len(images), rule) for images in groups]
    return pick_counted(found, torch.cat(keep))


def nms_limit(device: torch.device) -> int:
    """Maximum candidates of several images in one NMS; 0: each image has its own.

    On a CPU the work grows with the square of their number.
    """
    return NMS_TOGETHER if goes_together(device) else 0


def nms_together(found: BatchDetections, members: slice, images: int, rule: DetectRule) -> Tensor:
    """Indices of what one NMS leaves of the detections `members`, all those of consecutive `images`."""
    boxes_N4, scores_N, classes_N, images_N = (column[members] for column in found[:4])
    # torchvision separates classes by shifting their boxes far apart, where float32 would round their sides.
    exact = torch.float32 if scores_N.device.type == "mps" else torch.float64
    image_N = images_N - images_N[:1]
    own_N = image_N if rule.class_agnostic else classes_N * images + image_N
    kept_N = batched_nms(boxes_N4.to(exact), scores_N.to(exact), own_N, rule.nms_iou)
    found_N: Tensor = kept_N.sort().values + members.start
    return found_N


def without_empty(found: BatchDetections) -> BatchDetections:
    """The detections without those whose width or height is 0; their order is kept."""
    sides_N2 = found.boxes_N4[:, 2:] - found.boxes_N4[:, :2]
    return pick_counted(found, (sides_N2 > 0).all(dim=1).nonzero().squeeze(1))


def original_scale(sizes_B2: Tensor, original_sizes_B2: Tensor) -> Tensor:
    """Factors (..., 4) float32 for boxes from the canvas frame to the stored image. Sizes are (height, width)."""
    scale_B2 = (original_sizes_B2 / sizes_B2).flip(-1)
    return torch.cat([scale_B2, scale_B2], dim=-1)


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
