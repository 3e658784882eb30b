"""Progress on standard output: bars and live lines on a terminal, plain lines from time to time elsewhere."""

import errno
import os
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

from retinanet.display.facts import wrap
from retinanet.errors import printable
from retinanet.files import silence_stdout

LINE_SECONDS = 10.0
"""Minimum time between the plain lines of a bar."""
LEAST_SECONDS = 1.0
"""A speed is shown only after at least this time."""
REFRESHES = 2.5
"""Times a second that live lines are redrawn, at about a millisecond each."""


NOBODY_READS = (errno.EPIPE, errno.EIO)
"""Errors of writing to a pipe whose reader has ended, and to a terminal that is closed."""


def is_live_terminal() -> bool:
    """Whether lines on standard output can be redrawn: a terminal that moves its cursor (TERM=dumb does not).

    A notebook keeps every state of such lines, those of a command that a cell starts too.
    """
    if "JPY_PARENT_PID" in os.environ or Console(file=sys.stdout).is_jupyter:
        return False
    return sys.stdout.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def plain_width() -> int:
    """Columns of a line on standard output: those of the terminal, of COLUMNS, or 80."""
    return Console(file=sys.stdout).width


@contextmanager
def image_progress(
    title: str, total: int, *, unit: str = "images", then: str = "", shown: bool = True
) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the number of images finished since its last call.

    unit: what is counted, if not images. then: what follows the last one within this context, shown while it lasts.
    shown: False shows nothing.
    """
    if not shown:
        yield lambda count: None
        return
    columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn(f"{unit}, left"), TimeRemainingColumn())
    done = 0

    def line(done: int, seconds: float) -> str:
        return f"{title} {done}/{total} {unit}{_speed(done, total, seconds, unit)}"

    with _bar(columns, total, 0, line, transient=True, then=then) as report:

        def advance(count: int) -> None:
            nonlocal done
            done += count
            report(done)

        yield advance


def _speed(done: int, total: int, seconds: float, unit: str) -> str:
    """How many per second and the time left, as text; empty while there is no speed yet."""
    if done < 2 or seconds < LEAST_SECONDS:
        return ""
    left = f", {(total - done) * seconds / done:.0f} s left" if done < total else ""
    return f", {done / seconds:.1f} {unit}/s{left}"


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
    columns: tuple[ProgressColumn, ...],
    total: int,
    start: int,
    line: Callable[[int, float], str],
    *,
    transient: bool,
    then: str = "",
) -> Iterator[Callable[[int], None]]:
    """Yields a function to call with the amount done so far.

    line: (amount done, seconds since the start) -> the text printed every LINE_SECONDS where there is no terminal.
    transient: the bar disappears at the end. then: shown after the bar when it is full.
    """
    if is_live_terminal():
        with Progress(*columns, TextColumn("{task.description}"), transient=transient) as bar:
            task = bar.add_task("", total=total, completed=start)
            yield lambda done: bar.update(task, completed=done, description=then if done >= total else "")
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
    if not is_live_terminal():
        yield lambda text: None
        return
    with Console().status("") as status:
        yield lambda text: status.update(text + " ...")


class LiveLines:
    """Permanent lines and, below them on a terminal, lines that are redrawn; elsewhere plain lines.

    every: minimum seconds between two plain lines of `show`.
    terminal: None checks whether standard output is one whose lines can be redrawn.
    moving: the live lines are redrawn REFRESHES times a second by a thread of their own, so that what they compute from
        the time moves; `show` then costs next to nothing and may be called at every step. False: `show` redraws.
    """

    def __init__(self, *, every: float = 0.0, terminal: bool | None = None, moving: bool = False) -> None:
        self._every, self._shown = every, time.monotonic()
        self._moving, self._forgiving = moving, False
        self._live: Live | None = None
        if is_live_terminal() if terminal is None else terminal:
            console = Console(force_terminal=True)
            self._live = Live(console=console, auto_refresh=moving, refresh_per_second=REFRESHES)
            self._live.start()

    @property
    def is_live(self) -> bool:
        """Whether there are lines that are redrawn."""
        return self._live is not None

    def say(self, what: RenderableType) -> None:
        """Print text (literally, no markup) or a rich renderable as permanent lines.

        On a terminal text is broken between words.
        """
        what = printable(what) if isinstance(what, str) else what
        try:
            if self._live is not None and isinstance(what, str):
                console = self._live.console
                console.print(Text("\n".join(wrap(what, console.width))), soft_wrap=True)
            elif self._live is not None:
                self._live.console.print(what, crop=False)  # a long path stays whole
            elif isinstance(what, str):
                print(what, flush=True)
            else:
                Console(file=sys.stdout).print(what, crop=False)
        except OSError as error:
            if not self._forgiving or error.errno not in NOBODY_READS:
                raise
            silence_stdout()

    def show(self, live: RenderableType, plain: str | None) -> None:
        """Redraw the live lines as `live`, or print the line `plain` where there is no terminal; None prints none."""
        if self._live is not None:
            self._live.update(live, refresh=not self._moving)
        elif plain is not None and time.monotonic() - self._shown >= self._every:
            self._shown = time.monotonic()
            self.say(plain)

    def forgive(self) -> None:
        """From now on, go on without output where its reader has gone.

        Ctrl-C also ends a `tee` that reads the output; what is to be saved must be saved nevertheless.
        """
        self._forgiving = True

    def close(self, *, erase: bool = False) -> None:
        """Stop redrawing; the live lines stay unless `erase`. May be called again."""
        if self._live is not None:
            self._live.transient = erase
            try:
                self._live.stop()
            except OSError as error:
                if not self._forgiving or error.errno not in NOBODY_READS:
                    raise
                silence_stdout()
