"""Which anchor learns what: anchors x ground truth -> labels and matches (paper section 4, "Anchors"). Pure.

Legend: A anchors, G boxes, C crowd regions, B images, N boxes and P positive anchors of a batch; boxes in the canvas
frame.
"""

from collections.abc import Iterable
from functools import partial
from itertools import accumulate
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from retinanet import boxes
from retinanet.structures import BACKGROUND, IGNORE, Assignment, Targets

CPU_TILE, GPU_TILE = 1 << 18, 1 << 26
"""Most pairs of an anchor and a box that are looked at together: bounds memory, and on a CPU stays in its caches."""

KEPT_PAIRS = 1 << 24
"""Most pairs of an image whose IoUs are kept from the first look at all tiles to the second."""


class AssignRule(NamedTuple):
    """Thresholds of the assignment; the fields are those of config `assign`."""

    positive_iou: float
    negative_iou: float
    low_quality: bool
    low_quality_min_iou: float
    low_quality_takes: Literal["best_box", "own_box"]
    crowd_overlap: float


class BatchAssignment(NamedTuple):
    """Assignments of a batch in the form that the criterion reads."""

    labels_BA: Tensor
    """(B, A) int64: class index, BACKGROUND or IGNORE."""
    image_P: Tensor
    """(P,) int64, image of each positive, ascending: nonzero(labels_BA >= 0), found once for all that need it."""
    anchor_P: Tensor
    """(P,) int64, its anchor, ascending within an image."""
    boxes_P4: Tensor
    """(P, 4) its ground truth."""

    def positives(self) -> Tensor:
        """(B,) number of positive anchors of each image."""
        return (self.labels_BA >= 0).sum(dim=1)


@torch.no_grad()
def assign(anchors_A4: Tensor, targets: Targets, rule: AssignRule) -> Assignment:
    """Label each anchor with the class of its best box, BACKGROUND or IGNORE.

    An anchor is positive from positive_iou, background below negative_iou and ignored between. With low_quality,
    the anchors (all of a tie) that reach a box's best IoU, if that is over zero, are positive too. Under `best_box`
    each still learns the box that it overlaps most (Detectron, detectron2, torchvision); under `own_box` it learns
    the box whose best it is, even if it has over positive_iou with another, and of several such boxes the last
    (mmdetection's MaxIoUAssigner). Its IoU with what it learns must be at least low_quality_min_iou.
    A background or ignored anchor that lies in a crowd region by more than crowd_overlap is ignored.
    """
    most_boxes = max(len(targets.boxes_G4), len(targets.crowd_C4), 1)
    pairs = CPU_TILE if anchors_A4.device.type == "cpu" else GPU_TILE
    tiles = anchors_A4.split(max(1, pairs // most_boxes))
    iou_of = partial(boxes.iou, targets.boxes_G4)
    kept: list[Tensor] = []
    reach_G1 = None
    if rule.low_quality:
        if len(targets.boxes_G4) * len(anchors_A4) <= KEPT_PAIRS:
            kept = list(map(iou_of, tiles))
        reach_G1 = best_of_boxes(targets.boxes_G4, kept or map(iou_of, tiles))
    looked_at = zip(tiles, kept or map(iou_of, tiles), strict=True)
    parts = [assign_tile(tile_A4, iou_GA, targets, reach_G1, rule) for tile_A4, iou_GA in looked_at]
    return Assignment(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def best_of_boxes(boxes_G4: Tensor, ious: Iterable[Tensor]) -> Tensor:
    """(G, 1) the best IoU that each box has with an anchor of any tile; ious: (G, A) of each tile."""
    best_G1 = torch.zeros((len(boxes_G4), 1), dtype=boxes_G4.dtype, device=boxes_G4.device)
    for iou_GA in ious:
        best_G1 = torch.maximum(best_G1, iou_GA.amax(dim=1, keepdim=True))
    return best_G1


def assign_tile(
    anchors_A4: Tensor, iou_GA: Tensor, targets: Targets, reach_G1: Tensor | None, rule: AssignRule
) -> Assignment:
    """`assign` of some of the anchors. reach_G1: `best_of_boxes` among all of them, for low_quality."""
    count = len(anchors_A4)
    labels_A = torch.full((count,), BACKGROUND, dtype=torch.int64, device=anchors_A4.device)
    matched_A = torch.zeros(count, dtype=torch.int64, device=anchors_A4.device)
    if len(targets.boxes_G4):
        best_A, matched_A = iou_GA.max(dim=0)
        positive_A = best_A >= rule.positive_iou
        if reach_G1 is not None:
            reaches_GA = iou_GA == torch.where(reach_G1 > 0, reach_G1, torch.inf)
            if rule.low_quality_takes == "own_box":
                reaches_GA &= reach_G1 >= rule.low_quality_min_iou
                number_G1 = torch.arange(len(iou_GA), device=iou_GA.device)[:, None]
                last_A = torch.where(reaches_GA, number_G1, -1).amax(dim=0)
                matched_A = torch.where(last_A >= 0, last_A, matched_A)
                positive_A |= last_A >= 0
            else:
                positive_A |= reaches_GA.any(dim=0) & (best_A >= rule.low_quality_min_iou)
        labels_A = labels_A.masked_fill(best_A >= rule.negative_iou, IGNORE)
        labels_A = torch.where(positive_A, targets.classes_G[matched_A], labels_A)
    if len(targets.crowd_C4):
        in_crowd_A = (boxes.overlap(anchors_A4, targets.crowd_C4) > rule.crowd_overlap).any(dim=1)
        labels_A = labels_A.masked_fill(in_crowd_A & (labels_A == BACKGROUND), IGNORE)
    return Assignment(labels_A, torch.where(labels_A >= 0, matched_A, 0))


def assign_batch(anchors_A4: Tensor, targets: list[Targets], rule: AssignRule) -> BatchAssignment:
    """Assign each image of a batch; an image without boxes is all background.

    The host waits for a GPU once: to know how many positives there are.
    """
    assigned = [assign(anchors_A4, image_targets, rule) for image_targets in targets]
    labels_BA, matched_BA = (torch.stack(tensors) for tensors in zip(*assigned, strict=True))
    image_P, anchor_P = (labels_BA >= 0).nonzero(as_tuple=True)
    counts = [len(image_targets.boxes_G4) for image_targets in targets]
    first_B = torch.tensor([0, *accumulate(counts[:-1])]).to(image_P.device, non_blocking=True)
    boxes_N4 = torch.cat([image_targets.boxes_G4 for image_targets in targets])
    return BatchAssignment(labels_BA, image_P, anchor_P, boxes_N4[first_B[image_P] + matched_BA[image_P, anchor_P]])
