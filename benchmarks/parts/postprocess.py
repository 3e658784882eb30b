"""Part `postprocess`: raw outputs to detections.

Legend: B images, A anchors, K classes, D detections of an image.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet

from benchmarks.contest import Comparison, Contest, Contestant, Running
from benchmarks.options import Options
from benchmarks.ours import as_in_a_run, build_config
from retinanet.build import build_anchor_spec
from retinanet.detection.anchors import Pyramid, pyramid_anchors
from retinanet.detection.postprocess import detect
from retinanet.evaluation.detector import build_detector

CANVAS, QUICK_CANVAS = (800, 800), (256, 256)
CANDIDATES, QUICK_CANDIDATES = 3000, 300
IMAGES = 2
NOT_SAME = "Ours also scales boxes to the stored image's frame, which has the same size here."


class Outputs(NamedTuple):
    """What a network said of a batch."""

    logits_BAK: Tensor
    deltas_BA4: Tensor
    pyramid: Pyramid


class _NoBackbone(nn.Module):
    """torchvision's RetinaNet asks a backbone for its width; nothing runs here."""

    out_channels = 8


def build_contest(options: Options) -> Contest:
    """Post-processing of the same random outputs."""
    canvas = QUICK_CANVAS if options.quick else CANVAS
    wanted = QUICK_CANDIDATES if options.quick else CANDIDATES
    outputs = make_outputs(canvas, wanted, options)
    anchors, elements = outputs.logits_BAK.shape[1], outputs.logits_BAK.numel()
    return Contest(
        part="postprocess",
        what=f"Raw outputs to detections for {IMAGES} x {anchors:,} anchors x {options.classes} classes "
        f"({canvas[0]} x {canvas[1]} pixels), {wanted:,} candidates an image above 0.05, the best 1,000 of each level, "
        "NMS at 0.5, 100 detections. The least to do: read each logit once.",
        contestants=(
            Contestant("ours", True, "float32", lambda: _ours(outputs, canvas)),
            Contestant("torchvision", False, "float32", lambda: _theirs(outputs, canvas, options)),
        ),
        comparisons=(
            Comparison("ours", "torchvision", at_least=3.5 if options.device == "cpu" and not options.quick else None),
        ),
        not_same=NOT_SAME,
        check=same_detections,
        items=IMAGES,
        repeats=15,
        warmups=2,
        floor_bytes={"float32": elements * outputs.logits_BAK.element_size()},
        memory="extra",
    )


def make_outputs(canvas: tuple[int, int], wanted: int, options: Options) -> Outputs:
    """Gaussian logits of which `wanted` an image pass the threshold, and small deltas."""
    device = torch.device(options.device)
    pyramid = pyramid_anchors(canvas, build_anchor_spec(build_config("resnet50", "float32", 1).model), device)
    generator = torch.Generator().manual_seed(0)
    logits_BAK = torch.randn((IMAGES, len(pyramid.boxes_A4), options.classes), generator=generator) * 1.5
    passing = logits_BAK.flatten().topk(wanted * IMAGES).values[-1]
    logits_BAK += torch.logit(torch.tensor(0.05)) - passing
    deltas_BA4 = torch.randn((IMAGES, len(pyramid.boxes_A4), 4), generator=generator) * 0.2
    return Outputs(logits_BAK.to(device), deltas_BA4.to(device), pyramid)


def same_detections(results: Mapping[str, Any]) -> str:
    """Boxes to 0.01 pixels, scores to 1e-5, classes exactly."""
    if len(results) < 2:
        return ""
    for ours, theirs in zip(results["ours"], results["torchvision"], strict=True):
        torch.testing.assert_close(ours.classes_D, theirs["labels"])
        torch.testing.assert_close(ours.scores_D, theirs["scores"], rtol=0, atol=1e-5)
        torch.testing.assert_close(ours.boxes_D4, theirs["boxes"], rtol=0, atol=0.01)
    return f"the {sum(len(found.scores_D) for found in results['ours'])} detections are the same"


def _ours(outputs: Outputs, canvas: tuple[int, int]) -> Running:
    detector = build_detector(build_config("resnet50", "float32", 1), nn.Identity(), outputs.logits_BAK.device)
    sizes_B2 = torch.tensor([canvas] * IMAGES, device=outputs.logits_BAK.device)

    def step() -> object:
        raw = (outputs.logits_BAK, outputs.deltas_BA4)
        return detect(*raw, outputs.pyramid, sizes_B2, sizes_B2, detector.rule, detector.scoring)

    return Running(as_in_a_run(step))


def _theirs(outputs: Outputs, canvas: tuple[int, int], options: Options) -> Running:
    model = RetinaNet(_NoBackbone(), options.classes, detections_per_img=100).eval()
    levels = list(outputs.pyramid.level_sizes)
    named = {"cls_logits": outputs.logits_BAK, "bbox_regression": outputs.deltas_BA4}
    split = {name: list(tensor.split(levels, dim=1)) for name, tensor in named.items()}
    anchors = [list(outputs.pyramid.boxes_A4.split(levels)) for _ in range(IMAGES)]

    @torch.no_grad()
    def step() -> object:
        return model.postprocess_detections(split, anchors, [canvas] * IMAGES)

    return Running(step)
