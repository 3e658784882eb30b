"""The output of a run on the terminal: numbers of training and evaluation as lines and tables.

Formats numbers only and stores nothing. `run/metrics.py` decides what is shown and when.
"""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from retinanet.display.progress import LINE_SECONDS, LiveLines, plain_width
from retinanet.errors import printable

COCO_PRECISIONS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
COCO_RECALLS = ("AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
MOST_CLASSES = 20
"""Classes in the table at the end of a training."""
ABSENT = "-"
"""Shown where there is no number, such as the AP of a class without instances."""


def format_ap(value: float | None) -> str:
    """AP or AR in 0..1 with three decimals; a dash for COCO's -1 (no instances)."""
    return ABSENT if value is None or value < 0 else f"{value:.3f}"


def format_seconds(seconds: float | None) -> str:
    """Seconds as 45s, 4m10s, 2h05m or 3d04h; a dash where unknown."""
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        return ABSENT
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def format_training(values: Mapping[str, float], clock: Mapping[str, float], width: int) -> str:
    """One line of a training row, as much of it as fits into `width` columns; each number has a fixed width.

    `values` may hold loss, loss_class, loss_box, lr and grad_norm; `clock` may hold images_per_second,
    data_wait (a fraction, 0..1) and memory_mb. Missing values are shown as a dash.
    """
    lr, wait = values.get("lr"), clock.get("data_wait")
    parts = {
        "loss": f"loss {_fixed(values.get('loss'))}",
        "each": f"class {_fixed(values.get('loss_class'))}  box {_fixed(values.get('loss_box'))}",
        "lr": f"lr {ABSENT if lr is None else f'{lr:.4f}' if lr >= 1e-3 else f'{lr:.0e}':>6}",
        "grad": f"grad {_short(values.get('grad_norm')):>5}",
        "speed": f"{_short(clock.get('images_per_second')):>5} images/s",
        "wait": f"wait {ABSENT if wait is None else f'{wait:.0%}':>3}",
        "memory": f"{_memory(clock.get('memory_mb')):>6}",
    }
    shown: set[str] = set()
    for name in ("loss", "speed", "lr", "each", "wait", "memory", "grad"):
        if sum(len(parts[other]) + 2 for other in (*shown, name)) - 2 <= width:
            shown.add(name)
    return "  ".join(text for name, text in parts.items() if name in shown)


def format_evaluation(metrics: Mapping[str, float], width: int) -> str:
    """The COCO numbers that `metrics` holds on one line, AP first, as many as fit into `width` columns."""
    line = ""
    for name in (*COCO_PRECISIONS, "AR100"):
        if name in metrics:
            longer = f"{line}  {name} {format_ap(metrics[name])}".strip()
            if line and len(longer) > width:
                break
            line = longer
    return line


def _fixed(value: float | None) -> str:
    if value is None:
        return f"{ABSENT:>5}"
    return f"{value:5.3f}" if abs(value) < 10 else f"{value:5.1f}" if abs(value) < 1000 else f"{value:5.0e}"


def _short(value: float | None) -> str:
    if value is None:
        return ABSENT
    return f"{value:.0f}" if 100 <= abs(value) < 1e5 else f"{value:.1f}" if 1 <= abs(value) < 100 else f"{value:.2g}"


def _memory(megabytes: float | None) -> str:
    if megabytes is None:
        return ABSENT
    return f"{megabytes / 1000:.1f} GB" if megabytes >= 1000 else f"{megabytes:.0f} MB"


class TrainingRow(NamedTuple):
    """What is shown of an update: arguments as of `MetricsLog.train`."""

    step: int
    epoch: float
    values: Mapping[str, float]
    clock: Mapping[str, float]


class RunConsole:
    """Progress of one run on standard output: two live lines on a terminal, a line for each training row elsewhere.

    `terminal` None checks whether standard output is one.
    """

    def __init__(self, total_steps: int, terminal: bool | None = None) -> None:
        self._total = total_steps
        self._lines = LiveLines(terminal=terminal, moving=True)
        self._began = self._printed = time.monotonic()
        self._row = TrainingRow(step=0, epoch=0.0, values={}, clock={})

    def begin(self, step: int, epoch: float) -> None:
        """Show that the run goes on after `step` updates."""
        self._row = TrainingRow(step=step, epoch=epoch, values={}, clock={})
        self._show(f"step {step}/{self._total}", step / max(self._total, 1), "starting: the first step takes longest")

    def step(self, row: TrainingRow) -> None:
        """Show the last update on a terminal; cheap enough for every step. Its clock may leave figures out."""
        self._row = row._replace(clock={**self._row.clock, **row.clock})
        if self._lines.is_live:
            self._show(f"step {row.step}/{self._total}  epoch {row.epoch:.1f}", row.step / max(self._total, 1))

    def train(self, row: TrainingRow) -> None:
        """Show a training row, as a line of its own where there is no terminal."""
        if self._lines.is_live:
            self.step(row)
            return
        count = f"step {row.step:>{len(str(self._total))}}/{self._total}  epoch {row.epoch:.1f}"
        left = f"left {format_seconds(row.clock.get('seconds_left')):>5}"
        details = format_training(row.values, row.clock, plain_width() - len(count) - len(left) - 4)
        self._lines.show("", f"{count}  {details}  {left}")

    def evaluating(self, step: int, images: int, total: int, seconds_left: float) -> None:
        """Show that `images` of `total` images have been through the network, in the evaluation after `step`."""
        what = f"evaluating {images}/{total} images" if images < total else f"evaluated {total} images, scoring"
        self._row = self._row._replace(clock={**self._row.clock, "seconds_left": seconds_left})
        if self._lines.is_live:
            self._show(f"step {step}/{self._total}  {what}", images / max(total, 1))
        elif images == 0:
            self._printed = time.monotonic()
        elif time.monotonic() - self._printed >= LINE_SECONDS:
            self._printed = time.monotonic()
            self._lines.show("", f"step {step}/{self._total}  {what}")

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Print a permanent line with the COCO numbers of `step`."""
        count = f"eval {step:>{len(str(self._total))}}/{self._total}  "
        self.say(count + format_evaluation(metrics, plain_width() - len(count)))

    def say(self, what: RenderableType) -> None:
        """Print text (literally, no markup) or a rich renderable above the live lines."""
        self._lines.say(what)

    def acknowledge(self, text: str) -> None:
        """Print the answer to a signal; from now on the run goes on even if nobody reads its output."""
        self._lines.forgive()
        self._lines.say(text)

    def close(self, *, erase: bool = False) -> None:
        """Stop redrawing and keep the last lines, unless `erase`; may be called again."""
        self._lines.close(erase=erase)

    def _show(self, title: str, done: float, details: str = "") -> None:
        self._lines.show(_MovingLines(title=title, done=done, details=details, row=self._row, began=self._began), None)


class _MovingLines:
    """The two live lines of a run; each time that they are drawn, time has gone on."""

    def __init__(self, *, title: str, done: float, details: str, row: TrainingRow, began: float) -> None:
        """done: fraction of the bar, 0..1. details: second line, instead of the row's numbers. began: of the run."""
        self._title, self._done, self._details, self._row, self._began = title, done, details, row, began
        self._made = time.monotonic()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        now = time.monotonic()
        left = self._row.clock.get("seconds_left")
        if left is not None:
            left = max(left - (now - self._made), 0.0)
        times = f"{format_seconds(now - self._began)}  left {format_seconds(left)}"
        bar = Table.grid(padding=(0, 2), expand=True)
        bar.add_column(no_wrap=True)
        bar.add_column(ratio=1)
        bar.add_column(no_wrap=True)
        bar.add_row(self._title, ProgressBar(total=1.0, completed=self._done), times)
        yield bar
        # The last line has room for the ^C that a terminal writes: in a line more, redrawing would miss the lines.
        width = options.max_width - 4
        details = self._details or format_training(self._row.values, self._row.clock, width)
        yield Text(details[:width], no_wrap=True, overflow="ellipsis")


class _PerClass:
    """Per-class results in as many side-by-side groups of columns as the width allows."""

    def __init__(self, per_class: Sequence[Mapping[str, Any]]) -> None:
        self._per_class = per_class

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        names = [Text(printable(str(entry["name"])), no_wrap=True, overflow="ellipsis") for entry in self._per_class]
        name_width = min(max(len("class"), *(name.cell_len for name in names)), 24)
        group_width = name_width + sum((2 + 7, 2 + 5, 2 + 5)) + 3  # instances, AP, AP50, each with its gap; a rule
        groups = max(1, min(options.max_width // group_width, -(-len(names) // 10)))
        rows = -(-len(names) // groups)
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
        for group in range(groups):
            if group:
                table.add_column("", width=1)
            table.add_column("class", width=name_width, no_wrap=True)
            for title, width in (("AP", 5), ("AP50", 5), ("objects", 7)):
                table.add_column(title, justify="right", min_width=width, no_wrap=True)
        for row in range(rows):
            cells: list[RenderableType] = []
            for group in range(groups):
                cells += [""] * bool(group)
                index = group * rows + row
                cells += self._cells(names[index], self._per_class[index]) if index < len(names) else [""] * 4
            table.add_row(*cells)
        yield table

    @staticmethod
    def _cells(name: Text, entry: Mapping[str, Any]) -> list[RenderableType]:
        instances = entry.get("instances")
        ap, ap50 = format_ap(entry.get("AP")), format_ap(entry.get("AP50"))
        return [name, ap, ap50, ABSENT if instances is None else str(instances)]


def class_table(per_class: Sequence[Mapping[str, Any]]) -> RenderableType:
    """A table of the classes, in their order; of more than MOST_CLASSES those of lowest and of highest AP.

    per_class: entries with `name`, `AP`, `AP50` and `instances`.
    """
    if len(per_class) <= MOST_CLASSES:
        return _PerClass(per_class)
    ranked = sorted((entry for entry in per_class if entry["AP"] >= 0), key=lambda entry: float(entry["AP"]))
    if len(ranked) <= MOST_CLASSES:
        return _PerClass(ranked)
    half = MOST_CLASSES // 2
    title = f"the {half} lowest and the {half} highest of {len(ranked)} classes with objects:"
    return Group(Text(title), _PerClass([*ranked[:half], *ranked[-half:]]))


def evaluation_table(
    metrics: Mapping[str, float], per_class: Sequence[Mapping[str, Any]], remarks: Sequence[str] = ()
) -> RenderableType:
    """The 12 COCO numbers and, below, every class and the remarks, for `rich.console.Console.print`.

    metrics: AP ... ARl in 0..1, -1 where there are no instances (shown as a dash).
    per_class: entries with `name`, `AP`, `AP50` and `instances`; kept in their order, read down the columns.
    remarks: a sentence each.
    The number of columns follows the width of the console.
    """
    summary = Table.grid(padding=(0, 2, 0, 0))
    for _ in COCO_PRECISIONS:
        summary.add_column(justify="right")
    for names in (COCO_PRECISIONS, COCO_RECALLS):
        summary.add_row(*(Text(name, style="bold") for name in names))
        summary.add_row(*(format_ap(metrics.get(name)) for name in names))
    parts: list[RenderableType] = [summary]
    if per_class:
        parts += ["", _PerClass(per_class)]
    if remarks:
        parts += ["", *(Padding(Text(printable(remark)), (0, 0, 0, 2)) for remark in remarks)]
    return Group(*parts)


def parts_table(rows: Sequence[Sequence[str]]) -> RenderableType:
    """Parts of a network and what became of them: (part, count, outcome) each; texts are literal."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    for _ in range(2):
        table.add_column(no_wrap=True)
    table.add_column()
    for row in rows:
        table.add_row(*(Text(printable(text)) for text in row))
    return Padding(table, (0, 0, 0, 2), expand=False)


def print_plain(console: Console, text: str) -> None:
    """Print text literally: no markup, no colours, lines not wrapped, so that they can be copied."""
    console.print(printable(text), markup=False, highlight=False, soft_wrap=True)
