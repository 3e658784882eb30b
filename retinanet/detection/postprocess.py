"""Raw outputs -> detections in each image's own frame (paper section 4, "Inference").

Legend: B images, A anchors, O outputs of an anchor, K classes, R anchors that may pass the threshold, N candidates of a
batch, D detections of an image.
"""

from collections.abc import Iterator
from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from retinanet.detection import boxes
from retinanet.detection.anchors import Pyramid
from retinanet.detection.grouping import grouped
from retinanet.structures import Detections, Scoring


class DetectRule(NamedTuple):
    """Thresholds of inference; the fields are those of config `eval`."""

    score_threshold: float
    topk: int
    nms_iou: float
    detections: int


class Pairs(NamedTuple):
    """(anchor, class) pairs of a batch that may become detections: by image, by level, best first."""

    scores_N: Tensor
    images_N: Tensor
    """(N,) int64, index into the batch."""
    anchors_N: Tensor
    """(N,) int64, index into all anchors of the canvas."""
    classes_N: Tensor
    counts: list[int]
    """Pairs of each image."""


def given_prefilter(scores_K: Tensor, threshold: float) -> Tensor:
    return ~(scores_K.amax(dim=-1).float() <= threshold)


GIVEN = Scoring(Tensor.float, given_prefilter)
"""Of outputs that are scores already, as exported graphs give."""

NMS_FIRST = 4
"""Of how many candidates for each detection wanted NMS tries the best ones, before it takes all."""

NMS_TOGETHER = 20_000
"""Most candidates of several images that a GPU's NMS takes at once; the class offsets that torchvision adds stay exact,
and it does not turn to a loop over classes."""


def best_pairs(outputs_BAO: Tensor, level_sizes: tuple[int, ...], rule: DetectRule, scoring: Scoring) -> Pairs:
    """Each level's best `topk` (anchor, class) pairs that score above the threshold.

    Scores are made of those anchors alone that may have such a pair, a few of a hundred.
    """
    images, anchors = outputs_BAO.shape[:2]
    outputs_RO = outputs_BAO.flatten(0, 1)
    row_R = scoring.prefilter(outputs_RO, rule.score_threshold).nonzero().squeeze(1)
    scores_RK = scoring.scores(outputs_RO[row_R])
    passing_N, class_N = (scores_RK > rule.score_threshold).nonzero(as_tuple=True)
    score_N, row_N = scores_RK[passing_N, class_N], row_R[passing_N]
    ends = torch.tensor([image * anchors + end for image in range(images) for end in accumulate(level_sizes)])
    # Pairs come in the order of their anchors, so those of a level lie together.
    last = torch.searchsorted(row_N, ends.to(row_N.device, non_blocking=True)).tolist()
    best = [score_N[start:end].topk(min(rule.topk, end - start)).indices + start for start, end in pairwise([0, *last])]
    levels = len(level_sizes)
    counts = [sum(map(len, best[first : first + levels])) for first in range(0, len(best), levels)]
    best_N = torch.cat(best)
    row_N = row_N[best_N]
    return Pairs(score_N[best_N], row_N // anchors, row_N % anchors, class_N[best_N], counts)


def best_detections(
    boxes_N4: Tensor, pairs: Pairs, sizes_B2: Tensor, original_sizes_B2: Tensor, rule: DetectRule
) -> list[Detections]:
    """Detections of each image, best first, in its original frame, from its candidates in the canvas frame.

    boxes_N4: of the pairs. They are clipped to their image, suppressed class by class (NMS), cut to the best
    `detections` and then scaled from the canvas to the stored image.
    """
    clipped_N4 = boxes.clip(boxes_N4, *sizes_B2[pairs.images_N].unbind(dim=1))
    parts = zip(*(tensor.split(pairs.counts) for tensor in (clipped_N4, pairs.scores_N, pairs.classes_N)))
    kept = suppressed([Detections(*part) for part in parts], rule)
    return [to_original_frame(*of_image) for of_image in zip(kept, sizes_B2, original_sizes_B2, strict=True)]


def suppressed(candidates: list[Detections], rule: DetectRule) -> list[Detections]:
    """The best `detections` that NMS leaves of each class, best first, image by image; equal scores keep their order.

    Whether a candidate stays depends on better ones alone, so once the best few leave enough the others are not asked.
    """
    ordered = [sorted_by_score(found) for found in candidates]
    kept = after_nms([first(found, NMS_FIRST * rule.detections) for found in ordered], rule)
    short = [
        image
        for image, found in enumerate(ordered)
        if len(kept[image].scores_D) < rule.detections and len(found.scores_D) > NMS_FIRST * rule.detections
    ]
    for image, found in zip(short, after_nms([ordered[image] for image in short], rule), strict=True):
        kept[image] = found
    return [first(found, rule.detections) for found in kept]


def sorted_by_score(found: Detections) -> Detections:
    order_D = found.scores_D.sort(descending=True, stable=True).indices
    return Detections(*(tensor[order_D] for tensor in found))


def first(found: Detections, count: int) -> Detections:
    return Detections(*(tensor[:count] for tensor in found))


def after_nms(images: list[Detections], rule: DetectRule) -> list[Detections]:
    """What NMS leaves of each image's detections, which are sorted by score, in their order."""
    return [kept for group in taken_together(images) for kept in nms_of(group, rule)]


def together_on(device: torch.device) -> int:
    """Most candidates of several images for one NMS; on a CPU its work grows with their square, and nobody waits."""
    return NMS_TOGETHER if device.type == "cuda" else 0


def taken_together(images: list[Detections]) -> Iterator[list[Detections]]:
    """Neighbours that share an NMS; an image with more than the bound has its own."""
    most = together_on(images[0].scores_D.device) if images else 0
    return grouped(images, lambda group: sum(len(found.scores_D) for found in group), most)


def nms_of(group: list[Detections], rule: DetectRule) -> list[Detections]:
    """`after_nms` of images, at least one, in one call."""
    counts = [len(found.scores_D) for found in group]
    all_N = Detections(*(torch.cat(tensors) for tensors in zip(*group, strict=True)))
    device = all_N.scores_D.device
    image_N = torch.arange(len(group)).repeat_interleave(torch.tensor(counts)).to(device, non_blocking=True)
    # torchvision keeps classes apart by moving their boxes far away, where float32 would round their sides.
    exact = torch.float32 if device.type == "mps" else torch.float64
    own_N = all_N.classes_D * len(group) + image_N
    keep = batched_nms(all_N.boxes_D4.to(exact), all_N.scores_D.to(exact), own_N, rule.nms_iou).sort().values
    ends = torch.tensor(list(accumulate(counts))).to(device, non_blocking=True)
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
    """Detections of each image, best first, in its original frame, from the class and box head's outputs.

    A host waits for a GPU a few times a batch, however many images it has.
    """
    pairs = best_pairs(outputs_BAO, pyramid.level_sizes, rule, scoring)
    deltas_N4 = deltas_BA4[pairs.images_N, pairs.anchors_N].float()
    boxes_N4 = boxes.decode(deltas_N4, pyramid.boxes_A4[pairs.anchors_N])
    return best_detections(boxes_N4, pairs, sizes_B2, original_sizes_B2, rule)


@torch.no_grad()
def detect_decoded(
    scores_BAK: Tensor,
    boxes_BA4: Tensor,
    level_sizes: tuple[int, ...],
    sizes_B2: Tensor,
    original_sizes_B2: Tensor,
    rule: DetectRule,
) -> list[Detections]:
    """As `detect`, where scores and boxes of every anchor are there already (canvas frame), as exported graphs give."""
    pairs = best_pairs(scores_BAK, level_sizes, rule, GIVEN)
    return best_detections(boxes_BA4[pairs.images_N, pairs.anchors_N], pairs, sizes_B2, original_sizes_B2, rule)
