"""Logging of a run's numbers: metrics.jsonl (the authoritative record), TensorBoard and the console.

A line of metrics.jsonl is one JSON object:
  {"kind": "train", "step": int, "epoch": float, ...values, "clock": {...}}
  {"kind": "eval", "step": int, ...metrics, "clock": {...}}
  {"kind": "note", "step": int, "text": str, "clock": {...}}
Keys are in a fixed order, floats are written by repr, and only `clock` depends on the machine's speed: two equal runs,
interrupted or not, have equal bytes without it (`metric_rows.without_clock`).
"""

import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from rich.console import RenderableType

from retinanet.display.console import COCO_PRECISIONS, COCO_RECALLS, RunConsole, TrainingRow
from retinanet.errors import NumericalError, ResourceError, list_errors, remedy_for
from retinanet.run.lost_rows import restore_rows
from retinanet.run.metric_rows import FILE_NAME, TENSORBOARD_TAGS, count_rows, row_line, truncate_rows

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

_ORDER = (
    *("loss", "loss_class", "loss_box", "lr", "grad_norm", "positives_per_image", "anchors_per_image"),
    *("logits_per_image", "class_loss_foreground_share"),
    *COCO_PRECISIONS,
    *COCO_RECALLS,
    *("time", "images_per_second", "data_wait", "memory_mb", "seconds_left"),
)
_RESERVED = frozenset({"kind", "step", "epoch", "text", "clock"})


class MetricsLog:
    """Writes a run's numbers on rank 0; a context manager. Other ranks use `SilentLog`.

    folder: the run folder; created if missing.
    resume_step: None starts an empty metrics.jsonl. A step s truncates it, atomically, to what a run has written right
        after its s-th update: training rows up to s, and evaluations and notes before s, because the evaluation of
        step s is repeated. The same events are removed from TensorBoard.
    total_steps: length of the run, for the progress line.
    expected_rows: training rows and evaluations that the file had at the resumed step; -1: not known. Missing ones are
        restored from TensorBoard, rounded to float32, and a note says how many are.
    terminal: whether to draw live lines; None: if standard output is a terminal.
    on_row: called with each row once it is in the file; what it raises ends the run.
    Raises CheckpointError for a damaged metrics.jsonl, ResourceError for a folder that cannot be written to.
    """

    def __init__(
        self,
        folder: Path,
        *,
        resume_step: int | None,
        tensorboard: bool = True,
        total_steps: int,
        terminal: bool | None = None,
        expected_rows: int = -1,
        on_row: Callable[[dict[str, Any]], None] = lambda row: None,
    ) -> None:
        self._on_row = on_row
        self._path, lost = folder / FILE_NAME, ""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            kept = truncate_rows(self._path, resume_step)
            if resume_step is not None and count_rows(kept) < expected_rows:
                kept, lost = restore_rows(self._path, kept, resume_step, expected_rows)
            self.rows = count_rows(kept)
            """Training rows and evaluations in the file."""
            self._file = self._path.open("ab", buffering=0)
        except OSError as error:
            raise _unwritable(self._path, error) from error
        self._console = RunConsole(total_steps, terminal)
        self._writer = self._open_tensorboard(folder / "tensorboard", resume_step) if tensorboard else None
        if resume_step is not None:
            for row in kept:
                if row["kind"] == "train" and row["step"] == resume_step:
                    self._train_scalars(resume_step, row.get("epoch", 0.0), _values_of(row), row.get("clock", {}))
        if lost:
            self.note(resume_step or 0, lost)

    def __enter__(self) -> "MetricsLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.close()
        except ResourceError:
            if error is None:  # else the first error is the cause, and the one to report
                raise

    def train(self, step: int, epoch: float, values: Mapping[str, float], clock: Mapping[str, float]) -> None:
        """Record the `step`-th update.

        values: finite numbers that are equal in equal runs: loss, loss_class, loss_box, lr, grad_norm,
            positives_per_image, anchors_per_image, logits_per_image, class_loss_foreground_share (0..1), or others.
        clock: numbers that depend on the machine: time, images_per_second, data_wait (fraction, 0..1), memory_mb,
            seconds_left; a value that is not finite is written as null.
        Raises NumericalError that names every value that is not finite; the row is then not written.
        """
        row = {"kind": "train", "step": step, "epoch": float(epoch), **_finite(step, values)}
        self._write(row, clock)
        self._train_scalars(step, epoch, values, clock)
        self._console.train(TrainingRow(step=step, epoch=epoch, values=values, clock=_known(clock)))

    def begin(self, step: int, epoch: float) -> None:
        """Show that updates follow the first `step`; nothing is recorded."""
        self._console.begin(step, epoch)

    def step(self, step: int, epoch: float, values: Mapping[str, float], clock: Mapping[str, float]) -> None:
        """Show the `step`-th update on a terminal without recording it; arguments as of `train`."""
        self._console.step(TrainingRow(step=step, epoch=epoch, values=values, clock=_known(clock)))

    def evaluating(self, step: int, images: int, total: int, seconds_left: float) -> None:
        """Show how many of `total` images the evaluation after `step` has detected on, and the seconds left in all."""
        self._console.evaluating(step, images, total, seconds_left)

    def evaluation(self, step: int, metrics: Mapping[str, float], clock: Mapping[str, float]) -> None:
        """Record the evaluation after `step` updates: COCO numbers in 0..1, -1 if there are no instances.

        Raises NumericalError as `train`.
        """
        self._write({"kind": "eval", "step": step, **_finite(step, metrics)}, clock)
        if self._writer is not None:
            with self._writing_events():
                for name, value in metrics.items():
                    if value >= 0:
                        self._writer.add_scalar(f"eval/{name}", value, step)
                self._writer.flush()
        self._console.evaluation(step, metrics)

    def note(self, step: int, text: str) -> None:
        """Record and show an event of the run itself, such as early stopping.

        It is part of what equal runs have in common; events of one process (a resume, a signal) go to `say`.
        """
        self._write({"kind": "note", "step": step, "text": text}, {"time": time.time()})
        self._console.say(text)

    def say(self, what: RenderableType) -> None:
        """Show text or a rich renderable on the console, without recording it."""
        self._console.say(what)

    def acknowledge(self, text: str) -> None:
        """Show the answer to a signal; from now on a closed standard output does not end the run before it is saved."""
        self._console.acknowledge(text)

    def last_words(self, what: RenderableType) -> None:
        """Show what the run has come to, in place of its progress."""
        self._console.close(erase=True)
        self._console.say(what)

    def image(self, step: int, tag: str, image_HW3: NDArray[np.uint8]) -> None:
        """Write a picture, (H, W, 3) uint8 RGB, to TensorBoard."""
        if self._writer is not None:
            with self._writing_events():
                self._writer.add_image(tag, image_HW3, step, dataformats="HWC")

    def config(self, step: int, text: str) -> None:
        """Write the config's YAML to TensorBoard's texts."""
        if self._writer is not None:
            with self._writing_events():
                self._writer.add_text("config", f"```yaml\n{text}\n```", step)

    def close(self) -> None:
        """Flush and close everything; may be called again."""
        self._console.close()
        self._file.close()
        writer, self._writer = self._writer, None
        if writer is not None:
            with self._writing_events():
                try:
                    writer.close()
                finally:
                    threading.excepthook = self._hook

    def _on_thread_error(self, error: threading.ExceptHookArgs) -> None:
        """Leave out the traceback of TensorBoard's thread where a write failed, because its next call raises that."""
        if not isinstance(error.exc_value, OSError):
            self._hook(error)

    @contextmanager
    def _writing_events(self) -> Iterator[None]:
        """Within this context an error of TensorBoard's files names their folder."""
        try:
            yield
        except OSError as error:
            raise _unwritable(self._path.parent / "tensorboard", error) from error

    def _open_tensorboard(self, folder: Path, resume_step: int | None) -> "SummaryWriter | None":
        try:
            # Imported here, because it takes a second and is optional.
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            self._console.say(
                f"no TensorBoard events: {error} (pip install tensorboard); metrics.jsonl has all the numbers"
            )
            return None
        # TensorBoard ignores older events from purge_step on: all those of a previous run in this folder, or those of
        # the resumed step, whose training row is then written again.
        self._hook, threading.excepthook = threading.excepthook, self._on_thread_error
        with self._writing_events():
            return SummaryWriter(folder, purge_step=0 if resume_step is None else resume_step)

    def _train_scalars(
        self, step: int, epoch: float, values: Mapping[str, float], clock: Mapping[str, float | None]
    ) -> None:
        if self._writer is None:
            return
        with self._writing_events():
            self._writer.add_scalar("schedule/epoch", epoch, step)
            for name, value in values.items():
                self._writer.add_scalar(TENSORBOARD_TAGS.get(name, f"data/{name}"), value, step)
            for name, value in _known(clock).items():
                if name not in ("time", "restored"):
                    self._writer.add_scalar(f"speed/{name}", value, step)
            self._writer.flush()  # so that a killed run has all events that metrics.jsonl has

    def _write(self, row: dict[str, Any], clock: Mapping[str, float]) -> None:
        known = _known(clock)
        row["clock"] = {name: known.get(name) for name in _ordered(clock)}
        line, size = row_line(row).encode("utf-8"), self._file.seek(0, os.SEEK_END)
        try:
            while line:
                line = line[self._file.write(line) :]
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(size)  # no part of a row
            raise _unwritable(self._path, error) from error
        self.rows += row["kind"] != "note"
        self._on_row(row)


class SilentLog:
    """A `MetricsLog` that does nothing, for every rank but rank 0."""

    rows = -1

    def __enter__(self) -> "SilentLog":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def train(self, step: int, epoch: float, values: Mapping[str, float], clock: Mapping[str, float]) -> None:
        """Ignore an update."""

    def begin(self, step: int, epoch: float) -> None:
        """Ignore the start."""

    def step(self, step: int, epoch: float, values: Mapping[str, float], clock: Mapping[str, float]) -> None:
        """Ignore an update."""

    def evaluating(self, step: int, images: int, total: int, seconds_left: float) -> None:
        """Ignore the progress of an evaluation."""

    def evaluation(self, step: int, metrics: Mapping[str, float], clock: Mapping[str, float]) -> None:
        """Ignore an evaluation."""

    def note(self, step: int, text: str) -> None:
        """Ignore an event."""

    def say(self, what: RenderableType) -> None:
        """Ignore a text."""

    def acknowledge(self, text: str) -> None:
        """Ignore the answer to a signal."""

    def last_words(self, what: RenderableType) -> None:
        """Ignore the end."""

    def image(self, step: int, tag: str, image_HW3: NDArray[np.uint8]) -> None:
        """Ignore a picture."""


RunLog = MetricsLog | SilentLog


def _unwritable(path: Path, error: OSError) -> ResourceError:
    return ResourceError(f"{path}: cannot be written ({error.strerror or error}); {remedy_for(error.errno)}.")


def _ordered(values: Mapping[str, float]) -> list[str]:
    """Names in the order of the file: those of _ORDER, then others alphabetically."""
    return [name for name in _ORDER if name in values] + sorted(values.keys() - set(_ORDER))


def _finite(step: int, values: Mapping[str, float]) -> dict[str, float]:
    """The values as plain Python numbers in the order of the file; NumericalError if one is not finite."""
    if clashes := _RESERVED & values.keys():
        raise ValueError(f"these names are reserved for the row itself: {', '.join(sorted(clashes))}")
    numbers = {name: _plain(values[name]) for name in _ordered(values)}
    errors = [f"{name} is {value}" for name, value in numbers.items() if not math.isfinite(value)]
    if errors:
        raise NumericalError(list_errors(f"step {step}: values that are not finite; lower the learning rate", errors))
    return numbers


def _plain(value: float) -> float:
    return value if type(value) is int else float(value)


def _known(clock: Mapping[str, float | None]) -> dict[str, float]:
    """The entries of a clock that are finite numbers."""
    return {name: _plain(value) for name, value in clock.items() if value is not None and math.isfinite(value)}


def _values_of(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in row.items() if name not in _RESERVED}
