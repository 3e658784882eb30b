"""Parts `loss`, `assign` and `postprocess`: one function of training or inference each, on generated inputs.

Legend: B images, A anchors, K classes, D detections of an image, 4 = (x1, y1, x2, y2) pixels or deltas.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.retinanet import RetinaNetClassificationHead
from torchvision.ops import box_iou

from benchmarks.contest import Comparison, Contest, Contestant, Precision, Stretch, ready
from benchmarks.machine import DTYPES
from benchmarks.options import Options
from benchmarks.project import as_in_a_run, build_config, own_precisions
from benchmarks.scenes import random_targets
from retinanet.build.losses import build_criterion
from retinanet.build.network import build_anchor_spec
from retinanet.build.rules import build_assign_rule
from retinanet.detection.anchors import Pyramid, pyramid_anchors
from retinanet.detection.assign import assign, assign_batch
from retinanet.detection.postprocess import detect
from retinanet.evaluation.detector import build_detector
from retinanet.structures import ClassTargets, Targets

CANVAS, QUICK_CANVAS = (512, 512), (192, 192)
BOXES, CROWD = 8, 300
"""Boxes of an ordinary image and of a crowded one."""

LOSS_TOLERANCE: dict[Precision, float] = {"float32": 1e-4, "bfloat16": 5e-2}
"""Largest relative difference of value and of gradient, by the logits' type; torchvision sums in that type."""

DETECT_CANVAS, QUICK_DETECT_CANVAS = (800, 800), (256, 256)
DETECT_IMAGES = 2


class LossInputs(NamedTuple):
    """One batch's logits and the targets of its anchors, in both projects' terms."""

    logits_BAK: Tensor
    targets: ClassTargets
    matched: list[Tensor]
    """(A,) for each image: index of the box, -1 background, -2 ignored."""
    labels: list[dict[str, Tensor]]


class Outputs(NamedTuple):
    """A network's outputs for a batch."""

    logits_BAK: Tensor
    deltas_BA4: Tensor
    pyramid: Pyramid


def build_loss(options: Options) -> Contest:
    """Class losses in the logits' types that training meets."""
    (anchors_A4, _), _ = _scene(options, BOXES)
    own = own_precisions(torch.device(options.device))
    elements = options.batch * len(anchors_A4) * options.classes
    has_goals = options.device == "cpu" and not options.quick
    contestants: list[Contestant] = []
    comparisons = []
    for precision in own:
        ours, peer = f"ours {precision}", f"torchvision {precision}"
        contestants += [
            Contestant(ours, ours=True, precision=precision, build=partial(_our_loss, precision, options)),
            Contestant(peer, ours=False, precision=precision, build=partial(_torchvision_loss, precision, options)),
        ]
        goals = (12.0, 0.25) if precision == "float32" and has_goals else (None, None)
        comparisons.append(Comparison(ours, peer, at_least=goals[0], memory_at_most=goals[1]))
    return Contest(
        part="loss",
        what=f"Focal loss and its gradient for {options.batch} x {len(anchors_A4):,} x {options.classes} logits, from "
        f"logits and matched anchors ({BOXES} boxes an image). Minimum work: read each logit once, write its gradient.",
        contestants=tuple(contestants),
        comparisons=tuple(comparisons),
        not_same="Ours gives each anchor's own loss, in float32; torchvision's head gives one number, in the logits' "
        "type. Both divide each image by its positives and by the images.",
        check=same_losses,
        repeats=15,
        warmups=2,
        floor_bytes={precision: 2 * elements * DTYPES[precision].itemsize for precision in own},
        memory="extra",
    )


def same_losses(results: Mapping[str, Any]) -> str:
    """Value and gradient of both agree for each type of logits that both ran."""
    equal = []
    for precision, tolerance in LOSS_TOLERANCE.items():
        ours, peer = results.get(f"ours {precision}"), results.get(f"torchvision {precision}")
        if ours is None or peer is None:
            continue
        (value, gradient), (peer_value, peer_gradient) = ours, peer
        torch.testing.assert_close(value, peer_value.float(), rtol=tolerance, atol=0.0)
        scale = float(peer_gradient.float().abs().max())
        torch.testing.assert_close(gradient.float(), peer_gradient.float(), rtol=tolerance, atol=tolerance * scale)
        equal.append(f"{precision} to {tolerance:g}")
    return f"value and gradient are equal ({', '.join(equal)})" if equal else ""


def make_loss_inputs(precision: Precision, options: Options) -> LossInputs:
    """Random logits around the prior's and the assignment of random boxes."""
    pyramid, truth = _scene(options, BOXES)
    anchors_A4 = pyramid.boxes_A4
    device = anchors_A4.device
    rule = build_assign_rule(build_config("resnet50", "float32", options.batch))
    assigned = [assign(pyramid, targets, rule) for targets in truth]
    labels_BA = torch.stack([one.labels_A for one in assigned])
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn((*labels_BA.shape, options.classes), generator=generator) * 0.8 - 4.6
    positives_B = (labels_BA >= 0).sum(dim=1).clamp(min=1).float()
    boxes_P4 = torch.cat([t.boxes_G4[a.matched_A[a.labels_A >= 0]] for t, a in zip(truth, assigned, strict=True)])
    targets = ClassTargets(
        labels_BA=labels_BA,
        normaliser_B=positives_B * options.batch,
        images=options.batch,
        seeds_B=torch.arange(options.batch),
        anchors_A4=anchors_A4,
        deltas_BA4=torch.zeros((*labels_BA.shape, 4), device=device),
        boxes_P4=boxes_P4,
        box_loss_P=torch.zeros(len(boxes_P4), device=device),
    )
    # torchvision's codes are this project's: -1 background, -2 ignored.
    matched = [torch.where(one.labels_A >= 0, one.matched_A, one.labels_A) for one in assigned]
    logits_BAK = logits.to(device, DTYPES[precision]).requires_grad_()
    return LossInputs(
        logits_BAK=logits_BAK, targets=targets, matched=matched, labels=[{"labels": t.classes_G} for t in truth]
    )


def _our_loss(precision: Precision, options: Options) -> Stretch:
    inputs = make_loss_inputs(precision, options)
    loss = build_criterion(build_config("resnet50", "float32", options.batch)).class_loss

    def step() -> tuple[Tensor, Tensor]:
        value = loss.value(inputs.logits_BAK, inputs.targets).sum()
        return value.detach(), torch.autograd.grad(value, inputs.logits_BAK)[0]

    return ready(as_in_a_run(step))


def _torchvision_loss(precision: Precision, options: Options) -> Stretch:
    inputs = make_loss_inputs(precision, options)
    head = RetinaNetClassificationHead(8, 9, options.classes)

    def step() -> tuple[Tensor, Tensor]:
        value = head.compute_loss(inputs.labels, {"cls_logits": inputs.logits_BAK}, inputs.matched)
        return value.detach(), torch.autograd.grad(value, inputs.logits_BAK)[0]

    return ready(step)


def build_assign(options: Options) -> Contest:
    """Assignments of ordinary images and of crowded ones."""
    (anchors_A4, _), _ = _scene(options, BOXES)
    contestants: list[Contestant] = []
    for boxes in (BOXES, CROWD):
        ours, peer = partial(_our_assignment, boxes, options), partial(_torchvision_assignment, boxes, options)
        contestants += [
            Contestant(f"ours, {boxes} boxes", ours=True, precision="float32", build=ours),
            Contestant(f"torchvision, {boxes} boxes", ours=False, precision="float32", build=peer),
        ]
    return Contest(
        part="assign",
        what=f"Assignment of {len(anchors_A4):,} anchors in {options.batch} images with {BOXES} or {CROWD} boxes each: "
        "positive from IoU 0.5, background below 0.4, and each box's best anchors.",
        contestants=tuple(contestants),
        comparisons=tuple(Comparison(f"ours, {b} boxes", f"torchvision, {b} boxes") for b in (BOXES, CROWD)),
        not_same="Ours also looks up each anchor's class and each positive's box, which torchvision's losses do later.",
        check=same_labels,
        repeats=15,
        memory="extra",
    )


def same_labels(results: Mapping[str, Any]) -> str:
    """Every anchor's label is the same."""
    compared = [b for b in (BOXES, CROWD) if {f"ours, {b} boxes", f"torchvision, {b} boxes"} <= results.keys()]
    for boxes in compared:
        labels_BA, (matched_BA, classes) = results[f"ours, {boxes} boxes"], results[f"torchvision, {boxes} boxes"]
        pairs = zip(matched_BA, classes, strict=True)
        peer_BA = torch.stack([torch.where(m >= 0, c[m.clamp(min=0)], m) for m, c in pairs])
        torch.testing.assert_close(labels_BA, peer_BA, rtol=0, atol=0)
    return "every anchor's label is the same" if compared else ""


def _our_assignment(boxes: int, options: Options) -> Stretch:
    pyramid, targets = _scene(options, boxes)
    rule = build_assign_rule(build_config("resnet50", "float32", options.batch))
    return ready(as_in_a_run(lambda: assign_batch(pyramid, targets, rule).labels_BA))


def _torchvision_assignment(boxes: int, options: Options) -> Stretch:
    pyramid, targets = _scene(options, boxes)
    matcher = Matcher(0.5, 0.4, allow_low_quality_matches=True)

    def step() -> tuple[list[Tensor], list[Tensor]]:
        matched = [matcher(box_iou(one.boxes_G4, pyramid.boxes_A4)) for one in targets]
        return matched, [one.classes_G for one in targets]

    return ready(step)


def build_postprocess(options: Options) -> Contest:
    """Post-processing of the same random outputs."""
    canvas, wanted = (QUICK_DETECT_CANVAS, 300) if options.quick else (DETECT_CANVAS, 3000)
    outputs = make_outputs(canvas, wanted, options)
    goal = 3.5 if options.device == "cpu" and not options.quick else None
    return Contest(
        part="postprocess",
        what=f"Raw outputs to detections for {DETECT_IMAGES} x {outputs.logits_BAK.shape[1]:,} anchors x "
        f"{options.classes} classes ({canvas[0]} x {canvas[1]} pixels), {wanted:,} candidates an image above 0.05, the "
        "best 1,000 of each level, NMS at 0.5, 100 detections. Minimum work: read each logit once.",
        contestants=(
            Contestant("ours", ours=True, precision="float32", build=lambda: _our_detections(outputs, canvas)),
            Contestant(
                "torchvision",
                ours=False,
                precision="float32",
                build=lambda: _torchvision_detections(outputs, canvas, options),
            ),
        ),
        comparisons=(Comparison("ours", "torchvision", at_least=goal),),
        not_same="Ours also scales boxes to the stored image's frame, which has the same size here.",
        check=same_detections,
        items=DETECT_IMAGES,
        repeats=15,
        warmups=2,
        floor_bytes={"float32": outputs.logits_BAK.nbytes},
        memory="extra",
    )


def make_outputs(canvas: tuple[int, int], wanted: int, options: Options) -> Outputs:
    """Gaussian logits of which `wanted` an image pass the threshold, and small deltas."""
    pyramid = _pyramid(canvas, options)
    generator = torch.Generator().manual_seed(0)
    logits_BAK = torch.randn((DETECT_IMAGES, len(pyramid.boxes_A4), options.classes), generator=generator) * 1.5
    passing = logits_BAK.flatten().topk(wanted * DETECT_IMAGES).values[-1]
    logits_BAK += torch.logit(torch.tensor(0.05)) - passing
    deltas_BA4 = torch.randn((DETECT_IMAGES, len(pyramid.boxes_A4), 4), generator=generator) * 0.2
    return Outputs(logits_BAK.to(options.device), deltas_BA4.to(options.device), pyramid)


def same_detections(results: Mapping[str, Any]) -> str:
    """Boxes to 0.01 pixels, scores to 1e-5, classes exactly."""
    if len(results) < 2:
        return ""
    for found, peer in zip(results["ours"], results["torchvision"], strict=True):
        torch.testing.assert_close(found.classes_D, peer["labels"])
        torch.testing.assert_close(found.scores_D, peer["scores"], rtol=0, atol=1e-5)
        torch.testing.assert_close(found.boxes_D4, peer["boxes"], rtol=0, atol=0.01)
    return f"the {sum(len(found.scores_D) for found in results['ours'])} detections are the same"


def _our_detections(outputs: Outputs, canvas: tuple[int, int]) -> Stretch:
    detector = build_detector(build_config("resnet50", "float32", 1), nn.Identity(), outputs.logits_BAK.device)
    sizes_B2 = torch.tensor([canvas] * DETECT_IMAGES, device=outputs.logits_BAK.device)

    def step() -> object:
        raw = (outputs.logits_BAK, outputs.deltas_BA4)
        return detect(*raw, outputs.pyramid, sizes_B2, sizes_B2, detector.rule, detector.scoring)

    return ready(as_in_a_run(step))


class _NoBackbone(nn.Module):
    """torchvision's RetinaNet asks a backbone for its width; nothing runs here."""

    out_channels = 8


def _torchvision_detections(outputs: Outputs, canvas: tuple[int, int], options: Options) -> Stretch:
    model = RetinaNet(_NoBackbone(), options.classes, detections_per_img=100).eval()
    levels = list(outputs.pyramid.level_sizes)
    named = {"cls_logits": outputs.logits_BAK, "bbox_regression": outputs.deltas_BA4}
    split = {name: list(tensor.split(levels, dim=1)) for name, tensor in named.items()}
    anchors = [list(outputs.pyramid.boxes_A4.split(levels)) for _ in range(DETECT_IMAGES)]

    @torch.no_grad()
    def step() -> object:
        return model.postprocess_detections(split, anchors, [canvas] * DETECT_IMAGES)

    return ready(step)


def _pyramid(canvas: tuple[int, int], options: Options) -> Pyramid:
    spec = build_anchor_spec(build_config("resnet50", "float32", 1).model)
    return pyramid_anchors(canvas, spec, torch.device(options.device))


def _scene(options: Options, boxes: int) -> tuple[Pyramid, list[Targets]]:
    """Anchors of a canvas, and random boxes for each image of a batch, on the device."""
    canvas, rng = QUICK_CANVAS if options.quick else CANVAS, np.random.default_rng(0)
    made = [random_targets(rng, boxes, canvas, options.classes) for _ in range(options.batch)]
    targets = [Targets(*(tensor.to(options.device) for tensor in one)) for one in made]
    return _pyramid(canvas, options), targets
