"""Parts `train`, `infer` and `profile`: whole networks on random pixels.

Legend: B images, A anchors, K classes.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks.breakdown import ASSIGNMENT, BOX_LOSS, CLASS_LOSS, UPDATE, in_group
from benchmarks.contest import Comparison, Contest, Contestant, Precision, Stretch, ready
from benchmarks.options import TORCHVISION, Options
from benchmarks.peers import (
    AMP,
    AS_SHIPPED,
    BFLOAT16_LAST,
    COMPILED,
    Variant,
    build_peer,
    foreign_contestant,
    images_of,
    inference_step,
    training_step,
    variants,
)
from benchmarks.project import LEARNING_RATE, as_in_a_run, build_config, build_training, one_update, own_precisions
from benchmarks.scenes import random_batch
from retinanet.build.network import build_loss_and_model
from retinanet.build.rules import build_pixel_rule
from retinanet.compile import build_backend, compile_network
from retinanet.data.transforms import normalise
from retinanet.evaluation.detector import build_detector
from retinanet.structures import Batch
from retinanet.training import step as step_module

Goals = Mapping[tuple[Precision, str], float]
"""(this project's precision, peer) -> least ratio."""

TRAIN_GOALS: Goals = {
    ("bfloat16", AS_SHIPPED.name): 4.0,
    ("bfloat16", BFLOAT16_LAST.name): 1.3,
    ("float32", AS_SHIPPED.name): 1.3,
}
TRAIN_GOALS_ON_CUDA: Goals = {("bfloat16", AMP.name): 2.0, ("bfloat16", COMPILED.name): 1.3}
INFER_GOALS: Goals = {("bfloat16", AS_SHIPPED.name): 5.0, ("bfloat16", BFLOAT16_LAST.name): 2.0}

CANDIDATES, QUICK_CANDIDATES = 3000, 300
"""(anchor, class) pairs above the threshold in each image; the first is about what a trained network has."""
THRESHOLD = 0.05
LOGITS_STD = 1.5
"""Standard deviation that the random network's logits are scaled to."""

Result = TypeVar("Result")


class Field(NamedTuple):
    """Who takes part, and who is compared with whom."""

    contestants: tuple[Contestant, ...]
    comparisons: tuple[Comparison, ...]
    flops_of: str | None
    """Whose operations a share of the peak is counted by; None: a compiled network's cannot be counted."""


def build_field(
    options: Options,
    ours: Callable[[Precision], Contestant],
    torchvision: Callable[[Variant], Contestant],
    goals: Goals,
) -> Field:
    """This project in each precision and all peers.

    In float32 it is compared with float32 alone, in bfloat16 with all variants, and in both with every file's model.
    """
    device = torch.device(options.device)
    precisions = own_precisions(device)
    known = variants(device, "bfloat16" in precisions) if TORCHVISION in options.against else ()
    files = [foreign_contestant(Path(peer), options) for peer in options.against if peer != TORCHVISION]
    own = {precision: ours(precision) for precision in precisions}
    comparisons = []
    for precision, contestant in own.items():
        for variant in known:
            if precision == "float32" != variant.precision:
                continue
            types = "" if precision == variant.precision else f"{precision} against {variant.precision}"
            not_same = "; ".join(text for text in (types, variant.not_same) if text)
            goal = goals.get((precision, variant.name))
            comparisons.append(Comparison(contestant.name, variant.name, not_same, at_least=goal))
        comparisons += [Comparison(contestant.name, file.name, "whatever that file does otherwise") for file in files]
    return Field(
        contestants=(*own.values(), *map(torchvision, known), *files),
        comparisons=tuple(comparisons),
        flops_of=AS_SHIPPED.name if known else None if options.compile else own[precisions[0]].name,
    )


def batch_of(options: Options) -> Batch:
    """The images of `train`, `infer` and `profile`."""
    return random_batch(options.size, options.batch, options.classes)


def build_train(options: Options) -> Contest:
    """Training steps of this project, of torchvision's variants and of the files of --against."""
    device = torch.device(options.device)

    def ours(precision: Precision) -> Contestant:
        def build() -> Stretch:
            state, parts = build_training(options.backbone(), precision, options.batch, options.classes, device)
            if options.compile:
                compile_network(state.model, build_backend(device, say=lambda _: None))
            step, batch = one_update(state, parts), batch_of(options)
            return ready(as_in_a_run(lambda: step(batch)))

        name = f"ours {precision}" + " compiled" * options.compile
        return Contestant(name, ours=True, precision=precision, build=build)

    def torchvision(variant: Variant) -> Contestant:
        def build() -> Stretch:
            model = build_peer(options, variant)
            return ready(training_step(model, batch_of(options), variant, device, LEARNING_RATE))

        return Contestant(variant.name, ours=False, precision=variant.precision, build=build)

    goals = {} if options.quick else TRAIN_GOALS_ON_CUDA if options.device == "cuda" else TRAIN_GOALS
    field = build_field(options, ours, torchvision, goals)
    height, width = options.size
    return Contest(
        part="train",
        what=f"One training step (targets, forward, losses, backward, SGD) of a {options.backbone()} RetinaNet with "
        f"{options.classes} classes on {options.batch} images of {height} x {width} random pixels with 8 boxes each, "
        f"random weights, stem and first stage fixed, batch norms frozen, torchvision's rules throughout.",
        contestants=field.contestants,
        comparisons=field.comparisons,
        not_same="Each draws its own random weights. Ours takes bytes and also measures the gradient's norm and checks "
        "that it is finite; torchvision's takes float32 pixels and resizes them to the size that they have.",
        check=finite_losses,
        items=options.batch,
        repeats=7,
        flops_of=field.flops_of,
        memory="whole",
    )


def finite_losses(results: Mapping[str, Any]) -> str:
    """Weights differ, so losses do too; each must be a number."""
    for name, value in results.items():
        assert value is None or math.isfinite(value), f"{name}: its loss is {value}"
    return ""


def build_infer(options: Options) -> Contest:
    """Inference of this project, of torchvision's variants and of the files of --against."""
    device = torch.device(options.device)
    wanted = QUICK_CANDIDATES if options.quick else CANDIDATES

    def ours(precision: Precision) -> Contestant:
        def build() -> Stretch:
            config = build_config(options.backbone(), precision, options.batch)
            torch.manual_seed(0)
            _, model = build_loss_and_model(config, options.classes)
            model, batch = model.to(device).eval(), batch_of(options)
            sizes_B2, rule = batch.sizes_B2.to(device), build_pixel_rule(config)
            pixels = normalise(batch.images.to(device), sizes_B2, rule, channels_last=True)
            scale_logits(model.class_head.predict, lambda: model(pixels).logits_BAK, wanted * options.batch)
            detector = build_detector(config, model, device)
            return ready(as_in_a_run(lambda: sum(len(found.scores_D) for found in detector(batch))))

        return Contestant(f"ours {precision}", ours=True, precision=precision, build=build)

    def torchvision(variant: Variant) -> Contestant:
        def build() -> Stretch:
            model, batch = build_peer(options, variant).eval(), batch_of(options)

            def logits() -> Tensor:
                images, _ = model.transform([image.to(device) for image in images_of(batch)])
                outputs: dict[str, Tensor] = model.head(list(model.backbone(images.tensors).values()))
                return outputs["cls_logits"]

            scale_logits(model.head.classification_head.cls_logits, logits, wanted * options.batch)
            return ready(inference_step(model, batch, variant, device))

        return Contestant(variant.name, ours=False, precision=variant.precision, build=build)

    goals = {} if options.quick or options.device != "cpu" else INFER_GOALS
    field = build_field(options, ours, torchvision, goals)
    height, width = options.size
    return Contest(
        part="infer",
        what=f"Forward and post-processing of a {options.backbone()} RetinaNet with {options.classes} classes on "
        f"{options.batch} images of {height} x {width} random pixels; {wanted:,} candidates an image above a score of "
        f"{THRESHOLD}, the best 1,000 of each level, NMS at 0.5, 100 detections.",
        contestants=field.contestants,
        comparisons=field.comparisons,
        not_same="Each draws its own random weights, with class biases that give all the same number of candidates. "
        "Ours takes bytes; torchvision's takes float32 pixels and resizes them to the size that they have.",
        check=found_detections,
        items=options.batch,
        repeats=9,
        flops_of=field.flops_of,
        memory="whole",
    )


def found_detections(results: Mapping[str, Any]) -> str:
    """This project's and torchvision's must all detect something."""
    counts = {name: count for name, count in results.items() if count is not None}
    assert all(counts.values()), f"nothing is detected: {counts}"
    return f"detections of all images: {', '.join(f'{name} {count}' for name, count in counts.items())}"


@torch.no_grad()
def scale_logits(layer: nn.Conv2d, logits_of: Callable[[], Tensor], wanted: int) -> None:
    """Scale and shift a class head's last layer so that `wanted` of its logits pass the threshold."""
    assert layer.bias is not None
    layer.bias.zero_()
    logits = logits_of().float().flatten()
    factor = LOGITS_STD / float(logits.std())
    passing = float(logits.topk(min(wanted + 1, len(logits))).values[-1]) * factor
    layer.weight.mul_(factor)
    layer.bias.fill_(math.log(THRESHOLD / (1 - THRESHOLD)) - passing)


def build_profile(options: Options) -> Contest:
    """Training steps of this project, as in part `train`, that are profiled after they were timed."""
    device = torch.device(options.device)
    precisions = own_precisions(device)

    def ours(precision: Precision) -> Contestant:
        def build() -> Stretch:
            state, parts = build_training(options.backbone(), precision, options.batch, options.classes, device)
            step, batch = one_update(state, with_class_loss_named(parts)), batch_of(options)
            return ready(as_in_a_run(with_calls_named(lambda: step(batch))))

        return Contestant(f"ours {precision}", ours=True, precision=precision, build=build)

    height, width = options.size
    return Contest(
        part="profile",
        what=f"Where one training step of a {options.backbone()} RetinaNet with {options.classes} classes on "
        f"{options.batch} images of {height} x {width} random pixels spends its time: part train's step, first timed "
        "without the profiler. Losses with their backward pass; the box loss also with both losses' sums.",
        contestants=tuple(ours(precision) for precision in precisions),
        check=finite_losses,
        items=options.batch,
        repeats=3,
        flops_of=f"ours {precisions[0]}",
        profiled=True,
    )


def with_class_loss_named(parts: step_module.StepParts) -> step_module.StepParts:
    """`parts` with a range around the class loss."""
    loss = parts.criterion.class_loss
    named = loss._replace(value=in_group(CLASS_LOSS)(loss.value))
    return parts._replace(criterion=parts.criterion._replace(class_loss=named))


def with_calls_named(step: Callable[[], Result]) -> Callable[[], Result]:
    """`step` with ranges around its calls of these functions, from outside: training itself has none."""
    groups = {(step_module, "assign_batch"): ASSIGNMENT, (step_module, "criterion"): BOX_LOSS}
    groups |= {(nn.utils, "clip_grad_norm_"): UPDATE}

    def within() -> Result:
        with ExitStack() as stack:
            for (module, name), group in groups.items():
                stack.enter_context(patch.object(module, name, in_group(group)(getattr(module, name))))
            return step()

    return within
