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
from retinanet.build import build_resize_rule, seed_everything
from retinanet.compile import check_compiler, compile_network, compiler_errors
from retinanet.config.auto import describe_auto, resolve_auto
from retinanet.config.dump import dump_config
from retinanet.config.fields import known
from retinanet.config.schema import Config
from retinanet.data.coco import CocoDataset
from retinanet.display.console import parts_table
from retinanet.display.facts import Facts
from retinanet.distributed import Ranks
from retinanet.evaluation.detector import build_detector, precision_name
from retinanet.evaluation.evaluate import evaluate_dataset, write_evaluation
from retinanet.files import write_text
from retinanet.interop.detector_file import TrainedDetector
from retinanet.interop.start import Start, continue_model, fit_detector, resolve_model
from retinanet.run.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from retinanet.run.command_lines import CommandLines
from retinanet.run.folder import RunFolder, claim
from retinanet.run.interrupts import StopRequest, listen
from retinanet.run.metrics import MetricsLog, RunLog, SilentLog
from retinanet.run.pictures import PictureOptions, draw_evaluation, draw_run_curves
from retinanet.scoring.evaluation import check_engine
from retinanet.structures import Batch
from retinanet.training.batches import check_batch_divides, load_data, load_steps
from retinanet.training.clock import Forecast, StepClock, evaluation_in_steps
from retinanet.training.closing import Ending, describe_end
from retinanet.training.continuation import check_length, describe_length, finished_step
from retinanet.training.fit import fit_accumulation
from retinanet.training.opening import Opening, describe_run
from retinanet.training.optim import Plan, build_plan, describe_long_warmup, lr_at, set_lr
from retinanet.training.parts import build_step_parts
from retinanet.training.state import TrainState, build_state, restore, snapshot
from retinanet.training.step import StepParts, train_step

FROM_PYTHON = CommandLines()


class Run(NamedTuple):
    """Everything that stays fixed during a run."""

    config: Config
    plan: Plan
    train_set: CocoDataset
    val_set: CocoDataset
    folder: RunFolder
    device: torch.device
    ranks: Ranks
    commands: CommandLines = FROM_PYTHON
    finished_at: int | None = None
    """The step at which a run that is continued for a longer schedule had ended; its evaluation is repeated."""

    def describe_saved(self, step: int) -> str:
        """What has been saved at `step` and how to continue, for the message of an interrupted run."""
        how = f"with: {self.commands.resume}" if self.commands.resume else "with resume=True."
        return f"Saved step {step} of {self.plan.total_steps} to {self.folder.last}. Continue {how}"

    def epoch(self, step: int) -> float:
        """Passes over the training set after `step` updates."""
        return step * known(self.config.schedule.batch_size) / len(self.train_set.images)


def train(
    config: Config,
    output: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    commands: CommandLines = FROM_PYTHON,
) -> None:
    """Run, or continue, the training that `config` describes in the folder `output`.

    resume: continue the run in `output` if there is one. overwrite: delete it and start anew. commands: the command
    lines that continue this run, or go on from it, to show at its end.
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
        train_in(folder, config, ranks, device, resume, commands, detector)


def train_in(
    folder: RunFolder,
    config: Config,
    ranks: Ranks,
    device: torch.device,
    resume: bool,
    commands: CommandLines,
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
        commands=commands,
        finished_at=finished_step(saved, images) if saved is not None else None,
    )
    state = build_state(config, len(train_set.categories), device, ranks, load_weights=saved is None, start=start)
    if saved is not None:
        restore(state, saved, config, train_set.categories, folder.last)
        check_length(run.plan, state.progress.step, folder.last)
    compiling = compiler_errors() if config.compile else nullcontext()
    with open_log(run, state, resume) as log, listen(log.acknowledge) as stop, compiling:
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
    began, first_step = time.monotonic(), state.progress.step
    clock = StepClock(known(config.schedule.batch_size), build_forecast(run))
    log.begin(first_step, run.epoch(first_step))
    span, pin = (first_step, run.plan.total_steps), run.device.type == "cuda"
    with closing(load_steps(config, run.train_set, span, run.ranks, pin)) as steps:
        while True:
            if evaluation_due(run, state.progress.step):
                with clock.evaluating():
                    evaluate_step(run, state, log, stop, clock.forecast)
            if state.progress.step >= run.plan.total_steps or stopped_early(run, state, log):
                break
            with clock.waiting():
                micro_batches = next(steps)
            if state.progress.step == 0:
                draw_before_training(run, micro_batches, parts)
            with clock.working():
                lr = lr_at(state.progress.step, run.plan)
                set_lr(state.optimizer, lr)
                result = train_step(state, micro_batches, parts, stop)
            step = state.progress.step + 1
            state.progress = state.progress._replace(step=step)
            log.step(step, run.epoch(step), {**result.values, "lr": lr}, clock.glance(step))
            if step % config.log.every == 0 or step in (1, run.plan.total_steps):
                log.train(step, run.epoch(step), {**result.values, "lr": lr}, clock.read(step, run.device))
            if result.stop_asked or step % config.log.save_every == 0 or evaluation_due(run, step):
                save_last(run, state)
            if result.stop_asked:
                stop.raise_asked(run.describe_saved(step))
    if run.ranks.is_main:
        draw_run_curves(run.folder)
        ending = Ending(
            first_step=first_step,
            step=state.progress.step,
            seconds=time.monotonic() - began,
            evaluating=clock.forecast.seconds_evaluating(),
        )
        log.last_words(describe_end(run.folder, ending, run.commands))


def build_forecast(run: Run) -> Forecast:
    """What the time left is estimated from."""
    due = [step for step in range(1, run.plan.total_steps + 1) if evaluation_due(run, step)]
    one = evaluation_in_steps(len(run.val_set.images), known(run.config.schedule.batch_size))
    return Forecast(run.plan.total_steps, due, one)


def draw_before_training(run: Run, micro_batches: list[Batch], parts: StepParts) -> None:
    """Write pictures/data.png and train_batch.jpg, on the main rank, unless config `log.pictures` is 0."""
    if not run.ranks.is_main or run.config.log.pictures == 0:
        return
    # Imported here: Matplotlib takes half a second.
    from retinanet.run.batch_picture import NetworkView, draw_train_batch
    from retinanet.run.data_picture import draw_data

    draw_data(run.folder.pictures / "data.png", run.train_set, build_resize_rule(run.config), parts.anchors)
    view = NetworkView(
        pixels=parts.pixels,
        channels_last=parts.channels_last,
        anchors=parts.anchors,
        rule=parts.rule,
        categories=run.train_set.categories,
    )
    draw_train_batch(run.folder.pictures / "train_batch.jpg", micro_batches, view)


def save_last(run: Run, state: TrainState) -> None:
    """Write last.pt, on the main rank."""
    if run.ranks.is_main:
        save_checkpoint(run.folder.last, snapshot(state, run.config, run.train_set.categories))


def evaluate_step(run: Run, state: TrainState, log: RunLog, stop: StopRequest, forecast: Forecast) -> None:
    """Evaluate the current weights on val; log, draw, and keep them as best.pt if their AP is the best so far."""
    config, progress = run.config, state.progress
    started = time.monotonic()

    done, total = 0, len(run.val_set.images)

    def on_batch(images: int) -> None:
        nonlocal done
        done = min(done + images * run.ranks.world_size, total)
        log.evaluating(progress.step, done, total, forecast.seconds_left(progress.step, done / total))
        stop.raise_if_asked(run.describe_saved(progress.step))

    detector = build_detector(config, state.weights(), run.device)
    on_batch(0)
    with stop.answering(f"stopping; step {progress.step} is saved already", "quit at once"):
        evaluation, results = evaluate_dataset(
            detector,
            run.val_set,
            build_resize_rule(config),
            batches=(config.eval.batch_size, config.data.workers),
            ranks=run.ranks,
            on_batch=on_batch,
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


def open_log(run: Run, state: TrainState, resume: bool) -> RunLog:
    """Write config.yaml and open the run's log, with what is known before the first step; silent on other ranks."""
    if not run.ranks.is_main:
        return SilentLog()
    write_text(run.folder.config, dump_config(run.config))
    step = state.progress.step
    log = MetricsLog(run.folder.path, resume_step=step if resume else None, total_steps=run.plan.total_steps)
    opening = Opening(
        config=run.config,
        plan=run.plan,
        train_set=run.train_set,
        val_set=run.val_set,
        evaluations=sum(evaluation_due(run, number) for number in range(1, run.plan.total_steps + 1)),
        model=state.model,
        step=step,
        device=run.device,
        ranks=run.ranks,
        folder=run.folder.path,
    )
    log.say(Facts(describe_run(opening)))
    return log
