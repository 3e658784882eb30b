"""Console output of a running study: a line for each cell that starts or ends, and the progress of the others."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Group
from rich.text import Text

from retinanet.ablation.cells import CellRecord
from retinanet.display.console import format_ap, format_seconds
from retinanet.display.progress import LiveLines

LINE_SECONDS = 60.0
"""Minimum time between progress lines if standard output is no terminal."""
TAIL_BYTES = 8192
"""Part of metrics.jsonl that is read for its last row."""


class CellProgress(NamedTuple):
    """Progress of a running cell."""

    name: str
    step: int = 0
    """0: no step is logged yet."""
    total: int = 0
    seconds_left: float | None = None


def read_progress(name: str, metrics: Path, total_at: Callable[[int, float], int]) -> CellProgress:
    """Progress from the last training row of a metrics.jsonl, without reading the whole file.

    total_at: (step, epoch) of a row -> total number of steps.
    """
    try:
        with metrics.open("rb") as file:
            file.seek(max(0, metrics.stat().st_size - TAIL_BYTES))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return CellProgress(name)
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and row.get("kind") == "train":
            step, seconds_left = int(row["step"]), row["clock"].get("seconds_left")
            total = total_at(step, float(row["epoch"]))
            return CellProgress(name=name, step=step, total=total, seconds_left=seconds_left)
    return CellProgress(name)


class RunnerConsole:
    """Lines on standard output, with live lines below them on a terminal. A context manager."""

    def __init__(self, cells: int) -> None:
        self._cells = cells
        self._lines = LiveLines(every=LINE_SECONDS)

    def __enter__(self) -> "RunnerConsole":
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close(erase=True)

    def say(self, text: str) -> None:
        """Print a permanent line."""
        self._lines.say(text)

    def ended(self, record: CellRecord, finished: int, wall: float) -> None:
        """Print a line for a cell that has ended."""
        if record.test_metrics:
            what = f"AP {format_ap(record.test_metrics.get('AP'))}  AP50 {format_ap(record.test_metrics.get('AP50'))}"
        elif record.val_metrics:
            what = f"AP {format_ap(record.val_metrics.get('AP'))} on the selection split"
        else:
            what = (record.message.splitlines() or [""])[0][:160]
        count = f"[{finished}/{self._cells}]"
        self.say(f"{count} {record.cell:<32} {record.status:<8} {what}  {format_seconds(wall)}")

    def progress(
        self, running: Sequence[CellProgress], finished: int, seconds_left: float | None, waiting: int = 0
    ) -> None:
        """Show the progress of the study; if there is no terminal, at most once in LINE_SECONDS.

        waiting: cells that wait for a node of a cluster.
        """
        left = f"{finished}/{self._cells} cells finished, about {format_seconds(seconds_left)} left"
        left += f", {waiting} waiting for a node" if waiting else ""
        cells = [
            f"{cell.name}: step {cell.step}/{cell.total}, {format_seconds(cell.seconds_left)} left"
            if cell.step
            else f"{cell.name}: starting"
            for cell in running
        ]
        self._lines.show(Group(*(Text(line) for line in [*cells, left])), "; ".join([left, *cells]))
