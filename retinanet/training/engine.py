"""Training: `train` reads as a paragraph, `train_step` is its one important sentence.

Legend: B images of a micro-batch, A anchors, P positive anchors. A step is one optimizer update over the effective
batch: all ranks, all accumulated micro-batches.
"""

import time
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import NamedTuple

import torch

from retinanet import distributed
from retinanet.build import (
    build_anchor_spec,
    build_assign_rule,
    build_criterion,
    build_pixel_rule,
    build_precision,
    build_resize_rule,
    seed_everything,
)
from retinanet.compile import check_compiler, compile_network, compiler_errors
from retinanet.config.dump import dump_config
from retinanet.config.schema import Config
from retinanet.data.coco import CocoDataset, summary
from retinanet.distributed import Ranks
from retinanet.evaluation.detector import build_detector, precision_name
from retinanet.evaluation.evaluate import evaluate_dataset, write_evaluation
from retinanet.files import write_text
from retinanet.run import checkpoint as checkpoints
from retinanet.run.folder import RunFolder, claim
from retinanet.run.interrupts import StopRequest, listen
from retinanet.run.metrics import MetricsLog
from retinanet.run.pictures import PictureOptions, draw_evaluation, draw_run_curves
from retinanet.scoring.evaluation import check_engine
from retinanet.training.batches import check_batch_divides, load_data, load_steps
from retinanet.training.clock import StepClock
from retinanet.training.optim import Plan, build_plan, describe_rescaling, lr_at, set_lr
from retinanet.training.state import TrainState, build_state, restore, snapshot
from retinanet.training.step import StepParts, train_step


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


def train(config: Config, output: Path, *, resume: bool = False, overwrite: bool = False) -> None:
    """Run, or continue, the training that `config` describes in the folder `output`.

    Raises a UserError for input that cannot be used and Interrupted, after saving, for SIGINT or SIGTERM.
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
    compiling = compiler_errors() if config.compile else nullcontext()
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


def evaluate_step(run: Run, state: TrainState, log: MetricsLog | None, stop: StopRequest) -> None:
    """Evaluate the current weights on val; log, draw, and keep them as best.pt if their AP is the best so far."""
    config, progress = run.config, state.progress
    started = time.monotonic()

    def check_stop(_images: int) -> None:
        stop.raise_if_asked(run.at(progress.step))

    detector = build_detector(config, state.weights(), run.device)
    batches = (config.eval.batch_size, config.data.workers)
    resize_rule, known = build_resize_rule(config), run.train_set.categories
    evaluation, results = evaluate_dataset(
        detector, run.val_set, resize_rule, batches, run.ranks, check_stop, config.eval.engine, known
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
        files = run.folder.eval, run.folder.detections
        write_evaluation(*files, evaluation, results, step=progress.step, precision=precision_name(detector))
    look = PictureOptions(config.log.pictures, config.eval.shown_score)
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
    ranks = f"{run.ranks.world_size} process{'es' if run.ranks.world_size > 1 else ''}"
    log.say(f"{run.plan.total_steps} steps from step {step} on {run.device} in {precision}, {ranks}")
    log.say(f"writing {run.folder.path}")
    return log
