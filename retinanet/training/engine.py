"""The training loop.

Legend: B images of a micro-batch, A anchors, P positive anchors. A step is one optimizer update over the effective
batch: all ranks, all accumulated micro-batches.
"""

import time
from contextlib import closing, nullcontext
from pathlib import Path
from typing import NamedTuple

import torch

from retinanet import distributed
from retinanet.build import build_precision, build_resize_rule, seed_everything
from retinanet.compile import check_compiler, compile_network, compiler_errors
from retinanet.config.auto import describe_auto, resolve_auto
from retinanet.config.dump import dump_config
from retinanet.config.fields import known
from retinanet.config.schema import Config
from retinanet.data.coco import CocoDataset, summary
from retinanet.display.console import parts_table
from retinanet.distributed import Ranks
from retinanet.evaluation.detector import build_detector, precision_name
from retinanet.evaluation.evaluate import evaluate_dataset, write_evaluation
from retinanet.files import write_text
from retinanet.interop.detector_file import TrainedDetector
from retinanet.interop.start import Start, continue_model, fit_detector, resolve_model
from retinanet.run.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from retinanet.run.folder import RunFolder, claim
from retinanet.run.interrupts import StopRequest, listen
from retinanet.run.metrics import MetricsLog, RunLog, SilentLog
from retinanet.run.pictures import PictureOptions, draw_evaluation, draw_run_curves
from retinanet.scoring.evaluation import check_engine
from retinanet.training.batches import check_batch_divides, load_data, load_steps
from retinanet.training.clock import StepClock
from retinanet.training.continuation import check_length, describe_length, finished_step
from retinanet.training.fit import fit_accumulation
from retinanet.training.optim import Plan, build_plan, describe_long_warmup, describe_rescaling, lr_at, set_lr
from retinanet.training.parts import build_step_parts
from retinanet.training.state import TrainState, build_state, restore, snapshot
from retinanet.training.step import train_step


class Run(NamedTuple):
    """Everything that stays fixed during a run."""

    config: Config
    plan: Plan
    train_set: CocoDataset
    val_set: CocoDataset
    folder: RunFolder
    device: torch.device
    ranks: Ranks
    resume_command: str | None = None
    """The command line that continues the run; None for one that was started from Python."""
    finished_at: int | None = None
    """The step at which a run that is continued for a longer schedule had ended; its evaluation is repeated."""

    def describe_saved(self, step: int) -> str:
        """What has been saved at `step` and how to continue, for the message of an interrupted run."""
        how = f"with: {self.resume_command}" if self.resume_command else "with resume=True."
        return f"Saved step {step} of {self.plan.total_steps} to {self.folder.last}. Continue {how}"


def train(
    config: Config, output: Path, *, resume: bool = False, overwrite: bool = False, resume_command: str | None = None
) -> None:
    """Run, or continue, the training that `config` describes in the folder `output`.

    resume: continue the run in `output` if there is one. overwrite: delete it and start anew. resume_command: the
    command line that continues this run, to show when it is interrupted; None: a run that was started from Python.
    Raises a UserError for input that cannot be used and Interrupted, after saving, for SIGINT or SIGTERM.
    """
    ranks = distributed.read_ranks()
    device = distributed.choose_device(config.device, ranks)
    check_batch_divides(config, ranks)
    check_engine(config.eval.engine)
    if config.compile:
        check_compiler(device)
    resume = resume or distributed.was_restarted()
    detector = None
    if not (resume and RunFolder(output).last.exists()):
        # Before the folder is cleared: an unusable detector must not cost an old run.
        config, detector = resolve_model(config)
    claimed = claim(output, resume=resume, overwrite=overwrite) if ranks.is_main else nullcontext(RunFolder(output))
    with claimed as folder:
        train_in(folder, config, ranks, device, resume, resume_command, detector)


def train_in(
    folder: RunFolder,
    config: Config,
    ranks: Ranks,
    device: torch.device,
    resume: bool,
    resume_command: str | None,
    detector: TrainedDetector | None = None,
) -> None:
    """`train` in a folder that this run has claimed, with the detector of a resolved config's `model.weights`."""
    train_set, val_set = load_data(config, ranks)
    start = fit_detector(detector, config, train_set.categories) if detector is not None else None
    distributed.start(ranks, device)
    resumable = distributed.agree(
        resume and folder.last.exists(), f"output: only some ranks can read {folder.last}", device
    )
    saved = load_checkpoint(folder.last) if resumable else None
    if saved is not None:
        config = continue_model(config, saved.config)
    asked, config = config, resolve(config, train_set, device, ranks, saved)
    seed_everything(config.seed, config.threads)
    images = len(train_set.images)
    run = Run(
        config=config,
        plan=build_plan(config.schedule, images),
        train_set=train_set,
        val_set=val_set,
        folder=folder,
        device=device,
        ranks=ranks,
        resume_command=resume_command,
        finished_at=finished_step(saved, images) if saved is not None else None,
    )
    state = build_state(config, len(train_set.categories), device, ranks, load_weights=saved is None, start=start)
    if saved is not None:
        restore(state, saved, config, train_set.categories, folder.last)
        check_length(run.plan, state.progress.step, folder.last)
    compiling = compiler_errors() if config.compile else nullcontext()
    with listen() as stop, open_log(run, state.progress.step, resume) as log, compiling:
        for line in (describe_auto(asked, config, images), describe_long_warmup(config.schedule, run.plan)):
            if line:
                log.say(line)
        say_start(log, state, start)
        if saved is not None:
            before = build_plan(saved.config.schedule, images)
            course = describe_length(saved.config, config, (before, run.plan), state.progress.step)
            if course:
                log.note(state.progress.step, course)
        run_steps(run, state, log, stop)
    distributed.stop()


def resolve(
    config: Config, train_set: CocoDataset, device: torch.device, ranks: Ranks, saved: Checkpoint | None
) -> Config:
    """The config with numbers in place of `auto`. A resumed run keeps the micro-batches that it began with."""
    resolved = resolve_auto(config, len(train_set.images))
    if config.schedule.batch_size != "auto":
        return resolved
    if saved is not None:
        accumulation = saved.config.schedule.accumulation
        return resolved.model_copy(
            update={"schedule": resolved.schedule.model_copy(update={"accumulation": accumulation})}
        )
    return fit_accumulation(resolved, train_set.images, len(train_set.categories), device, ranks)


def run_steps(run: Run, state: TrainState, log: RunLog, stop: StopRequest) -> None:
    """Step, log, save and evaluate until the plan or early stopping ends.

    last.pt is written after an update and before that step's evaluation, so that a resumed run repeats the evaluation
    and produces the same bytes.
    """
    config = run.config
    parts = build_step_parts(config, run.device, run.ranks)
    if config.compile:
        compile_network(state.model, log.say)
    clock = StepClock(known(config.schedule.batch_size), run.plan.total_steps)
    span, pin = (state.progress.step, run.plan.total_steps), run.device.type == "cuda"
    with closing(load_steps(config, run.train_set, span, run.ranks, pin)) as steps:
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
                result = train_step(state, micro_batches, parts, stop)
            step = state.progress.step + 1
            state.progress = state.progress._replace(step=step)
            if step % config.log.every == 0 or step in (1, run.plan.total_steps):
                epoch = step * known(config.schedule.batch_size) / len(run.train_set.images)
                log.train(step, epoch, {**result.values, "lr": lr}, clock.read(step, run.device))
            if result.stop_asked or step % config.log.save_every == 0 or evaluation_due(run, step):
                save_last(run, state)
            if result.stop_asked:
                stop.raise_asked(run.describe_saved(step))
    if run.ranks.is_main:
        draw_run_curves(run.folder)


def save_last(run: Run, state: TrainState) -> None:
    """Write last.pt, on the main rank."""
    if run.ranks.is_main:
        save_checkpoint(run.folder.last, snapshot(state, run.config, run.train_set.categories))


def evaluate_step(run: Run, state: TrainState, log: RunLog, stop: StopRequest) -> None:
    """Evaluate the current weights on val; log, draw, and keep them as best.pt if their AP is the best so far."""
    config, progress = run.config, state.progress
    started = time.monotonic()

    def check_stop(_images: int) -> None:
        stop.raise_if_asked(run.describe_saved(progress.step))

    detector = build_detector(config, state.weights(), run.device)
    evaluation, results = evaluate_dataset(
        detector,
        run.val_set,
        build_resize_rule(config),
        batches=(config.eval.batch_size, config.data.workers),
        ranks=run.ranks,
        on_batch=check_stop,
        scoring=config.eval,
        categories=run.train_set.categories,
    )
    ap = evaluation.metrics["AP"]
    improved = progress.best_step == 0 or ap > progress.best_ap
    state.progress = progress.after_evaluation(ap, improved)
    log.evaluation(progress.step, evaluation.metrics, {"time": time.time(), "seconds": time.monotonic() - started})
    if not run.ranks.is_main:
        return
    if improved:
        save_checkpoint(run.folder.best, snapshot(state, config, run.train_set.categories, inference_only=True))
        files = run.folder.eval, run.folder.detections
        write_evaluation(*files, evaluation, results, step=progress.step, precision=precision_name(detector))
    options = PictureOptions(config.log.pictures, config.eval.shown_score)
    draw_evaluation(run.folder, run.val_set, results, options, log, progress.step)


def evaluation_due(run: Run, step: int) -> bool:
    """Whether an evaluation follows the first `step` updates."""
    if step == 0 or step in (run.plan.total_steps, run.finished_at):
        return step > 0
    per_epoch = len(run.train_set.images) / known(run.config.schedule.batch_size)
    every = known(run.config.eval.every)
    interval = every * per_epoch if run.config.eval.unit == "epochs" else every
    return interval > 0 and int(step / interval) > int((step - 1) / interval)


def stopped_early(run: Run, state: TrainState, log: RunLog) -> bool:
    """Whether `schedule.early_stop` evaluations have passed without improvement; if so, it is logged."""
    patience, progress = run.config.schedule.early_stop, state.progress
    if patience is None or progress.stale_evaluations < patience:
        return False
    best = f"AP {progress.best_ap:.4f} of step {progress.best_step}"
    log.note(progress.step, f"stopped early: {patience} evaluations without improvement over {best}")
    return True


def say_start(log: RunLog, state: TrainState, start: Start | None) -> None:
    """Show which initial weights were loaded, and what of the network trains."""
    if state.note:
        log.say(state.note)
    if start is None:
        return
    parameters = list(state.model.parameters())
    count = sum(parameter.numel() for parameter in parameters)
    training = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
    trains = (
        "trains",
        "all" if training == count else f"{training / count:.1%}",
        f"{training:,} of {count:,} parameters",
    )
    log.say(f"start from {start.source}")
    log.say(parts_table([*start.report, trains]))
    for note in start.notes:
        log.say(f"note: {note}")


def open_log(run: Run, step: int, resume: bool) -> RunLog:
    """Write config.yaml and open the run's log, with what is known before the first step; silent on other ranks."""
    if not run.ranks.is_main:
        return SilentLog()
    write_text(run.folder.config, dump_config(run.config))
    log = MetricsLog(run.folder.path, resume_step=step if resume else None, total_steps=run.plan.total_steps)
    log.say(f"train {summary(run.train_set)}\nval   {summary(run.val_set)}")
    rescaled = describe_rescaling(run.config.schedule, run.plan)
    if rescaled:
        log.say(rescaled)
    precision = str(build_precision(run.config, run.device)).removeprefix("torch.")
    processes = f"{run.ranks.world_size} process{'es' if run.ranks.world_size > 1 else ''}"
    log.say(f"{run.plan.total_steps} steps from step {step} on {run.device} in {precision}, {processes}")
    log.say(f"writing {run.folder.path}")
    return log
