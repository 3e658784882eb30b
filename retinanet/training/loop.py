"""The training loop.

Legend: B images of a micro-batch, A anchors, P positive anchors. A step is one optimizer update over the effective
batch: all ranks, all accumulated micro-batches.
"""

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import NamedTuple

import torch

from retinanet import distributed
from retinanet.build.rules import build_resize_rule, build_view_rule
from retinanet.compile import Backend, build_backend, compile_network
from retinanet.config.fields import known
from retinanet.config.schema import Config
from retinanet.data.coco import CocoDataset
from retinanet.data.feature_cache import FeatureCache
from retinanet.data.views import count_views
from retinanet.distributed import Ranks
from retinanet.errors import NumericalError, ResourceError, list_errors
from retinanet.evaluation.detector import build_detector, compiled_detector, precision_name
from retinanet.evaluation.evaluate import evaluate_dataset, write_evaluation
from retinanet.run.checkpoint import not_finite_parts, save_checkpoint
from retinanet.run.command_lines import CommandLines
from retinanet.run.failures import Failure, keep_failure
from retinanet.run.folder import RunFolder, discard_replaced, keep_last
from retinanet.run.interrupts import StopRequest
from retinanet.run.metric_rows import read_rows
from retinanet.run.metrics import RunLog
from retinanet.run.pictures import PictureOptions, draw_evaluation, draw_run_curves
from retinanet.structures import Batch
from retinanet.training.batches import load_steps, new_skipped
from retinanet.training.causes import quick_cause
from retinanet.training.clock import Forecast, StepClock, evaluation_in_steps
from retinanet.training.closing import Ending, describe_end
from retinanet.training.compiling import compiles_evaluations
from retinanet.training.optim import Plan, lr_at, set_lr
from retinanet.training.parts import build_step_parts
from retinanet.training.state import TrainState, snapshot
from retinanet.training.step import StepParts, train_step

FROM_PYTHON = CommandLines()
LEAST_PATIENCE = 8.0
"""Seconds that a step may take after a signal while ranks wait for each other; one may hang."""


class Run(NamedTuple):
    """Everything that stays fixed during a run."""

    config: Config
    plan: Plan
    train_set: CocoDataset
    val_set: CocoDataset
    epoch_images: int
    """Images of an epoch, repeated ones counted each time."""
    folder: RunFolder
    device: torch.device
    ranks: Ranks
    commands: CommandLines = FROM_PYTHON
    features: FeatureCache | None = None
    """Those of `train_set`, read instead of pixels."""
    compiler: Backend | None = None
    """Of the networks that are evaluated; None: they are not compiled."""
    finished_at: int | None = None
    """The step at which a run that is continued for a longer schedule had ended; its evaluation is repeated."""

    def describe_saved(self, step: int) -> str:
        """What has been saved at `step` and how to continue, for the message of an interrupted run."""
        how = f"with: {self.commands.resume}" if self.commands.resume else "with resume=True."
        return f"Saved step {step} of {self.plan.total_steps} to {self.folder.last}. Continue {how}"

    def describe_kept(self, step: int, words: str = "") -> str:
        """What a run that ends with an error can be continued from; step: of last.pt, 0 if there is none.

        words: what to add to the command.
        """
        return f"{self.describe_saved(step)} {words}".rstrip() if step else "Nothing had been saved yet."

    def epoch(self, step: int) -> float:
        """Passes over the training set after `step` updates."""
        return step * known(self.config.schedule.batch_size) / self.epoch_images


def run_steps(run: Run, state: TrainState, log: RunLog, stop: StopRequest) -> None:
    """Step, log, save and evaluate until the plan or early stopping ends.

    last.pt is written after an update and before that step's evaluation, so that a resumed run repeats the evaluation
    and produces the same bytes.
    """
    config = run.config
    parts = build_step_parts(config, run.device, run.ranks)
    run = compiled_run(run, state, log)
    began, first_step = time.monotonic(), state.progress.step
    clock = StepClock(known(config.schedule.batch_size), build_forecast(run))
    log.begin(first_step, run.epoch(first_step))
    span, pin = (first_step, run.plan.total_steps), run.device.type == "cuda"
    skipped = new_skipped(config, run.train_set)
    with closing(load_steps(config, run.train_set, span, run.ranks, pin, run.features, skipped)) as steps:
        while True:
            if evaluation_due(run, state.progress.step):
                with clock.evaluating():
                    evaluate_step(run, state, log, stop, clock.forecast)
            if state.progress.step >= run.plan.total_steps or stopped_early(run, state, log):
                break
            with clock.waiting():
                micro_batches = next(steps)
            if state.progress.step == 0:
                draw_before_training(run, with_pixels(run, micro_batches), parts)
            if run.ranks.world_size > 1 and state.progress.step > first_step:
                stop.patience = max(LEAST_PATIENCE, 3 * clock.forecast.seconds_per_step())
            with clock.working():
                lr = lr_at(state.progress.step, run.plan)
                set_lr(state.optimizer, lr)
                with keeping_failures(run, state, micro_batches):
                    result = train_step(state, micro_batches, parts, stop)
            step = state.progress.step + 1
            state.progress = state.progress._replace(step=step)
            if step == first_step + 1:
                distributed.set_timeout(config.distributed.timeout)
            log.step(step, run.epoch(step), {**result.values, "lr": lr}, clock.glance(step))
            if step % config.log.every == 0 or step in (1, run.plan.total_steps):
                log.train(step, run.epoch(step), {**result.values, "lr": lr}, clock.read(step, run.device))
            due = step % config.log.save_every == 0 or evaluation_due(run, step)
            if due or result.stop_asked or result.save_asked:
                stop.patience = None
                save_last(run, state, log)
            if result.save_asked:
                log.say(f"saved step {step} to {run.folder.last}")
            if result.stop_asked:
                stop.raise_asked(run.describe_saved(step))
    if skipped is not None and skipped.errors:
        log.say(list_errors("images that training passed over", list(skipped.errors.values())))
    if run.ranks.is_main:
        draw_run_curves(run.folder)
        ending = Ending(
            first_step=first_step,
            step=state.progress.step,
            seconds=time.monotonic() - began,
            evaluating=clock.forecast.seconds_evaluating(),
        )
        cause = quick_cause(config, run.plan, read_rows(run.folder.metrics))
        log.last_words(describe_end(run.folder, ending, run.commands, cause))


def compiled_run(run: Run, state: TrainState, log: RunLog) -> Run:
    """Compile the network by config `compile`; the run, with a compiler for evaluations if that pays off."""
    config = run.config
    if config.compile is False or config.compile == "auto":  # an unresolved config compiles nothing
        return run
    compile_network(state.model, build_backend(run.device, log.say, graphs=config.compile == "graphs"))
    evaluations = sum(evaluation_due(run, step) for step in range(state.progress.step, run.plan.total_steps + 1))
    batch_size, images = config.eval.batch_size, count_views(run.val_set.images, build_view_rule(config))
    if config.data.feature_cache or not compiles_evaluations(
        config.compile, run.device.type, images, batch_size, evaluations
    ):
        return run
    return run._replace(compiler=build_backend(run.device, log.say))


@contextmanager
def keeping_failures(run: Run, state: TrainState, micro_batches: list[Batch]) -> Iterator[None]:
    """Around a step: keep what it was computed from if its numbers are not finite, for `retinanet replay`."""
    try:
        yield
    except NumericalError as error:
        before = snapshot(state, run.config, run.train_set.categories)
        try:
            place = keep_failure(run.folder, Failure(before, micro_batches, str(error)), run.ranks.rank)
        except ResourceError as no_space:
            raise NumericalError(f"{error} What it was computed from is not kept: {no_space}") from error
        raise NumericalError(f"{error} What it was computed from is in {place}: retinanet replay {place}.") from error


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


def with_pixels(run: Run, micro_batches: list[Batch]) -> list[Batch]:
    """The first step's micro-batches, read again with their pixels where they have features instead."""
    if run.features is None or run.config.log.pictures == 0:
        return micro_batches
    with closing(load_steps(run.config, run.train_set, (0, 1), run.ranks, pin=False)) as steps:
        return next(steps)


def save_last(run: Run, state: TrainState, log: RunLog) -> None:
    """Write last.pt and keep the one before, on the main rank. Raises NumericalError for a state that is not finite."""
    if run.ranks.is_main:
        run.folder.check_owned()
        state.progress = state.progress._replace(rows=log.rows)
        checkpoint = snapshot(state, run.config, run.train_set.categories)
        if bad := not_finite_parts(checkpoint):
            raise NumericalError(describe_exploded(state.progress.step, bad))
        keep_last(run.folder, state.saved_step, run.config.log.keep - 1)
        save_checkpoint(run.folder.last, checkpoint)
        if not state.saved_step:
            discard_replaced(run.folder)
    state.saved_step = state.progress.step


def describe_exploded(step: int, bad: list[str]) -> str:
    """Message for weights that an update has made infinite or NaN; bad: their names."""
    return (
        f"step {step}: {len(bad)} tensors hold NaN or infinity after the update, the first is {bad[0]}; this step "
        "is not saved. Lower schedule.lr, lengthen schedule.warmup or set schedule.clip_norm."
    )


def evaluate_step(run: Run, state: TrainState, log: RunLog, stop: StopRequest, forecast: Forecast) -> None:
    """Evaluate the current weights on val; log, draw, and keep them as best.pt if their AP is the best so far."""
    config, progress = run.config, state.progress
    started = time.monotonic()

    views = build_view_rule(config)
    done, total = 0, count_views(run.val_set.images, views)

    def on_batch(images: int) -> None:
        nonlocal done
        done = min(done + images * run.ranks.world_size, total)
        log.evaluating(progress.step, done, total, forecast.seconds_left(progress.step, done / total))
        stop.raise_if_asked(run.describe_saved(progress.step))

    detector = build_detector(config, state.weights(), run.device)
    if run.compiler is not None:
        detector = compiled_detector(detector, run.compiler, config.eval.batch_size)
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
            views=views,
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
    per_epoch = run.epoch_images / known(run.config.schedule.batch_size)
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
