"""TODO: retinanet/training/step.py."""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from retinanet import distributed
from retinanet.data.transforms import PixelRule, normalise, to_device
from retinanet.detection.anchors import AnchorSpec, pyramid_anchors
from retinanet.detection.assign import AssignRule, assign_batch
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


class StepParts(NamedTuple):
    """What a step needs beside the network and the images."""

    anchors: AnchorSpec
    rule: AssignRule
    criterion: Criterion
    normaliser: Normaliser
    clip_norm: float | None
    precision: torch.dtype
    channels_last: bool
    pixels: PixelRule
    seed: int
    device: torch.device
    ranks: Ranks


def train_step(
    state: TrainState, micro_batches: list[Batch], parts: StepParts, stop: StopRequest
) -> tuple[dict[str, float], bool]:
    """One update: assign, forward, criterion, backward, clip, step. Its values, and whether any rank is to stop.

    Targets are assigned before the first forward, so that every micro-batch is divided by the positives of the whole
    effective batch (paper section 4.1). Raises NumericalError, before the update, if a loss or gradient is not finite.
    The host waits for a GPU for the positives of each micro-batch and, once, for all values before the update; a class
    loss that draws or ranks anchors may have it wait too.
    """
    state.network.train()
    state.optimizer.zero_grad(set_to_none=True)
    seeds = [image_seeds(parts.seed, state.progress.step, batch.image_ids_B.tolist()) for batch in micro_batches]
    micro_batches = [to_device(batch, parts.device) for batch in micro_batches]
    anchors = [batch_anchors(batch, parts) for batch in micro_batches]
    assignments = [assign_batch(a_A4, batch.targets, parts.rule) for a_A4, batch in zip(anchors, micro_batches)]
    images = sum(len(batch.targets) for batch in micro_batches) * parts.ranks.world_size
    positives = [assignment.positives() for assignment in assignments]
    told = torch.zeros(parts.ranks.world_size + 1, dtype=torch.int64, device=parts.device)
    told[parts.ranks.rank], told[-1] = torch.cat(positives).sum(), int(stop.signal > 0)
    positives_R, stopping = distributed.sum_over_ranks(told).split([parts.ranks.world_size, 1])
    if state.running_positives_R is not None:
        state.running_positives_R = move_running(state.running_positives_R, positives_R)
    counted = StepPositives(positives_R, state.running_positives_R, parts.ranks.rank, images)

    sums = torch.zeros(3, device=parts.device)
    finite: list[Tensor] = []
    for index, (batch, assignment) in enumerate(zip(micro_batches, assignments, strict=True)):
        with gradient_exchange(state.network, now=index == len(micro_batches) - 1):
            pixels = normalise(batch.images, batch.sizes_B2, parts.pixels, parts.channels_last)
            with torch.autocast(parts.device.type, parts.precision, enabled=parts.precision != torch.float32):
                outputs = state.network(pixels)
            divisor = Divisor(normaliser(parts.normaliser, positives[index], counted), images)
            losses = criterion(outputs, assignment, anchors[index], parts.criterion, divisor, seeds[index])
            # DistributedDataParallel averages gradients over ranks, and the divisor already counts all of them.
            state.scaler.scale(losses.total() * parts.ranks.world_size).backward()
        sums += losses.sums()
        finite.append(losses.finite())

    norm = clip_gradients(state, parts.clip_norm)
    figures = [distributed.sum_over_ranks(sums), norm[None], positives_R.sum(dim=0, keepdim=True), stopping]
    loss_class, loss_box, foreground, grad_norm, found, stop_asked = torch.cat(figures).tolist()
    if not math.isfinite(loss_class + loss_box):
        ids = torch.cat([batch.image_ids_B for batch in micro_batches])[~torch.cat(finite)].tolist()
        raise NumericalError(describe_bad_loss(state.progress.step + 1, ids, loss_class, loss_box))
    if not math.isfinite(grad_norm) and not state.scaler.is_enabled():
        raise NumericalError(describe_bad_gradient(state.progress.step + 1))
    apply_gradients(state)
    return {
        "loss": loss_class + loss_box,
        "loss_class": loss_class,
        "loss_box": loss_box,
        "grad_norm": grad_norm if math.isfinite(grad_norm) else 0.0,
        "positives_per_image": found / images,
        "class_loss_foreground_share": foreground / max(loss_class, 1e-12),
    }, stop_asked > 0


def batch_anchors(batch: Batch, parts: StepParts) -> Tensor:
    """(A, 4) anchors of a batch's own canvas; with data.canvases `tight` each micro-batch may have another."""
    height, width = batch.images.shape[2:]
    return pyramid_anchors((height, width), parts.anchors, parts.device).boxes_A4


def gradient_exchange(network: nn.Module, now: bool) -> AbstractContextManager[object]:
    """Under DistributedDataParallel, exchange gradients only in the last micro-batch's backward."""
    return nullcontext() if now or not isinstance(network, DistributedDataParallel) else network.no_sync()


def describe_bad_loss(step: int, image_ids: list[int], loss_class: float, loss_box: float) -> str:
    images = f"images with id {image_ids}" if image_ids else "images of another rank (see its message)"
    return (
        f"step {step}: the loss is not finite (class {loss_class}, box {loss_box}) on {images}. The weights before "
        "this step are untouched and the last save is good. Lower schedule.lr, lengthen schedule.warmup or set "
        "schedule.clip_norm, and look at those images' boxes."
    )


def describe_bad_gradient(step: int) -> str:
    return (
        f"step {step}: the loss is finite but a gradient is not; lower schedule.lr or set schedule.clip_norm. The "
        "weights before this step are untouched, the last save is good."
    )
