"""Progress on standard output: bars and live lines on a terminal, plain lines from time to time elsewhere."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

LINE_SECONDS = 10.0
"""Minimum time between the plain lines of a bar."""
LEAST_SECONDS = 1.0
"""A speed is shown only after at least this time."""


@contextmanager
def image_progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the number of images finished since its last call."""
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn("images, left"), TimeRemainingColumn())
    done = 0

    def line(done: int, seconds: float) -> str:
        return f"{title} {done}/{total} images{_image_speed(done, total, seconds)}"

    with _bar(columns, total, 0, line, transient=True) as report:

        def advance(count: int) -> None:
            nonlocal done
            done += count
            report(done)

        yield advance


def _image_speed(done: int, total: int, seconds: float) -> str:
    """Images per second and the time left, as text; empty while there is no speed yet."""
    if done < 2 or seconds < LEAST_SECONDS:
        return ""
    left = f", {(total - done) * seconds / done:.0f} s left" if done < total else ""
    return f", {done / seconds:.1f} images/s{left}"


@contextmanager
def transfer_progress(title: str, total: int, start: int) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the number of bytes that are there so far, of `total`; `start` were before."""
    columns = (TextColumn(title), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())

    def line(done: int, seconds: float) -> str:
        speed = max(done - start, 1) / max(seconds, 1e-6)
        left = f"{speed / 1e6:.1f} MB/s, {(total - done) / speed:.0f} s left"
        return f"{title}: {done / 1e6:.1f} of {total / 1e6:.1f} MB, {left}"

    with _bar(columns, total, start, line, transient=False) as report:
        yield report


@contextmanager
def _bar(
    columns: tuple[ProgressColumn, ...], total: int, start: int, line: Callable[[int, float], str], *, transient: bool
) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the amount done so far.

    line: (amount done, seconds since the start) -> the text printed every LINE_SECONDS where there is no terminal.
    transient: the bar disappears at the end.
    """
    if sys.stdout.isatty():
        with Progress(*columns, transient=transient) as bar:
            task = bar.add_task("", total=total, completed=start)
            yield lambda done: bar.update(task, completed=done)
        return
    began = shown = time.monotonic()

    def report(done: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown >= LINE_SECONDS or done == total:
            shown = now
            print(line(done, now - began), flush=True)

    yield report


@contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """Yields a function to call with what is done next, which a terminal shows while it lasts."""
    with Console().status("") as status:
        yield lambda text: status.update(text + " ...")


class LiveLines:
    """Permanent lines and, below them on a terminal, lines that are redrawn; elsewhere plain lines.

    every: minimum seconds between two plain lines of `show`.
    terminal: None checks whether standard output is one.
    """

    def __init__(self, *, every: float = 0.0, terminal: bool | None = None) -> None:
        self._every, self._shown = every, time.monotonic()
        self._live: Live | None = None
        if sys.stdout.isatty() if terminal is None else terminal:
            # No refresh thread: it would take Python's lock from the work that is reported.
            self._live = Live(console=Console(force_terminal=True), auto_refresh=False)
            self._live.start()

    def say(self, what: RenderableType) -> None:
        """Print text (literally, no markup) or a rich renderable as permanent lines."""
        if self._live is not None:
            self._live.console.print(Text(what) if isinstance(what, str) else what)
        elif isinstance(what, str):
            print(what, flush=True)
        else:
            Console(file=sys.stdout).print(what)

    def show(self, live: RenderableType, plain: str) -> None:
        """Redraw the live lines as `live`, or print the line `plain` where there is no terminal."""
        if self._live is not None:
            self._live.update(live, refresh=True)
        elif time.monotonic() - self._shown >= self._every:
            self._shown = time.monotonic()
            print(plain, flush=True)

    def close(self, *, erase: bool = False) -> None:
        """Stop redrawing; the live lines stay unless `erase`. May be called again."""
        if self._live is not None:
            if erase:
                self._live.update(Text(""), refresh=True)
            self._live.stop()
