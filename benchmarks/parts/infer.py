"""Part `infer`: from pixels to detections in the image's own frame."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.contest import Contest, Contestant, Precision, Running
from benchmarks.networks import build_field
from benchmarks.options import Options
from benchmarks.ours import as_in_a_run, build_config
from benchmarks.scenes import random_batch
from benchmarks.theirs import AS_SHIPPED, BFLOAT16_LAST, Variant, autocast, build_peer, images_of, prepared
from retinanet.build import build_loss_and_model, build_pixel_rule
from retinanet.data.transforms import normalise
from retinanet.evaluation.detector import build_detector
from retinanet.structures import Batch

CANDIDATES = 3000
"""(anchor, class) pairs above the threshold in each image, about what a trained network has; in `--quick` fewer."""

THRESHOLD = 0.05
SPREAD = 1.5
"""Standard deviation that the random network's logits are stretched to."""

NOT_SAME = (
    "Each draws its own random weights, with class biases that give all the same number of candidates. Ours takes "
    "bytes; torchvision's takes float32 pixels and resizes them to the size that they have."
)
GOALS = {("ours bfloat16", AS_SHIPPED.name): 5.0, ("ours bfloat16", BFLOAT16_LAST.name): 2.0}


def build_contest(options: Options) -> Contest:
    """Inference of ours, of torchvision's variants and of the files of --against."""
    device = torch.device(options.device)
    backbone = "resnet18" if options.quick else "resnet50"
    wanted = 300 if options.quick else CANDIDATES
    field = build_field(
        options,
        lambda precision: _ours(backbone, precision, wanted, options, device),
        lambda variant: _theirs(backbone, variant, wanted, options, device),
        {} if options.quick or options.device != "cpu" else GOALS,
    )
    height, width = options.size
    return Contest(
        part="infer",
        what=f"Forward and post-processing of a {backbone} RetinaNet with {options.classes} classes on {options.batch} "
        f"images of {height} x {width} random pixels; {wanted:,} candidates an image above a score of {THRESHOLD}, the "
        "best 1,000 of each level, NMS at 0.5, 100 detections.",
        contestants=field.contestants,
        comparisons=field.comparisons,
        not_same=NOT_SAME,
        check=found_detections,
        items=options.batch,
        repeats=9,
        flops_of=field.flops_of,
        memory="whole",
    )


def found_detections(results: Mapping[str, Any]) -> str:
    """Every one of ours and of torchvision's must detect about as much."""
    counts = {name: count for name, count in results.items() if count is not None}
    assert all(counts.values()), f"nothing is detected: {counts}"
    return f"detections of all images: {', '.join(f'{name} {count}' for name, count in counts.items())}"


@torch.no_grad()
def spread_logits(layer: nn.Conv2d, logits_of: Callable[[], Tensor], wanted: int) -> None:
    """Scale and shift a class head's last layer so that `wanted` of its logits pass the threshold."""
    assert layer.bias is not None
    layer.bias.zero_()
    logits = logits_of().float().flatten()
    factor = SPREAD / float(logits.std())
    passing = float(logits.topk(min(wanted + 1, len(logits))).values[-1]) * factor
    layer.weight.mul_(factor)
    layer.bias.fill_(math.log(THRESHOLD / (1 - THRESHOLD)) - passing)


def _ours(backbone: str, precision: Precision, wanted: int, options: Options, device: torch.device) -> Contestant:
    def build() -> Running:
        config = build_config(backbone, precision, options.batch)
        torch.manual_seed(0)
        _, model = build_loss_and_model(config, options.classes)
        model = model.to(device).eval()
        batch = random_batch(options.size, options.batch, options.classes)
        rule = build_pixel_rule(config)
        pixels = normalise(batch.images.to(device), batch.sizes_B2.to(device), rule, config.model.channels_last)
        spread_logits(model.class_head.predict, lambda: model(pixels).logits_BAK, wanted * options.batch)
        detector = build_detector(config, model, device)
        return Running(as_in_a_run(lambda: sum(len(found.scores_D) for found in detector(batch))))

    return Contestant(f"ours {precision}", ours=True, precision=precision, build=build)


def _theirs(backbone: str, variant: Variant, wanted: int, options: Options, device: torch.device) -> Contestant:
    def build() -> Running:
        model = build_peer(backbone, options.size, options.classes, device).eval()
        batch = random_batch(options.size, options.batch, options.classes)

        def logits() -> Tensor:
            images, _ = model.transform(images_of(batch, device))
            return model.head(list(model.backbone(images.tensors).values()))["cls_logits"]

        spread_logits(model.head.classification_head.cls_logits, logits, wanted * options.batch)
        return Running(_inference(prepared(model, variant), batch, variant, device))

    return Contestant(variant.name, ours=False, precision=variant.precision, build=build)


def _inference(model: nn.Module, batch: Batch, variant: Variant, device: torch.device) -> Callable[[], int]:
    images = images_of(batch, torch.device("cpu"))

    @torch.no_grad()
    def step() -> int:
        with autocast(variant, device):
            return sum(len(found["scores"]) for found in model([image.to(device) for image in images]))

    return step
