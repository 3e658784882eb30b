"""A training from its config to its end: data, device, folder and log; the steps are `training.loop`'s."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch

from retinanet import distributed
from retinanet.build.losses import check_own_loss
from retinanet.build.network import choose_channels_last, prepare_torch
from retinanet.compile import compiler_errors
from retinanet.config.auto import describe_auto, resolve_auto
from retinanet.config.dump import dump_config
from retinanet.config.schema import Config
from retinanet.data.coco import CocoDataset
from retinanet.display.console import parts_table
from retinanet.display.facts import Facts
from retinanet.distributed import Ranks
from retinanet.errors import NumericalError, RankError, ResourceError
from retinanet.files import write_text
from retinanet.interop.detector_file import TrainedDetector
from retinanet.interop.start import Start, continue_model, fit_detector, resolve_model
from retinanet.run.checkpoint import Checkpoint
from retinanet.run.command_lines import CommandLines
from retinanet.run.folder import RunFolder, claim, set_aside
from retinanet.run.image_record import check_same_images, write_images
from retinanet.run.interrupts import StopRequest, listen
from retinanet.run.metrics import MetricsLog, RunLog, SilentLog
from retinanet.scoring.evaluation import check_engine
from retinanet.training.agreement import check_agreement
from retinanet.training.balance import count_epoch, resolve_class_weights
from retinanet.training.batches import check_batch_divides, load_data, open_train_features
from retinanet.training.callbacks import find_callbacks, load_callbacks
from retinanet.training.compiling import check_compile, resolve_compile
from retinanet.training.continuation import (
    check_length,
    choose_checkpoint,
    describe_new_length,
    describe_new_rates,
    finished_step,
)
from retinanet.training.fit import fit_accumulation
from retinanet.training.loop import FROM_PYTHON, Run, evaluation_due, run_steps
from retinanet.training.opening import Opening, describe_run
from retinanet.training.optim import build_plan, describe_long_warmup
from retinanet.training.state import TrainState, build_state, restore

OnRow = Callable[[dict[str, Any]], object]
"""Called with each row of metrics.jsonl once it is written; the run stops, after saving, where it returns False."""


def run_training(
    config: Config,
    output: Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    commands: CommandLines = FROM_PYTHON,
    on_row: OnRow = lambda row: None,
) -> None:
    """Run, or continue, the training that `config` describes in the folder `output`.

    resume: continue the run in `output` if there is one. overwrite: start anew, and delete it once the new
    run has a checkpoint. commands: the command
    lines that continue this run, or go on from it, to show at its end. on_row: called on the main rank.
    Raises a UserError for input that cannot be used and, after saving, Interrupted for SIGINT or SIGTERM and
    StoppedByCaller for an `on_row` that returned False.
    """
    ranks = distributed.read_ranks()
    device = distributed.choose_device(config.device, ranks)
    check_batch_divides(config, ranks)
    check_engine(config.eval.engine)
    find_callbacks(config.log.callbacks, config.log.callback_folder)
    check_compile(config, device, ranks)
    resume = resume or distributed.was_restarted()
    detector = None
    if not (resume and RunFolder(output).checkpoints()):
        config, detector = resolve_model(config)
    claimed = claim(output, resume=resume, overwrite=overwrite) if ranks.is_main else nullcontext(RunFolder(output))
    with claimed as folder, distributed.leaving(), distributed.naming_ranks(ranks):
        train_in(folder, config, ranks, device, resume, commands, detector, on_row)


def train_in(
    folder: RunFolder,
    config: Config,
    ranks: Ranks,
    device: torch.device,
    resume: bool,
    commands: CommandLines,
    detector: TrainedDetector | None = None,
    on_row: OnRow = lambda row: None,
) -> None:
    """`train` in a folder that this run has claimed, with the detector of a resolved config's `model.weights`."""
    train_set, val_set = load_data(config, ranks)
    loss_notes = check_own_loss(config.loss.classification, len(train_set.categories))
    callbacks = load_callbacks(config.log.callbacks, config.log.callback_folder) if ranks.is_main else []
    start = fit_detector(detector, config, train_set.categories) if detector is not None else None
    distributed.start(ranks, device, timeout=3 * config.distributed.timeout)
    resumable = distributed.agree(
        resume and bool(folder.checkpoints()), f"output: only some ranks can read {folder.last}", device
    )
    saved, source, fallback = choose_checkpoint(folder) if resumable else (None, folder.last, "")
    if saved is not None:
        check_same_images(folder.images, train_set, val_set, config.data.source)
        config = continue_model(config, saved.config)
    asked, config = config, resolve(config, train_set, device, ranks, saved)
    step = saved.progress.step if saved is not None else 0
    check_agreement(asked, train_set, val_set, step, ranks, device)
    prepare_torch(config)
    images = count_epoch(config, train_set)
    state = build_state(config, len(train_set.categories), device, ranks, load_weights=saved is None, start=start)
    if saved is not None:
        restore(state, saved, config, train_set.categories, source)
    run = Run(
        config=config,
        plan=build_plan(config.schedule, images),
        train_set=train_set,
        val_set=val_set,
        epoch_images=images,
        folder=folder,
        device=device,
        ranks=ranks,
        commands=commands,
        features=open_train_features(config, train_set, state.model, device, ranks),
        finished_at=finished_step(saved, images) if saved is not None else None,
    )
    if saved is not None:
        check_length(run.plan, state.progress.step, source)
    compiling = compiler_errors() if config.compile else nullcontext()
    request = StopRequest()
    rows = partial(pass_row, [*callbacks, on_row], request)
    with open_log(run, state, resume, rows) as log, listen(log.acknowledge, request) as stop, compiling:
        described = describe_auto(asked, config, images), describe_long_warmup(config.schedule, run.plan)
        for line in (fallback, *described, *(f"note: {note}" for note in loss_notes)):
            if line:
                log.say(line)
        say_start(log, state, start)
        if saved is not None:
            note_changes(log, run, saved, images)
        with advising(run, state), distributed.naming_ranks(ranks):
            run_steps(run, state, log, stop)
    distributed.stop()


def note_changes(log: RunLog, run: Run, saved: Checkpoint, images: int) -> None:
    """Log with which other length and learning rate a run goes on. images: of an epoch."""
    step = saved.progress.step
    plans = build_plan(saved.config.schedule, images), run.plan
    for course in (
        describe_new_length(saved.config, run.config, plans, step),
        describe_new_rates(saved.config, run.config, step),
    ):
        if course:
            log.note(step, course)


@contextmanager
def advising(run: Run, state: TrainState) -> Iterator[None]:
    """Add to the message of a run that ends without its last step what it can be continued from, and how."""
    try:
        yield
    except (NumericalError, RankError, ResourceError) as error:
        if run.ranks.is_main:
            run.folder.check_owned()  # else every other message would be of an effect
        words = f"schedule.lr={run.config.schedule.lr / 10:g}" if isinstance(error, NumericalError) else ""
        raise type(error)(f"{error} {run.describe_kept(state.saved_step, words)}") from error


def resolve(
    config: Config, train_set: CocoDataset, device: torch.device, ranks: Ranks, saved: Checkpoint | None
) -> Config:
    """The config with values for what depends on data or device: `auto`, and numbers for names of class weights.

    A resumed run keeps the micro-batches that it began with, and whether its network is compiled.
    """
    images = count_epoch(config, train_set)
    resolved = resolve_class_weights(resolve_auto(config, images), train_set)
    resolved = resolved.model_copy(update={"model": choose_channels_last(resolved.model, device)})
    if config.schedule.batch_size == "auto" and saved is None:
        resolved = fit_accumulation(resolved, train_set.images, len(train_set.categories), device, ranks)
    elif config.schedule.batch_size == "auto" and saved is not None:
        accumulation = saved.config.schedule.accumulation
        schedule = resolved.schedule.model_copy(update={"accumulation": accumulation})
        resolved = resolved.model_copy(update={"schedule": schedule})
    steps = build_plan(resolved.schedule, images).total_steps
    resolved = resolve_compile(resolved, steps, device, ranks, saved.config if saved is not None else None)
    check_compile(resolved, device, ranks)
    return resolved


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


def pass_row(functions: Sequence[OnRow], stop: StopRequest, row: dict[str, Any]) -> None:
    """Call each function, and ask for a stop where one returns False."""
    answers = [function(row) for function in functions]
    if any(answer is False for answer in answers):
        stop.by_caller = True


def open_log(run: Run, state: TrainState, resume: bool, on_row: Callable[[dict[str, Any]], None]) -> RunLog:
    """Write config.yaml and images.json; the run's log, with what is known before step 1, silent on other ranks."""
    if not run.ranks.is_main:
        return SilentLog()
    if not resume:
        set_aside(run.folder)  # the one that --overwrite replaces, if there is one
    text = dump_config(run.config)
    write_text(run.folder.config, text)
    if run.config.data.source is not None and not run.folder.images.is_file():
        write_images(run.folder.images, run.train_set, run.val_set)
    step = state.progress.step
    log = MetricsLog(
        run.folder.path,
        resume_step=step if resume else None,
        total_steps=run.plan.total_steps,
        expected_rows=state.progress.rows,
        on_row=on_row,
    )
    opening = Opening(
        config=run.config,
        plan=run.plan,
        train_set=run.train_set,
        val_set=run.val_set,
        epoch_images=run.epoch_images,
        evaluations=sum(evaluation_due(run, number) for number in range(1, run.plan.total_steps + 1)),
        model=state.model,
        step=step,
        device=run.device,
        ranks=run.ranks,
        folder=run.folder.path,
    )
    log.config(step, text)
    log.say(Facts(describe_run(opening)))
    return log
