"""Training: `train` reads as a paragraph, `train_step` is its one important sentence.

Legend: B images of a micro-batch, A anchors, P positive anchors. A step is one optimizer update over the effective
batch: all ranks, all accumulated micro-batches.
"""

import math
import time
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from retinanet import checkpoint as checkpoints
from retinanet import distributed
from retinanet.anchors import AnchorSpec, pyramid_anchors
from retinanet.assign import AssignRule, assign_batch
from retinanet.build import (
    build_assign_rule,
    build_criterion,
    build_detector,
    build_pixel_rule,
    build_precision,
    build_sizing,
    seed_everything,
)
from retinanet.compiled import check_compiler, compile_network, compiler_faults
from retinanet.config import Config
from retinanet.config_file import dump_config
from retinanet.criterion import (
    Criterion,
    Divisor,
    Normaliser,
    StepPositives,
    criterion,
    draw_seeds,
    move_running,
    normaliser,
)
from retinanet.data.coco import CocoDataset, summary
from retinanet.data.transforms import PixelRule, normalise, to_device
from retinanet.distributed import Ranks
from retinanet.errors import NumericalFault
from retinanet.evaluate import evaluate_dataset, write_evaluation
from retinanet.interrupts import StopRequest, listen
from retinanet.metrics import MetricsLog
from retinanet.model.retinanet import build_anchor_spec
from retinanet.optim import Plan, build_plan, describe_rescaling, lr_at, set_lr
from retinanet.pictures import Look, draw_evaluation, draw_run_curves
from retinanet.run_folder import RunFolder, claim, write_text
from retinanet.scoring.evaluation import check_engine
from retinanet.step_clock import StepClock
from retinanet.structures import Batch
from retinanet.train_data import check_batch_divides, load_data, load_steps
from retinanet.train_state import TrainState, apply_gradients, build_state, clip_gradients, restore, snapshot


class Run(NamedTuple):
    """What stays fixed while a run trains."""

    config: Config
    plan: Plan
    train_set: CocoDataset
    val_set: CocoDataset
    folder: RunFolder
    device: torch.device
    ranks: Ranks

    def at(self, step: int) -> str:
        """Where the run stands and how to go on, for a message."""
        return f"step {step} of {self.plan.total_steps} is saved in {self.folder.last}; continue with --resume."


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


def train(config: Config, output: Path, *, resume: bool = False, overwrite: bool = False) -> None:
    """Run, or continue, the training that `config` describes in the folder `output`.

    Raises a UserFault for input that cannot be used and Interrupted, after saving, for SIGINT or SIGTERM.
    """
    ranks = distributed.read_ranks()
    device = distributed.choose_device(config.device, ranks)
    check_batch_divides(config, ranks)
    check_engine(config.eval.engine)
    if config.compile:
        check_compiler(device)
    resume = resume or distributed.was_restarted()
    claimed = claim(output, resume=resume, overwrite=overwrite) if ranks.is_main else nullcontext(RunFolder(output))
    with claimed as folder:
        train_in(folder, config, ranks, device, resume)


def train_in(folder: RunFolder, config: Config, ranks: Ranks, device: torch.device, resume: bool) -> None:
    """`train` in a folder that is ours."""
    train_set, val_set = load_data(config, ranks)
    distributed.start(ranks, device)
    seed_everything(config.seed, config.threads)
    run = Run(config, build_plan(config.schedule, len(train_set.images)), train_set, val_set, folder, device, ranks)
    resumable = distributed.agree(
        resume and folder.last.exists(), f"output: only some ranks can read {folder.last}", device
    )
    state = build_state(config, len(train_set.categories), device, ranks, load_weights=not resumable)
    if resumable:
        restore(state, checkpoints.load(folder.last), config, train_set.categories, folder.last)
    if ranks.is_main:
        write_text(folder.config, dump_config(config))
    compiling = compiler_faults() if config.compile else nullcontext()
    with listen() as stop, open_log(run, state.progress.step, resume) as log, compiling:
        run_steps(run, state, log, stop)
    distributed.stop()


def run_steps(run: Run, state: TrainState, log: MetricsLog | None, stop: StopRequest) -> None:
    """Step, log, save and evaluate until the plan or early stopping ends.

    last.pt is written after an update and before that step's evaluation, so a resumed run repeats the evaluation
    and arrives at the same bytes.
    """
    parts = build_step_parts(run)
    if run.config.compile:
        compile_network(state.model, log.say if log is not None else lambda _: None)
    clock = StepClock(run.config.schedule.batch_size, run.plan.total_steps)
    span, pin = (state.progress.step, run.plan.total_steps), run.device.type == "cuda"
    with closing(load_steps(run.config, run.train_set, span, run.ranks, pin)) as steps:
        while True:
            if evaluation_due(run, state.progress.step):
                evaluate_step(run, state, log, stop)
            if state.progress.step >= run.plan.total_steps or stopped_early(run, state, log):
                break
            with clock.waiting():
                micro_batches = next(steps)
            with clock.working():
                lr = lr_at(state.progress.step, run.plan)
                set_lr(state.optimizer, lr)
                values, stopping = train_step(state, micro_batches, parts, stop)
            step = state.progress.step + 1
            state.progress = state.progress._replace(step=step)
            if log is not None and (step % run.config.log.every == 0 or step in (1, run.plan.total_steps)):
                epoch = step * run.config.schedule.batch_size / len(run.train_set.images)
                log.train(step, epoch, {**values, "lr": lr}, clock.read(step, run.device))
            if run.ranks.is_main and (stopping or step % run.config.log.save_every == 0 or evaluation_due(run, step)):
                checkpoints.save(run.folder.last, snapshot(state, run.config, run.train_set.categories))
            if stopping:
                stop.raise_asked(run.at(step))
    if run.ranks.is_main:
        draw_run_curves(run.folder)


def train_step(
    state: TrainState, micro_batches: list[Batch], parts: StepParts, stop: StopRequest
) -> tuple[dict[str, float], bool]:
    """One update: assign, forward, criterion, backward, clip, step. Its values, and whether any rank is to stop.

    Targets are assigned before the first forward, so that every micro-batch is divided by the positives of the whole
    effective batch (paper section 4.1). Raises NumericalFault, before the update, if a loss or gradient is not finite.
    The host waits for a GPU for the positives of each micro-batch and, once, for all values before the update; a class
    loss that draws or ranks anchors may have it wait too.
    """
    state.network.train()
    state.optimizer.zero_grad(set_to_none=True)
    seeds = [draw_seeds(parts.seed, state.progress.step, batch.image_ids_B.tolist()) for batch in micro_batches]
    micro_batches = [to_device(batch, parts.device) for batch in micro_batches]
    anchors = [batch_anchors(batch, parts) for batch in micro_batches]
    assignments = [assign_batch(a_A4, batch.targets, parts.rule) for a_A4, batch in zip(anchors, micro_batches)]
    images = sum(len(batch.targets) for batch in micro_batches) * parts.ranks.size
    positives = [assignment.positives() for assignment in assignments]
    told = torch.zeros(parts.ranks.size + 1, dtype=torch.int64, device=parts.device)
    told[parts.ranks.rank], told[-1] = torch.cat(positives).sum(), int(stop.signal > 0)
    positives_R, stopping = distributed.sum_over_ranks(told).split([parts.ranks.size, 1])
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
            state.scaler.scale(losses.total() * parts.ranks.size).backward()
        sums += losses.sums()
        finite.append(losses.finite())

    norm = clip_gradients(state, parts.clip_norm)
    figures = [distributed.sum_over_ranks(sums), norm[None], positives_R.sum(dim=0, keepdim=True), stopping]
    loss_class, loss_box, foreground, grad_norm, found, stop_asked = torch.cat(figures).tolist()
    if not math.isfinite(loss_class + loss_box):
        ids = torch.cat([batch.image_ids_B for batch in micro_batches])[~torch.cat(finite)].tolist()
        raise NumericalFault(describe_bad_loss(state.progress.step + 1, ids, loss_class, loss_box))
    if not math.isfinite(grad_norm) and not state.scaler.is_enabled():
        raise NumericalFault(describe_bad_gradient(state.progress.step + 1))
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


def evaluate_step(run: Run, state: TrainState, log: MetricsLog | None, stop: StopRequest) -> None:
    """Evaluate the current weights on val; log, draw, and keep them as best.pt if their AP is the best so far."""
    config, progress = run.config, state.progress
    started = time.monotonic()

    def check_stop(_images: int) -> None:
        stop.raise_if_asked(run.at(progress.step))

    detector = build_detector(config, state.weights(), run.device)
    batches = (config.eval.batch_size, config.data.workers)
    sizing, known = build_sizing(config), run.train_set.categories
    evaluation, results = evaluate_dataset(
        detector, run.val_set, sizing, batches, run.ranks, check_stop, config.eval.engine, known
    )
    ap = evaluation.metrics["AP"]
    improved = progress.best_step == 0 or ap > progress.best_ap
    state.progress = progress.after_evaluation(ap, improved)
    if log is None:
        return
    log.evaluation(progress.step, evaluation.metrics, {"time": time.time(), "seconds": time.monotonic() - started})
    if improved:
        best = snapshot(state, config, run.train_set.categories, inference_only=True)
        checkpoints.save(run.folder.best, best)
        write_evaluation(run.folder.eval, run.folder.detections, evaluation, results, progress.step)
    look = Look(config.log.pictures, config.eval.shown_score)
    draw_evaluation(run.folder, run.val_set, results, look, log, progress.step)


def evaluation_due(run: Run, step: int) -> bool:
    """Whether an evaluation follows the first `step` updates."""
    if step == 0 or step == run.plan.total_steps:
        return step > 0
    every, per_epoch = run.config.eval.every, len(run.train_set.images) / run.config.schedule.batch_size
    interval = every * per_epoch if run.config.eval.unit == "epochs" else every
    return interval > 0 and int(step / interval) > int((step - 1) / interval)


def stopped_early(run: Run, state: TrainState, log: MetricsLog | None) -> bool:
    """Whether the evaluations have stopped getting better; noted in the log if so."""
    patience, progress = run.config.schedule.early_stop, state.progress
    if patience is None or progress.stale_evaluations < patience:
        return False
    if log is not None:
        best = f"AP {progress.best_ap:.4f} of step {progress.best_step}"
        log.note(progress.step, f"stopped early: {patience} evaluations without a better one than {best}")
    return True


def build_step_parts(run: Run) -> StepParts:
    """The step's values from the config."""
    config = run.config
    return StepParts(
        anchors=build_anchor_spec(config.model),
        rule=build_assign_rule(config),
        criterion=build_criterion(config),
        normaliser=config.loss.normaliser,
        clip_norm=config.schedule.clip_norm,
        precision=build_precision(config, run.device),
        channels_last=config.model.channels_last,
        pixels=build_pixel_rule(config),
        seed=config.seed,
        device=run.device,
        ranks=run.ranks,
    )


def open_log(run: Run, step: int, resume: bool) -> AbstractContextManager[MetricsLog | None]:
    """The run's log on the main rank, with what is to be known before the first step; nothing elsewhere."""
    if not run.ranks.is_main:
        return nullcontext()
    log = MetricsLog(run.folder.path, resume_step=step if resume else None, total_steps=run.plan.total_steps)
    log.say(f"train {summary(run.train_set)}\nval   {summary(run.val_set)}")
    rescaled = describe_rescaling(run.config.schedule, run.plan)
    if rescaled:
        log.say(rescaled)
    precision = str(build_precision(run.config, run.device)).removeprefix("torch.")
    ranks = f"{run.ranks.size} process{'es' if run.ranks.size > 1 else ''}"
    log.say(f"{run.plan.total_steps} steps from step {step} on {run.device} in {precision}, {ranks}")
    log.say(f"writing {run.folder.path}")
    return log
