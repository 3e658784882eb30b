"""Part `loss`: the class loss of a batch, value and gradient.

Legend: B images, A anchors, K classes.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection.retinanet import RetinaNetClassificationHead

from benchmarks.contest import Comparison, Contest, Contestant, Precision, Running
from benchmarks.options import Options
from benchmarks.ours import as_in_a_run, build_config, own_precisions
from benchmarks.peaks import DTYPES
from benchmarks.scenes import random_targets
from retinanet.build import build_anchor_spec, build_assign_rule, build_criterion
from retinanet.detection.anchors import pyramid_anchors
from retinanet.detection.assign import assign
from retinanet.structures import ClassTargets

CANVAS = (512, 512)
QUICK_CANVAS = (192, 192)
BOXES = 8
TOLERANCE: dict[Precision, float] = {"float32": 1e-4, "bfloat16": 5e-2}
"""Largest relative difference of value and of gradient, by the logits' type; torchvision sums in that type."""

NOT_SAME = (
    "Ours gives each anchor's own loss, in float32; torchvision's head gives one number, in the logits' type. Both "
    "divide each image by its positives and by the images."
)


class LossInputs(NamedTuple):
    """One batch's logits and what its anchors are to say, in both projects' terms."""

    logits_BAK: Tensor
    targets: ClassTargets
    matched: list[Tensor]
    """(A,) an image: index of the box, -1 background, -2 ignored."""
    labels: list[dict[str, Tensor]]


def build_contest(options: Options) -> Contest:
    """Class losses in the logits' types that training meets."""
    device = torch.device(options.device)
    canvas = QUICK_CANVAS if options.quick else CANVAS
    own = own_precisions(device)
    anchors = len(
        pyramid_anchors(canvas, build_anchor_spec(build_config("resnet50", "float32", 1).model), device).boxes_A4
    )
    elements = options.batch * anchors * options.classes
    return Contest(
        part="loss",
        what=f"Focal loss and its gradient for {options.batch} x {anchors:,} x {options.classes} logits, from logits "
        f"and matched anchors ({BOXES} boxes an image). The least to do: read each logit once, write its gradient.",
        contestants=tuple(
            contestant
            for precision in own
            for contestant in (
                Contestant(f"ours {precision}", True, precision, partial(_ours, precision, canvas, options)),
                Contestant(f"torchvision {precision}", False, precision, partial(_theirs, precision, canvas, options)),
            )
        ),
        comparisons=tuple(
            Comparison(
                f"ours {precision}",
                f"torchvision {precision}",
                at_least=12.0 if _has_goal(precision, options) else None,
                memory_at_most=0.25 if _has_goal(precision, options) else None,
            )
            for precision in own
        ),
        not_same=NOT_SAME,
        check=same_losses,
        items=0,
        repeats=15,
        warmups=2,
        floor_bytes={precision: 2 * elements * DTYPES[precision].itemsize for precision in own},
        memory="extra",
    )


def same_losses(results: Mapping[str, Any]) -> str:
    """Value and gradient of ours and torchvision's agree for each type of logits that both ran."""
    told = []
    for precision, tolerance in TOLERANCE.items():
        ours, theirs = results.get(f"ours {precision}"), results.get(f"torchvision {precision}")
        if ours is None or theirs is None:
            continue
        (value, gradient), (their_value, their_gradient) = ours, theirs
        torch.testing.assert_close(value, their_value.float(), rtol=tolerance, atol=0.0)
        scale = float(their_gradient.float().abs().max())
        torch.testing.assert_close(gradient.float(), their_gradient.float(), rtol=tolerance, atol=tolerance * scale)
        told.append(f"{precision} to {tolerance:g}")
    return f"value and gradient are equal ({', '.join(told)})" if told else ""


def make_inputs(precision: Precision, canvas: tuple[int, int], options: Options) -> LossInputs:
    """Random logits around the prior's and the assignment of random boxes."""
    device = torch.device(options.device)
    config = build_config("resnet50", "float32", options.batch)
    anchors_A4 = pyramid_anchors(canvas, build_anchor_spec(config.model), device).boxes_A4
    rng = np.random.default_rng(0)
    truth = [random_targets(rng, BOXES, canvas, options.classes) for _ in range(options.batch)]
    truth = [type(targets)(*(tensor.to(device) for tensor in targets)) for targets in truth]
    assigned = [assign(anchors_A4, targets, build_assign_rule(config)) for targets in truth]
    labels_BA = torch.stack([one.labels_A for one in assigned])
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((*labels_BA.shape, options.classes), generator=generator) * 0.8 - 4.6
    positives_B = (labels_BA >= 0).sum(dim=1).clamp(min=1).float()
    boxes_P4 = torch.cat([t.boxes_G4[a.matched_A[a.labels_A >= 0]] for t, a in zip(truth, assigned, strict=True)])
    targets = ClassTargets(
        labels_BA,
        positives_B * options.batch,
        options.batch,
        torch.arange(options.batch),
        anchors_A4,
        torch.zeros((*labels_BA.shape, 4), device=device),
        boxes_P4,
        torch.zeros(len(boxes_P4), device=device),
    )
    # torchvision's codes are ours: -1 background, -2 ignored.
    matched = [torch.where(one.labels_A >= 0, one.matched_A, one.labels_A) for one in assigned]
    logits_BAK = logits.to(device, DTYPES[precision]).requires_grad_()
    return LossInputs(logits_BAK, targets, matched, [{"labels": t.classes_G} for t in truth])


def _ours(precision: Precision, canvas: tuple[int, int], options: Options) -> Running:
    inputs = make_inputs(precision, canvas, options)
    loss = build_criterion(build_config("resnet50", "float32", options.batch)).class_loss

    def step() -> tuple[Tensor, Tensor]:
        value = loss.value(inputs.logits_BAK, inputs.targets).sum()
        return value.detach(), torch.autograd.grad(value, inputs.logits_BAK)[0]

    return Running(as_in_a_run(step))


def _theirs(precision: Precision, canvas: tuple[int, int], options: Options) -> Running:
    inputs = make_inputs(precision, canvas, options)
    head = RetinaNetClassificationHead(8, 9, options.classes)

    def step() -> tuple[Tensor, Tensor]:
        value = head.compute_loss(inputs.labels, {"cls_logits": inputs.logits_BAK}, inputs.matched)
        return value.detach(), torch.autograd.grad(value, inputs.logits_BAK)[0]

    return Running(step)


def _has_goal(precision: Precision, options: Options) -> bool:
    return precision == "float32" and options.device == "cpu" and not options.quick
