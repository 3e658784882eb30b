"""Part `train`: one optimizer step, targets and update included."""

import torch

from benchmarks.contest import Contest, Contestant, Precision, Running
from benchmarks.networks import build_field, finite_losses
from benchmarks.options import Options
from benchmarks.ours import LEARNING_RATE, as_in_a_run, build_training, one_update
from benchmarks.scenes import random_batch
from benchmarks.theirs import (
    AMP,
    AS_SHIPPED,
    BFLOAT16_LAST,
    COMPILED,
    Variant,
    build_peer,
    prepared,
    training_step,
)
from retinanet.compile import compile_network

NOT_SAME = (
    "Each draws its own random weights. Ours takes bytes and also measures the gradient's norm and checks that it is "
    "finite; torchvision's takes float32 pixels and resizes them to the size that they have."
)

CPU_GOALS = {
    ("ours bfloat16", AS_SHIPPED.name): 4.0,
    ("ours bfloat16", BFLOAT16_LAST.name): 1.3,
    ("ours float32", AS_SHIPPED.name): 1.3,
}
CUDA_GOALS = {("ours bfloat16", AMP.name): 2.0, ("ours bfloat16", COMPILED.name): 1.3}


def build_contest(options: Options) -> Contest:
    """Training steps of ours, of torchvision's variants and of the files of --against."""
    device = torch.device(options.device)
    backbone = "resnet18" if options.quick else "resnet50"
    field = build_field(
        options,
        lambda precision: _ours(backbone, precision, options, device),
        lambda variant: _theirs(backbone, variant, options, device),
        {} if options.quick else CUDA_GOALS if options.device == "cuda" else CPU_GOALS,
    )
    height, width = options.size
    return Contest(
        part="train",
        what=f"One training step (targets, forward, losses, backward, SGD) of a {backbone} RetinaNet with "
        f"{options.classes} classes on {options.batch} images of {height} x {width} random pixels with 8 boxes each, "
        f"random weights, stem and first stage fixed, batch norms frozen, torchvision's rules throughout.",
        contestants=field.contestants,
        comparisons=field.comparisons,
        not_same=NOT_SAME,
        check=finite_losses,
        items=options.batch,
        repeats=7,
        flops_of=field.flops_of,
        memory="whole",
    )


def _ours(backbone: str, precision: Precision, options: Options, device: torch.device) -> Contestant:
    def build() -> Running:
        state, parts = build_training(backbone, precision, options.batch, options.classes, device)
        if options.compile:
            compile_network(state.model, say=lambda _: None)
        step = one_update(state, parts)
        batch = random_batch(options.size, options.batch, options.classes)
        return Running(as_in_a_run(lambda: step(batch)))

    name = f"ours {precision}" + " compiled" * options.compile
    return Contestant(name, ours=True, precision=precision, build=build)


def _theirs(backbone: str, variant: Variant, options: Options, device: torch.device) -> Contestant:
    def build() -> Running:
        model = prepared(build_peer(backbone, options.size, options.classes, device), variant)
        batch = random_batch(options.size, options.batch, options.classes)
        return Running(training_step(model, batch, variant, device, LEARNING_RATE))

    return Contestant(variant.name, ours=False, precision=variant.precision, build=build)
