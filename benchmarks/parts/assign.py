"""Part `assign`: ground truth to anchors.

Legend: B images, A anchors.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from benchmarks.contest import Comparison, Contest, Contestant, Running
from benchmarks.options import Options
from benchmarks.ours import as_in_a_run, build_config
from benchmarks.scenes import random_targets
from retinanet.build import build_anchor_spec, build_assign_rule
from retinanet.detection.anchors import pyramid_anchors
from retinanet.detection.assign import assign_batch
from retinanet.structures import Targets

CANVAS, QUICK_CANVAS = (512, 512), (192, 192)
BOXES = (8, 300)
NOT_SAME = "Ours also looks up each anchor's class and each positive's box, which torchvision's losses do later."


def build_contest(options: Options) -> Contest:
    """Assignments of ordinary images and of crowded ones."""
    canvas = QUICK_CANVAS if options.quick else CANVAS
    spec = build_anchor_spec(build_config("resnet50", "float32", 1).model)
    anchors_A4 = pyramid_anchors(canvas, spec, torch.device(options.device)).boxes_A4
    return Contest(
        part="assign",
        what=f"Assignment of {len(anchors_A4):,} anchors in {options.batch} images with {BOXES[0]} or {BOXES[1]} boxes "
        "each: positive from IoU 0.5, background below 0.4, and each box's best anchors.",
        contestants=tuple(
            contestant
            for boxes in BOXES
            for contestant in (
                Contestant(f"ours, {boxes} boxes", True, "float32", partial(_ours, anchors_A4, boxes, canvas, options)),
                Contestant(
                    f"torchvision, {boxes} boxes",
                    False,
                    "float32",
                    partial(_theirs, anchors_A4, boxes, canvas, options),
                ),
            )
        ),
        comparisons=tuple(Comparison(f"ours, {b} boxes", f"torchvision, {b} boxes") for b in BOXES),
        not_same=NOT_SAME,
        check=same_labels,
        items=0,
        repeats=15,
        memory="extra",
    )


def same_labels(results: Mapping[str, Any]) -> str:
    """Every anchor's label is the same."""
    compared = [b for b in BOXES if {f"ours, {b} boxes", f"torchvision, {b} boxes"} <= results.keys()]
    for boxes in compared:
        ours_BA, (matched_BA, classes) = results[f"ours, {boxes} boxes"], results[f"torchvision, {boxes} boxes"]
        pairs = zip(matched_BA, classes, strict=True)
        theirs_BA = torch.stack([torch.where(m >= 0, c[m.clamp(min=0)], m) for m, c in pairs])
        torch.testing.assert_close(ours_BA, theirs_BA, rtol=0, atol=0)
    return "every anchor's label is the same" if compared else ""


def _targets(boxes: int, canvas: tuple[int, int], options: Options) -> list[Targets]:
    rng = np.random.default_rng(0)
    device = torch.device(options.device)
    made = [random_targets(rng, boxes, canvas, options.classes) for _ in range(options.batch)]
    return [Targets(*(tensor.to(device) for tensor in targets)) for targets in made]


def _ours(anchors_A4: Tensor, boxes: int, canvas: tuple[int, int], options: Options) -> Running:
    targets = _targets(boxes, canvas, options)
    rule = build_assign_rule(build_config("resnet50", "float32", options.batch))
    return Running(as_in_a_run(lambda: assign_batch(anchors_A4, targets, rule).labels_BA))


def _theirs(anchors_A4: Tensor, boxes: int, canvas: tuple[int, int], options: Options) -> Running:
    targets = _targets(boxes, canvas, options)
    matcher = Matcher(0.5, 0.4, allow_low_quality_matches=True)

    def step() -> tuple[list[Tensor], list[Tensor]]:
        matched = [matcher(box_iou(one.boxes_G4, anchors_A4)) for one in targets]
        return matched, [one.classes_G for one in targets]

    return Running(step)
