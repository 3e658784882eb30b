"""Progress over images: a bar with speed and time left on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_SECONDS = 10.0
"""Least time between plain lines."""


@contextmanager
def image_progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Gives a function that is told how many more images are done."""
    if sys.stdout.isatty():
        columns = (
            TextColumn(title),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("images, left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, transient=True) as bar:
            task = bar.add_task(title, total=total)
            yield lambda count: bar.advance(task, count)
        return
    started = shown = time.monotonic()
    done = 0

    def report(count: int) -> None:
        nonlocal done, shown
        done += count
        now = time.monotonic()
        if now - shown >= LINE_SECONDS or done == total:
            shown = now
            pace = done / max(now - started, 1e-9)
            print(f"{title} {done}/{total} images, {pace:.1f} a second, {(total - done) / pace:.0f} s left", flush=True)

    yield report
