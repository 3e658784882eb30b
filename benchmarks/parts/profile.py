"""Part `profile`: what a training step of ours takes its time for."""

from collections.abc import Callable
from typing import TypeVar
from unittest.mock import patch

import torch
from torch import nn

from benchmarks.contest import Contest, Contestant, Precision, Running
from benchmarks.groups import ASSIGNMENT, BOX_LOSS, CLASS_LOSS, UPDATE, in_group
from benchmarks.networks import finite_losses
from benchmarks.options import Options
from benchmarks.ours import as_in_a_run, build_training, one_update, own_precisions
from benchmarks.scenes import random_batch
from retinanet.training import step as training_step

Result = TypeVar("Result")


def build_contest(options: Options) -> Contest:
    """Training steps of ours, as in part `train`, that are taken apart after they were timed."""
    device = torch.device(options.device)
    backbone = "resnet18" if options.quick else "resnet50"
    own = own_precisions(device)
    height, width = options.size
    return Contest(
        part="profile",
        what=f"What one training step of a {backbone} RetinaNet with {options.classes} classes on {options.batch} "
        f"images of {height} x {width} random pixels takes its time for: part train's step, first timed without the "
        "profiler. Losses with their backward pass; the box loss also with both losses' sums.",
        contestants=tuple(_ours(backbone, precision, options, device) for precision in own),
        comparisons=(),
        not_same="",
        check=finite_losses,
        items=options.batch,
        repeats=3,
        flops_of=f"ours {own[0]}",
        profiled=True,
    )


def _ours(backbone: str, precision: Precision, options: Options, device: torch.device) -> Contestant:
    def build() -> Running:
        state, parts = build_training(backbone, precision, options.batch, options.classes, device)
        step = one_update(state, with_class_loss_named(parts))
        batch = random_batch(options.size, options.batch, options.classes)
        return Running(as_in_a_run(with_calls_named(lambda: step(batch))))

    return Contestant(f"ours {precision}", ours=True, precision=precision, build=build)


def with_class_loss_named(parts: training_step.StepParts) -> training_step.StepParts:
    """`parts` with a class loss whose work the profiler can tell."""
    loss = parts.criterion.class_loss
    named = loss._replace(value=in_group(CLASS_LOSS)(loss.value))
    return parts._replace(criterion=parts.criterion._replace(class_loss=named))


def with_calls_named(step: Callable[[], Result]) -> Callable[[], Result]:
    """`step` with ranges around the calls that it makes of these functions, from outside: training has none."""
    clip = nn.utils.clip_grad_norm_

    def within() -> Result:
        with (
            patch.object(training_step, "assign_batch", in_group(ASSIGNMENT)(training_step.assign_batch)),
            patch.object(training_step, "criterion", in_group(BOX_LOSS)(training_step.criterion)),
            patch.object(nn.utils, "clip_grad_norm_", in_group(UPDATE)(clip)),
        ):
            return step()

    return within
