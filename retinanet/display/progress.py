"""Progress over images: a bar with speed and time left on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_SECONDS = 10.0
"""Least time between plain lines."""


LEAST_SECONDS = 1.0
"""Shorter times tell no speed."""


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
            print(f"{title} {done}/{total} images{_speed(done, total, now - started)}", flush=True)

    yield report


def _speed(done: int, total: int, seconds: float) -> str:
    """Words on images a second and time left; none before there is a speed to tell."""
    if done < 2 or seconds < LEAST_SECONDS:
        return ""
    left = f", {(total - done) * seconds / done:.0f} s left" if done < total else ""
    return f", {done / seconds:.1f} a second{left}"


@contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """Gives a function that is told what is done next; a terminal shows it while it lasts."""
    with Console().status("") as status:
        yield lambda text: status.update(text + " ...")
