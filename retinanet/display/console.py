"""The output of a run on the terminal: numbers of training and evaluation as lines and tables.

Formats numbers only and stores nothing. `run/metrics.py` decides what is shown and when.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from retinanet.display.progress import LiveLines

COCO_PRECISIONS = ("AP", "AP50", "AP75", "APs", "APm", "APl")
COCO_RECALLS = ("AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
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


def format_training(values: Mapping[str, float], clock: Mapping[str, float]) -> str:
    """One line of a training row from `loss` to `memory`; each number has a fixed width, so that lines align.

    `values` may hold loss, loss_class, loss_box, lr and grad_norm; `clock` may hold images_per_second,
    data_wait (a fraction, 0..1) and memory_mb. Missing values are shown as a dash.
    """
    lr = values.get("lr")
    wait = clock.get("data_wait")
    parts = [
        f"loss {_fixed(values.get('loss'))} (class {_fixed(values.get('loss_class'))}"
        f" box {_fixed(values.get('loss_box'))})",
        f"lr {ABSENT if lr is None else f'{lr:.4f}' if lr >= 1e-3 else f'{lr:.0e}':>6}",
        f"grad {_short(values.get('grad_norm')):>5}",
        f"{_short(clock.get('images_per_second')):>5} img/s",
        f"wait {ABSENT if wait is None else f'{wait:.0%}':>3}",
        f"{_memory(clock.get('memory_mb')):>6}",
    ]
    return "  ".join(parts)


def format_evaluation(metrics: Mapping[str, float]) -> str:
    """The COCO numbers that `metrics` holds on one line, AP first."""
    return "  ".join(f"{name} {format_ap(metrics[name])}" for name in (*COCO_PRECISIONS, "AR100") if name in metrics)


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


class RunConsole:
    """Progress of one run on standard output: two live lines on a terminal, a line for each training row elsewhere.

    `terminal` None checks whether standard output is one.
    """

    def __init__(self, total_steps: int, terminal: bool | None = None) -> None:
        self._total = total_steps
        self._lines = LiveLines(terminal=terminal)

    def train(self, step: int, epoch: float, values: Mapping[str, float], clock: Mapping[str, float]) -> None:
        """Show a training row; arguments as of `MetricsLog.train`."""
        left = format_seconds(clock.get("seconds_left"))
        details = format_training(values, clock)
        bar = Table.grid(padding=(0, 2), expand=True)
        bar.add_column(no_wrap=True)
        bar.add_column(ratio=1)
        bar.add_column(no_wrap=True)
        progress = ProgressBar(total=max(self._total, 1), completed=step)
        bar.add_row(f"step {step}/{self._total}  epoch {epoch:.1f}", progress, f"left {left}")
        count = f"{step:>{len(str(self._total))}}/{self._total}"
        self._lines.show(
            Group(bar, Text(details, no_wrap=True, overflow="ellipsis")),
            f"step {count}  epoch {epoch:.1f}  {details}  left {left}",
        )

    def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
        """Print a permanent line with the COCO numbers of `step`."""
        self.say(f"eval {step:>{len(str(self._total))}}/{self._total}  {format_evaluation(metrics)}")

    def say(self, what: RenderableType) -> None:
        """Print text (literally, no markup) or a rich renderable above the live lines."""
        self._lines.say(what)

    def close(self) -> None:
        """Stop redrawing and keep the last lines; may be called again."""
        self._lines.close()


class _PerClass:
    """Per-class results in as many side-by-side groups of columns as the width allows."""

    def __init__(self, per_class: Sequence[Mapping[str, Any]]) -> None:
        self._per_class = per_class

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        names = [Text(str(entry["name"]), no_wrap=True, overflow="ellipsis") for entry in self._per_class]
        name_width = min(max(name.cell_len for name in names), 24)
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
        parts += ["", *(Padding(Text(remark), (0, 0, 0, 2)) for remark in remarks)]
    return Group(*parts)


def parts_table(rows: Sequence[Sequence[str]]) -> RenderableType:
    """Parts of a network and what became of them: (part, count, outcome) each; texts are literal."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=False)
    for _ in range(2):
        table.add_column(no_wrap=True)
    table.add_column()
    for row in rows:
        table.add_row(*map(Text, row))
    return Padding(table, (0, 0, 0, 2), expand=False)


def print_plain(console: Console, text: str) -> None:
    """Print text literally: no markup, no colours, lines not wrapped, so that they can be copied."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
