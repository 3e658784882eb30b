"""One optimizer step: targets, positives, gradients, their checks, the update.

Legend: B images of a micro-batch, A anchors, P positive anchors, R ranks. A step is one update over the effective
batch: all ranks and all accumulated micro-batches.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from retinanet import distributed
from retinanet.data.transforms import PixelRule, network_input
from retinanet.data.upload import to_device
from retinanet.detection.anchors import AnchorSpec, Pyramid, pyramid_anchors
from retinanet.detection.assign import AnyAssignRule, BatchAssignment, assign_batch
from retinanet.distributed import Ranks
from retinanet.errors import NumericalError
from retinanet.losses.criterion import (
    Criterion,
    Divisor,
    Normaliser,
    StepPositives,
    criterion,
    image_seeds,
    move_running,
    normaliser,
)
from retinanet.run.interrupts import StopRequest
from retinanet.structures import Batch
from retinanet.training.state import TrainState, apply_gradients, clip_gradients

MOST_SKIPPED = 25
"""Updates in a row that float16 loss scaling may skip: each halves the scale, which begins at 65,536."""


class StepParts(NamedTuple):
    """What a step needs besides the network and the images; fixed for a run."""

    anchors: AnchorSpec
    rule: AnyAssignRule
    criterion: Criterion
    normaliser: Normaliser
    clip_norm: float | None
    precision: torch.dtype
    channels_last: bool
    pixels: PixelRule
    seed: int
    device: torch.device
    ranks: Ranks


class MicroBatch(NamedTuple):
    """Images of one forward pass, on the device, with assigned targets."""

    batch: Batch
    anchors_A4: Tensor
    """(A, 4) float32, xyxy in the canvas frame."""
    assignment: BatchAssignment
    positives_B: Tensor
    """(B,) int64, positive anchors of each image."""
    seeds_B: Tensor
    """(B,) int64 on the CPU, for class losses that draw anchors at random."""


class StepCounts(NamedTuple):
    """What all ranks need to know before the first forward pass."""

    positives: StepPositives
    asked_2: Tensor
    """(2,) int64: number of ranks that a signal has asked to stop, and to save."""


class LossSums(NamedTuple):
    """Losses of a step on this rank, detached."""

    sums_3: Tensor
    """(3,) float32: see `Losses.sums`."""
    finite_B: Tensor
    """(B of all micro-batches,) bool: images whose losses are finite."""
    logits: int
    """Class outputs of all these images."""


class StepResult(NamedTuple):
    """Result of a step for the log and the loop."""

    values: dict[str, float]
    """loss, loss_class, loss_box, grad_norm, positives_per_image, anchors_per_image, logits_per_image (the last two of
    this rank), class_loss_foreground_share."""
    stop_asked: bool
    """Whether a signal has asked any rank to stop."""
    save_asked: bool
    """Whether a signal has asked any rank to save."""
    skipped: bool
    """Whether float16 loss scaling has skipped the update."""


def train_step(state: TrainState, batches: list[Batch], parts: StepParts, stop: StopRequest) -> StepResult:
    """Update the weights once from the micro-batches of one effective batch.

    Targets are assigned before the first forward pass, so that the losses of every micro-batch are divided by the
    positives of the whole effective batch (paper section 4.1). Raises NumericalError, before the update, if a loss or
    gradient is not finite. Host-device syncs: one per micro-batch (number of positives) and one before the update; a
    class loss that draws or ranks anchors may add some.
    """
    micro_batches = prepare_micro_batches(state, batches, parts)
    counted = count_positives(state, micro_batches, parts, stop)
    losses = accumulate_gradients(state, micro_batches, counted.positives, parts)
    grad_norm = clip_gradients(state, parts.clip_norm)
    result = read_step(state, micro_batches, counted, losses, grad_norm)
    apply_gradients(state)
    state.skipped = state.skipped + 1 if result.skipped else 0
    if state.skipped >= MOST_SKIPPED:
        raise NumericalError(describe_skipped(state.progress.step + 1, state.scaler.get_scale()))
    return result


def prepare_micro_batches(state: TrainState, batches: list[Batch], parts: StepParts) -> list[MicroBatch]:
    """Clear the gradients, move the images to the device and assign a target to every anchor."""
    state.network.train()
    state.optimizer.zero_grad(set_to_none=True)
    seeds = [image_seeds(parts.seed, state.progress.step, batch.image_ids_B.tolist()) for batch in batches]
    micro_batches = []
    for batch, seeds_B in zip(batches, seeds, strict=True):
        on_device = to_device(batch, parts.device)
        pyramid = batch_pyramid(on_device, parts)
        assignment = assign_batch(pyramid, on_device.targets, parts.rule)
        micro_batches.append(
            MicroBatch(
                batch=on_device,
                anchors_A4=pyramid.boxes_A4,
                assignment=assignment,
                positives_B=assignment.positives(),
                seeds_B=seeds_B,
            )
        )
    return micro_batches


def count_positives(
    state: TrainState, micro_batches: list[MicroBatch], parts: StepParts, stop: StopRequest
) -> StepCounts:
    """Positives of every rank, updated running means, and requests of signals, in one all-reduce."""
    ranks = parts.ranks
    # One entry for each rank's positives and two for the requests to stop and to save.
    message = torch.zeros(ranks.world_size + 2, dtype=torch.int64, device=parts.device)
    message[ranks.rank] = torch.cat([micro.positives_B for micro in micro_batches]).sum()
    message[ranks.world_size] = int(stop.asked)
    message[ranks.world_size + 1] = int(stop.take_save())
    message = distributed.sum_over_ranks(message)
    positives_R = message[: ranks.world_size]
    if state.running_positives_R is not None:
        state.running_positives_R = move_running(state.running_positives_R, positives_R)
    images = sum(len(micro.batch.targets) for micro in micro_batches) * ranks.world_size
    positives = StepPositives(ranks_R=positives_R, running_R=state.running_positives_R, rank=ranks.rank, images=images)
    return StepCounts(positives, message[ranks.world_size :])


def accumulate_gradients(
    state: TrainState, micro_batches: list[MicroBatch], positives: StepPositives, parts: StepParts
) -> LossSums:
    """Forward and backward of every micro-batch; ranks exchange gradients in the last one's backward pass."""
    sums_3 = torch.zeros(3, device=parts.device)
    finite: list[Tensor] = []
    logits = 0
    for index, micro in enumerate(micro_batches):
        with gradient_exchange(state.network, now=index == len(micro_batches) - 1):
            inputs = network_input(micro.batch, parts.pixels, parts.channels_last)
            with torch.autocast(parts.device.type, parts.precision, enabled=parts.precision != torch.float32):
                outputs = state.network(inputs)
            divisor = Divisor(normaliser(parts.normaliser, micro.positives_B, positives), positives.images)
            losses = criterion(outputs, micro.assignment, micro.anchors_A4, parts.criterion, divisor, micro.seeds_B)
            # DistributedDataParallel averages gradients over ranks, and the divisor already counts all of them.
            state.scaler.scale(losses.total() * parts.ranks.world_size).backward()
        sums_3 += losses.sums()
        finite.append(losses.finite())
        logits += outputs.logits_BAK.numel()
    return LossSums(sums_3=sums_3, finite_B=torch.cat(finite), logits=logits)


def read_step(
    state: TrainState, micro_batches: list[MicroBatch], counted: StepCounts, losses: LossSums, grad_norm: Tensor
) -> StepResult:
    """All numbers of the step in one read of the device. Raises NumericalError if the update must not happen."""
    sums_3 = distributed.sum_over_ranks(losses.sums_3)
    positives_1 = counted.positives.ranks_R.sum(dim=0, keepdim=True)
    names = ("loss_class", "loss_box", "foreground", "grad_norm", "positives", "stop_asked", "save_asked")
    numbers = torch.cat([sums_3, grad_norm[None], positives_1, counted.asked_2]).tolist()
    read = dict(zip(names, numbers, strict=True))
    step = state.progress.step + 1
    if not math.isfinite(read["loss_class"] + read["loss_box"]):
        ids_B = torch.cat([micro.batch.image_ids_B for micro in micro_batches])
        bad_ids = ids_B[~losses.finite_B].tolist()
        raise NumericalError(describe_bad_loss(step, bad_ids, read["loss_class"], read["loss_box"]))
    images = len(losses.finite_B)
    if not math.isfinite(read["grad_norm"]) and not state.scaler.is_enabled():
        raise NumericalError(describe_bad_gradient(step))
    return StepResult(
        values={
            "loss": read["loss_class"] + read["loss_box"],
            "loss_class": read["loss_class"],
            "loss_box": read["loss_box"],
            "grad_norm": read["grad_norm"] if math.isfinite(read["grad_norm"]) else 0.0,
            "positives_per_image": read["positives"] / counted.positives.images,
            "anchors_per_image": sum(micro.assignment.labels_BA.numel() for micro in micro_batches) / images,
            "logits_per_image": losses.logits / images,
            "class_loss_foreground_share": read["foreground"] / max(read["loss_class"], 1e-12),
        },
        stop_asked=read["stop_asked"] > 0,
        save_asked=read["save_asked"] > 0,
        skipped=not math.isfinite(read["grad_norm"]),
    )


def batch_pyramid(batch: Batch, parts: StepParts) -> Pyramid:
    """The anchors of a batch's canvas; with data.canvases `tight` micro-batches may have different ones."""
    height, width = batch.images.shape[2:]
    return pyramid_anchors((height, width), parts.anchors, parts.device)


def gradient_exchange(network: nn.Module, now: bool) -> AbstractContextManager[object]:
    """Under DistributedDataParallel, exchange gradients only in the backward pass of the last micro-batch."""
    return nullcontext() if now or not isinstance(network, DistributedDataParallel) else network.no_sync()


def describe_bad_loss(step: int, image_ids: list[int], loss_class: float, loss_box: float) -> str:
    """Message for a loss that is not finite; image_ids: the images of this rank that cause it."""
    images = f"images with id {image_ids}" if image_ids else "images of another rank (see its message)"
    return (
        f"step {step}: the loss is not finite (class {loss_class}, box {loss_box}) on {images}. This step has not "
        "changed the weights. Lower schedule.lr, lengthen schedule.warmup or set "
        "schedule.clip_norm, and check these images' boxes."
    )


def describe_bad_gradient(step: int) -> str:
    """Message for a gradient that is not finite although the loss is."""
    return (
        f"step {step}: the loss is finite but a gradient is not; lower schedule.lr or set schedule.clip_norm. This "
        "step has not changed the weights."
    )


def describe_skipped(step: int, scale: float) -> str:
    """Message for float16 loss scaling that finds no scale at which the gradients are finite."""
    return (
        f"step {step}: none of the last {MOST_SKIPPED} updates was made, because gradients overflow in float16 "
        f"even with a loss scale of {scale:.2g}. Set precision=bfloat16 or precision=float32."
    )
