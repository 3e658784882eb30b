"""Detections of several views of one image as one list: overlapping windows, scales, mirror images.

Each point of the image belongs to one window (its core): along an axis, the line between two windows is the middle of
what they share. A window owns the detections whose centres are in its core. An object that is not larger than the
overlap is whole in the window that owns it, and a window that cuts it does not own what it sees of it: if a window
that ends at `a` cuts off an object that its neighbour, beginning at `b` < `a`, sees whole, the object begins after `b`,
so the centre of the visible part is past the middle of `b` and `a`. Only objects that no window sees whole leave
parts; those of neighbours are joined.

Legend: V views, N detections of all views, P of them that a window cuts, 4 = (x1, y1, x2, y2). Frame: the image.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from retinanet.detection import boxes
from retinanet.detection.postprocess import BatchDetections, DetectRule, suppress_overlaps
from retinanet.structures import Detections

NEAR = 0.1
"""Part of what two windows share: detections so close to a core are kept where its owner has nothing there, since two
windows may place one object on different sides of the middle."""

COVERED = 0.5
"""Part of such a detection that may be covered by owned ones of its class."""

EDGE = 0.02
"""Part of a window's side: a box that ends so close to an inner edge is cut by it."""

SAME_SPAN = 0.5
"""Least IoU of two parts of an object along the edge that cuts it."""

Corners = tuple[int, int, int, int]
"""(x1, y1, x2, y2) of a window."""


class View(NamedTuple):
    """What was found in one view."""

    found: Detections
    """In the frame of the image."""
    window: Corners


class _Pool(NamedTuple):
    """The detections of all views in one, with the window of each."""

    found: Detections
    window_N4: Tensor
    core_N4: Tensor
    """The part of the image that the window owns."""
    slack_N4: Tensor
    """Pixels by which detections may be outside the core on each side."""


def merge_views(views: list[View], rule: DetectRule) -> Detections:
    """The detections of an image, best first, from those of its views; at most `rule.detections` for each window.

    Detections are moved to the CPU. They are suppressed class by class as `rule` says; of several scales and mirror
    images the best-scored box stays.
    """
    pool = _pooled(views)
    centres_N2 = (pool.found.boxes_D4[:, :2] + pool.found.boxes_D4[:, 2:]) / 2
    owned_N = _inside(centres_N2, pool.core_N4)
    near_N = _inside(centres_N2, pool.core_N4 + pool.slack_N4) & ~owned_N
    whole = _with_parts_joined(_chosen(pool, owned_N))
    extra = _not_covered(_chosen(pool, near_N).found, whole)
    boxes_N4, scores_N, classes_N = (torch.cat(pair) for pair in zip(whole, extra, strict=True))
    together = BatchDetections(
        boxes_N4=boxes_N4,
        scores_N=scores_N,
        classes_N=classes_N,
        images_N=torch.zeros_like(classes_N),
        counts=[len(scores_N)],
    )
    windows = len({view.window for view in views})
    kept = suppress_overlaps(together, rule._replace(detections=rule.detections * windows))
    return Detections(*kept[:3])


def mirrored_back(found: Detections, width: int) -> Detections:
    """Detections in the mirror image (left to right) of an image of this width, in the image itself."""
    x1, y1, x2, y2 = found.boxes_D4.unbind(dim=1)
    return found._replace(boxes_D4=torch.stack([width - x2, y1, width - x1, y2], dim=1))


def moved(found: Detections, left: int, top: int) -> Detections:
    """Detections in a window's frame, in that of its image."""
    return found._replace(boxes_D4=found.boxes_D4 + found.boxes_D4.new_tensor([left, top, left, top]))


def _pooled(views: list[View]) -> _Pool:
    columns = [_axis_cores([(v.window[axis], v.window[axis + 2]) for v in views]) for axis in (0, 1)]
    rows_V = [[columns[axis][(v.window[axis], v.window[axis + 2])] for axis in (0, 1)] for v in views]
    core_V4 = torch.tensor([[x.low, y.low, x.high, y.high] for x, y in rows_V])
    slack_V4 = torch.tensor([[-x.shared_low, -y.shared_low, x.shared_high, y.shared_high] for x, y in rows_V]) * NEAR
    found = [Detections(*(tensor.cpu() for tensor in view.found)) for view in views]
    counts_V = torch.tensor([len(one.scores_D) for one in found])
    return _Pool(
        found=Detections(*(torch.cat(tensors) for tensors in zip(*found, strict=True))),
        window_N4=torch.tensor([v.window for v in views], dtype=torch.float32).repeat_interleave(counts_V, dim=0),
        core_N4=core_V4.repeat_interleave(counts_V, dim=0),
        slack_N4=slack_V4.repeat_interleave(counts_V, dim=0),
    )


class _Core(NamedTuple):
    """What a window owns along one axis, and how many pixels it shares with each neighbour."""

    low: float
    high: float
    shared_low: float
    shared_high: float


def _axis_cores(spans: list[tuple[int, int]]) -> dict[tuple[int, int], _Core]:
    """The core of each span [first, end) of the windows along an axis; cores meet, and the outer ones are open."""
    ordered = sorted(set(spans))
    middles = [(before[1] + after[0]) / 2 for before, after in pairwise(ordered)]
    shared = [float(before[1] - after[0]) for before, after in pairwise(ordered)]
    return {
        span: _Core(low=low, high=high, shared_low=shared_low, shared_high=shared_high)
        for span, low, high, shared_low, shared_high in zip(
            ordered, [-math.inf, *middles], [*middles, math.inf], [0.0, *shared], [*shared, 0.0], strict=True
        )
    }


def _inside(centres_N2: Tensor, core_N4: Tensor) -> Tensor:
    """(N,) whether each centre is in its core; a line between two cores belongs to the second."""
    return ((centres_N2 >= core_N4[:, :2]) & (centres_N2 < core_N4[:, 2:])).all(dim=1)


def _chosen(pool: _Pool, keep_N: Tensor) -> _Pool:
    return _Pool(
        found=Detections(*(tensor[keep_N] for tensor in pool.found)),
        window_N4=pool.window_N4[keep_N],
        core_N4=pool.core_N4[keep_N],
        slack_N4=pool.slack_N4[keep_N],
    )


def _not_covered(near: Detections, owned: Detections) -> Detections:
    """The detections of `near` that are not covered by one of the same class in `owned`."""
    same_NM = near.classes_D[:, None] == owned.classes_D[None]
    covered_NM = (boxes.ioa(near.boxes_D4, owned.boxes_D4) >= COVERED) & same_NM
    return Detections(*(tensor[~covered_NM.any(dim=1)] for tensor in near))


def _with_parts_joined(pool: _Pool) -> Detections:
    """The detections, the parts of an object that no window sees whole as one box with the best of their scores."""
    found = pool.found
    x1, y1, x2, y2 = found.boxes_D4.unbind(dim=1)
    left, top, right, bottom = pool.window_N4.unbind(dim=1)
    core_left, core_top, core_right, core_bottom = pool.core_N4.isfinite().unbind(dim=1)
    edge_x, edge_y = EDGE * (right - left), EDGE * (bottom - top)
    cut_left, cut_right = core_left & (x1 - left <= edge_x), core_right & (right - x2 <= edge_x)
    cut_top, cut_bottom = core_top & (y1 - top <= edge_y), core_bottom & (bottom - y2 <= edge_y)
    cut_P = (cut_left | cut_right | cut_top | cut_bottom).nonzero().squeeze(1)
    pairs = [
        *_facing(pool, cut_P, cut_right, cut_left, axis=0),
        *_facing(pool, cut_P, cut_bottom, cut_top, axis=1),
    ]
    boxes_N4, scores_N = found.boxes_D4.clone(), found.scores_D.clone()
    whole_N = torch.ones(len(scores_N), dtype=torch.bool)
    for group in _groups(pairs):
        parts_P4 = found.boxes_D4[group]
        boxes_N4[group[0]] = torch.cat([parts_P4[:, :2].amin(dim=0), parts_P4[:, 2:].amax(dim=0)])
        scores_N[group[0]] = found.scores_D[group].max()
        whole_N[group[1:]] = False
    return Detections(boxes_N4[whole_N], scores_N[whole_N], found.classes_D[whole_N])


def _groups(pairs: list[tuple[int, int]]) -> list[list[int]]:
    """The connected components of a graph with these edges."""
    group_of: dict[int, list[int]] = {}
    for a, b in pairs:
        one, other = group_of.setdefault(a, [a]), group_of.setdefault(b, [b])
        if one is not other:
            one += other
            group_of.update(dict.fromkeys(other, one))
    return list({id(group): group for group in group_of.values()}.values())


def _facing(pool: _Pool, cut_P: Tensor, ends_N: Tensor, begins_N: Tensor, axis: int) -> list[tuple[int, int]]:
    """Pairs (detection that its window cuts at its end, its continuation in the next window along `axis`).

    Both fill what their windows share, and span the same pixels along the edge. The best-scored pairs come first and
    each side of a detection is in one pair.
    """
    first_A, second_B = cut_P[ends_N[cut_P]], cut_P[begins_N[cut_P]]
    other = 1 - axis
    boxes_N4, window_N4 = pool.found.boxes_D4, pool.window_N4
    a_A4, b_B4, wa_A4, wb_B4 = boxes_N4[first_A], boxes_N4[second_B], window_N4[first_A], window_N4[second_B]
    slack_A1 = EDGE * (wa_A4[:, axis + 2] - wa_A4[:, axis])[:, None]
    is_next_AB = (wa_A4[:, None, [other, other + 2]] == wb_B4[None, :, [other, other + 2]]).all(dim=2)
    is_next_AB &= pool.core_N4[first_A, axis + 2][:, None] == pool.core_N4[second_B, axis][None]
    fills_AB = (a_A4[:, axis, None] <= wb_B4[None, :, axis] + slack_A1) & (
        b_B4[None, :, axis + 2] >= wa_A4[:, axis + 2, None] - slack_A1
    )
    shared_AB = torch.minimum(a_A4[:, other + 2, None], b_B4[None, :, other + 2]) - torch.maximum(
        a_A4[:, other, None], b_B4[None, :, other]
    )
    span_A, span_B = a_A4[:, other + 2] - a_A4[:, other], b_B4[:, other + 2] - b_B4[:, other]
    same_span_AB = shared_AB >= SAME_SPAN * (span_A[:, None] + span_B[None] - shared_AB)
    same_class_AB = pool.found.classes_D[first_A][:, None] == pool.found.classes_D[second_B][None]
    matches = (is_next_AB & fills_AB & same_span_AB & same_class_AB).nonzero()
    rows_M2 = torch.stack([first_A[matches[:, 0]], second_B[matches[:, 1]]], dim=1)
    best_first = pool.found.scores_D[rows_M2].amin(dim=1).sort(descending=True, stable=True).indices
    used_a, used_b = set[int](), set[int]()
    pairs = []
    for a, b in rows_M2[best_first].tolist():
        if a not in used_a and b not in used_b:
            used_a.add(a)
            used_b.add(b)
            pairs.append((a, b))
    return pairs
