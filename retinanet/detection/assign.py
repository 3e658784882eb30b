"""Anchor assignment: anchors x ground truth -> labels and matches (paper section 4, "Anchors"). Pure functions.

Legend: A anchors, G boxes, C crowd regions, B images, N boxes and P positive anchors of a batch; boxes in the canvas
frame.
"""

from collections.abc import Iterable
from functools import partial
from itertools import accumulate
from typing import Literal, NamedTuple, assert_never

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from retinanet.detection import boxes
from retinanet.detection.anchors import Pyramid
from retinanet.detection.atss import AtssRule, select
from retinanet.detection.grouping import group_neighbours
from retinanet.structures import BACKGROUND, IGNORE, Assignment, Targets

CPU_TILE, GPU_TILE = 1 << 18, 1 << 26
"""Maximum anchor-box pairs per tile; bounds memory and keeps a tile in the CPU's cache."""

CPU_KEPT, GPU_KEPT = 1 << 24, 1 << 26
"""Maximum anchor-box pairs whose IoUs are kept between the two passes over the tiles; more are computed twice."""


class AssignRule(NamedTuple):
    """Thresholds of the assignment by IoU (kind iou); the fields are keys of config `assign`."""

    positive_iou: float
    negative_iou: float
    low_quality: bool
    low_quality_min_iou: float
    low_quality_takes: Literal["best_box", "own_box"]
    crowd_overlap: float


AnyAssignRule = AssignRule | AtssRule


class BatchAssignment(NamedTuple):
    """Assignments of a batch in the form that the criterion reads."""

    labels_BA: Tensor
    """(B, A) int64: class index, BACKGROUND or IGNORE."""
    image_P: Tensor
    """(P,) int64, image index of each positive, ascending: nonzero(labels_BA >= 0), computed once for all users."""
    anchor_P: Tensor
    """(P,) int64, anchor index of each positive, ascending within an image."""
    boxes_P4: Tensor
    """(P, 4) float32, ground-truth box of each positive."""

    def positives(self) -> Tensor:
        """(B,) number of positive anchors of each image."""
        return (self.labels_BA >= 0).sum(dim=1)


class PaddedTargets(NamedTuple):
    """Ground truth of several images, padded to equal counts with empty boxes, which overlap no anchor."""

    boxes_BG4: Tensor
    classes_BG: Tensor
    crowd_BC4: Tensor
    any_B: Tensor
    """(B,) bool: whether an image has boxes."""


def assign(pyramid: Pyramid, targets: Targets, rule: AnyAssignRule) -> Assignment:
    """Label each anchor of an image with the class of the box that it learns, BACKGROUND or IGNORE.

    AssignRule: an anchor is positive from positive_iou on, background below negative_iou and ignored in between. With
    low_quality, the anchors (all of a tie) that reach a box's best IoU, if that is above zero, are positive too. With
    `best_box` each is still matched to the box that it overlaps most (Detectron, detectron2, torchvision); with
    `own_box` it is matched to the box whose best anchor it is, even if its IoU with another is above positive_iou, and
    to the last of several such boxes (mmdetection's MaxIoUAssigner). Its IoU with the matched box must be at least
    low_quality_min_iou. AtssRule: see `atss.select`; what is not positive is background.

    Both: a background anchor of which more than crowd_overlap lies in a crowd region is ignored.
    """
    return Assignment(*(tensor_1A[0] for tensor_1A in assign_images(pyramid, [targets], rule)))


def assign_images(pyramid: Pyramid, targets: list[Targets], rule: AnyAssignRule) -> tuple[Tensor, Tensor]:
    """`assign` for several images: labels and matches, (B, A) int64 each.

    By IoU a GPU assigns many images at once, because each kernel launch costs; a CPU assigns image by image, because
    there the pairs cost and padding adds some.
    """
    anchors_A4 = pyramid.boxes_A4
    match rule:
        case AssignRule():
            pairs, limit = partial(padded_pairs, anchors=len(anchors_A4)), pair_limit(anchors_A4.device)
            groups = group_neighbours(targets, pairs, limit)
            assigned = [assign_together(anchors_A4, group, rule) for group in groups]
        case AtssRule():
            assigned = [assign_adaptively(pyramid, image_targets, rule) for image_targets in targets]
        case _:
            assert_never(rule)
    labels_BA, matched_BA = (torch.cat(tensors) for tensors in zip(*assigned, strict=True))
    return labels_BA, matched_BA


def assign_adaptively(pyramid: Pyramid, targets: Targets, rule: AtssRule) -> tuple[Tensor, Tensor]:
    """`assign` by ATSS: labels and matches, (1, A) int64 each."""
    matched_A = select(pyramid, targets.boxes_G4, rule.candidates)
    labels_A = torch.full_like(matched_A, BACKGROUND)
    if len(targets.boxes_G4):
        labels_A = torch.where(matched_A >= 0, targets.classes_G[matched_A], BACKGROUND)
    labels_BA = ignore_crowds(labels_A[None], pyramid.boxes_A4, targets.crowd_C4[None], rule.crowd_overlap)
    return labels_BA, matched_A.clamp(min=0)[None]


@torch.no_grad()
def assign_together(anchors_A4: Tensor, targets: list[Targets], rule: AssignRule) -> tuple[Tensor, Tensor]:
    """`assign` by IoU for several images at once: labels and matches, (B, A) int64 each."""
    padded = pad(targets)
    images, most_boxes = len(targets), max(padded.boxes_BG4.shape[1], padded.crowd_BC4.shape[1], 1)
    on_cpu = anchors_A4.device.type == "cpu"
    tiles = anchors_A4.split(max(1, (CPU_TILE if on_cpu else GPU_TILE) // (images * most_boxes)))

    def iou_of(tile_A4: Tensor) -> Tensor:
        iou_BGA: Tensor = boxes.iou(padded.boxes_BG4.flatten(0, 1), tile_A4).unflatten(0, padded.boxes_BG4.shape[:2])
        return iou_BGA

    kept: list[Tensor] = []
    reach_BG1 = None
    if rule.low_quality:
        if padded.boxes_BG4[..., 0].numel() * len(anchors_A4) <= (CPU_KEPT if on_cpu else GPU_KEPT):
            kept = list(map(iou_of, tiles))
        reach_BG1 = best_of_boxes(padded.boxes_BG4, kept or map(iou_of, tiles))
    ious = kept or map(iou_of, tiles)
    parts = [
        assign_tile(tile_A4, iou_BGA, padded, reach_BG1, rule) for tile_A4, iou_BGA in zip(tiles, ious, strict=True)
    ]
    labels_BA, matched_BA = (torch.cat(tensors, dim=1) for tensors in zip(*parts, strict=True))
    return labels_BA, matched_BA


def pad(targets: list[Targets]) -> PaddedTargets:
    """Stack the ground truth of several images, padded to the image with most boxes and most crowd regions."""
    boxes_BG4, classes_BG, crowd_BC4 = (
        pad_sequence(list(tensors), batch_first=True) for tensors in zip(*targets, strict=True)
    )
    counts = torch.tensor([len(image_targets.boxes_G4) for image_targets in targets])
    return PaddedTargets(
        boxes_BG4=boxes_BG4,
        classes_BG=classes_BG,
        crowd_BC4=crowd_BC4,
        any_B=(counts > 0).to(boxes_BG4.device, non_blocking=True),
    )


def best_of_boxes(boxes_BG4: Tensor, ious: Iterable[Tensor]) -> Tensor:
    """(B, G, 1) best IoU of each box with an anchor of any tile; ious: (B, G, A) of each tile."""
    best_BG1 = torch.zeros_like(boxes_BG4[..., :1])
    for iou_BGA in ious:
        best_BG1 = torch.maximum(best_BG1, iou_BGA.amax(dim=2, keepdim=True))
    return best_BG1


def assign_tile(
    anchors_A4: Tensor, iou_BGA: Tensor, targets: PaddedTargets, reach_BG1: Tensor | None, rule: AssignRule
) -> tuple[Tensor, Tensor]:
    """`assign_together` for a tile of the anchors; reach_BG1: `best_of_boxes` over all tiles, None: no low_quality."""
    shape = (len(iou_BGA), len(anchors_A4))
    labels_BA = torch.full(shape, BACKGROUND, dtype=torch.int64, device=anchors_A4.device)
    matched_BA = torch.zeros_like(labels_BA)
    if iou_BGA.shape[1]:
        best_BA, matched_BA = iou_BGA.max(dim=1)
        positive_BA = best_BA >= rule.positive_iou
        if reach_BG1 is not None:
            reaches_BGA = iou_BGA == torch.where(reach_BG1 > 0, reach_BG1, torch.inf)
            if rule.low_quality_takes == "own_box":
                reaches_BGA &= reach_BG1 >= rule.low_quality_min_iou
                number_G1 = torch.arange(iou_BGA.shape[1], device=iou_BGA.device)[:, None]
                last_BA = torch.where(reaches_BGA, number_G1, -1).amax(dim=1)
                matched_BA = torch.where(last_BA >= 0, last_BA, matched_BA)
                positive_BA |= last_BA >= 0
            else:
                positive_BA |= reaches_BGA.any(dim=1) & (best_BA >= rule.low_quality_min_iou)
        any_B1 = targets.any_B[:, None]
        labels_BA = labels_BA.masked_fill((best_BA >= rule.negative_iou) & any_B1, IGNORE)
        labels_BA = torch.where(positive_BA & any_B1, targets.classes_BG.gather(1, matched_BA), labels_BA)
    labels_BA = ignore_crowds(labels_BA, anchors_A4, targets.crowd_BC4, rule.crowd_overlap)
    return labels_BA, torch.where(labels_BA >= 0, matched_BA, 0)


def ignore_crowds(labels_BA: Tensor, anchors_A4: Tensor, crowd_BC4: Tensor, most: float) -> Tensor:
    """(B, A) labels with IGNORE for background anchors of which more than the part `most` lies in a crowd region."""
    if not crowd_BC4.shape[1]:
        return labels_BA
    overlap_ABC = boxes.ioa(anchors_A4, crowd_BC4.flatten(0, 1)).unflatten(1, crowd_BC4.shape[:2])
    in_crowd_BA = (overlap_ABC > most).any(dim=2).T
    return labels_BA.masked_fill(in_crowd_BA & (labels_BA == BACKGROUND), IGNORE)


def assign_batch(pyramid: Pyramid, targets: list[Targets], rule: AnyAssignRule) -> BatchAssignment:
    """Assign each image of a batch; an image without boxes is all background.

    Host-device syncs: the number of positives, and with ATSS one for each level of each image.
    """
    labels_BA, matched_BA = assign_images(pyramid, targets, rule)
    image_P, anchor_P = (labels_BA >= 0).nonzero(as_tuple=True)
    counts = [len(image_targets.boxes_G4) for image_targets in targets]
    first_B = torch.tensor([0, *accumulate(counts[:-1])]).to(image_P.device, non_blocking=True)
    boxes_N4 = torch.cat([image_targets.boxes_G4 for image_targets in targets])
    return BatchAssignment(
        labels_BA=labels_BA,
        image_P=image_P,
        anchor_P=anchor_P,
        boxes_P4=boxes_N4[first_B[image_P] + matched_BA[image_P, anchor_P]],
    )


def pair_limit(device: torch.device) -> int:
    """Maximum anchor-box pairs, padding included, of images that are assigned at once; 0: image by image."""
    return 0 if device.type == "cpu" else GPU_KEPT


def padded_pairs(targets: list[Targets], anchors: int) -> int:
    """Anchor-box pairs of images once each is padded to as many boxes as the one with most."""
    return len(targets) * max([1, *(len(image_targets.boxes_G4) for image_targets in targets)]) * anchors
