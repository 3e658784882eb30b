"""Raw outputs -> detections in each image's own frame (paper section 4, "Inference").

Legend: B images, A anchors, O outputs of an anchor, K classes, R anchors that may pass the threshold, D detections of
an image.
"""

from itertools import accumulate, pairwise
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from retinanet import boxes
from retinanet.anchors import Pyramid
from retinanet.structures import Detections, Scoring


class DetectRule(NamedTuple):
    """Thresholds of inference; the fields are those of config `eval`."""

    score_threshold: float
    topk: int
    nms_iou: float
    detections: int


class Pairs(NamedTuple):
    """(anchor, class) pairs of one image that may become detections, level by level, each level's best first."""

    scores_D: Tensor
    anchors_D: Tensor
    """(D,) int64, index into all anchors of the canvas."""
    classes_D: Tensor


def given_may_pass(scores_K: Tensor, threshold: float) -> Tensor:
    return ~(scores_K.amax(dim=-1).float() <= threshold)


GIVEN = Scoring(Tensor.float, given_may_pass)
"""Of outputs that are scores already, as exported graphs give."""

NMS_FIRST = 4
"""Of how many candidates for each detection wanted NMS tries the best ones, before it takes all."""


def best_pairs(outputs_AO: Tensor, level_sizes: tuple[int, ...], rule: DetectRule, scoring: Scoring) -> Pairs:
    """Each level's best `topk` (anchor, class) pairs that score above the threshold.

    Scores are made of those anchors alone that may have such a pair, a few of a hundred.
    """
    anchor_R = scoring.may_pass(outputs_AO, rule.score_threshold).nonzero().squeeze(1)
    scores_RK = scoring.scores(outputs_AO[anchor_R])
    row_D, class_D = (scores_RK > rule.score_threshold).nonzero(as_tuple=True)
    score_D, anchor_D = scores_RK[row_D, class_D], anchor_R[row_D]
    ends = torch.tensor(list(accumulate(level_sizes)), device=anchor_D.device)
    last = torch.searchsorted(anchor_D, ends).tolist()  # pairs come in the order of their anchors
    best = []
    for start, end in pairwise([0, *last]):
        best.append(score_D[start:end].topk(min(rule.topk, end - start)).indices + start)
    best_D = torch.cat(best)
    return Pairs(score_D[best_D], anchor_D[best_D], class_D[best_D])


def candidates(
    outputs_AO: Tensor, deltas_A4: Tensor, pyramid: Pyramid, rule: DetectRule, scoring: Scoring
) -> Detections:
    """The best pairs with their decoded boxes; canvas frame."""
    pairs = best_pairs(outputs_AO, pyramid.level_sizes, rule, scoring)
    boxes_D4 = boxes.decode(deltas_A4[pairs.anchors_D].float(), pyramid.boxes_A4[pairs.anchors_D])
    return Detections(boxes_D4, pairs.scores_D, pairs.classes_D)


def best_detections(found: Detections, size_2: Tensor, original_size_2: Tensor, rule: DetectRule) -> Detections:
    """Detections of one image, best first, in its original frame, from candidates in the canvas frame.

    Candidates are clipped to the image, suppressed class by class (NMS), cut to the best `detections` and then
    scaled from the canvas to the stored image.
    """
    clipped = found._replace(boxes_D4=boxes.clip(found.boxes_D4, size_2[0], size_2[1]))
    return to_original_frame(suppressed(clipped, rule), size_2, original_size_2)


def suppressed(found: Detections, rule: DetectRule) -> Detections:
    """The best `detections` that NMS leaves of each class, best first; equal scores keep their order.

    Whether a candidate stays depends on better ones alone, so once the best few leave enough the others are not asked.
    """
    order = found.scores_D.sort(descending=True, stable=True).indices
    best = Detections(*(tensor[order] for tensor in found))
    # torchvision keeps classes apart by moving their boxes far away, where float32 would round their sides.
    exact = torch.float32 if best.boxes_D4.device.type == "mps" else torch.float64
    boxes_D4, scores_D = best.boxes_D4.to(exact), best.scores_D.to(exact)
    for count in (NMS_FIRST * rule.detections, len(order)):
        part = slice(min(count, len(order)))
        keep = batched_nms(boxes_D4[part], scores_D[part], best.classes_D[part], rule.nms_iou).sort().values
        if len(keep) >= rule.detections or count >= len(order):
            break
    return Detections(*(tensor[keep[: rule.detections]] for tensor in best))


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
    """Detections of each image, best first, in its original frame, from the class and box head's outputs."""
    return [
        best_detections(candidates(outputs_AO, deltas_A4, pyramid, rule, scoring), size, original, rule)
        for outputs_AO, deltas_A4, size, original in zip(
            outputs_BAO, deltas_BA4, sizes_B2, original_sizes_B2, strict=True
        )
    ]


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
    results = []
    for scores_AK, boxes_A4, size, original in zip(scores_BAK, boxes_BA4, sizes_B2, original_sizes_B2, strict=True):
        pairs = best_pairs(scores_AK, level_sizes, rule, GIVEN)
        found = Detections(boxes_A4[pairs.anchors_D], pairs.scores_D, pairs.classes_D)
        results.append(best_detections(found, size, original, rule))
    return results
