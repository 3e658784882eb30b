"""The border of every command line: errors become one message and an exit code.

0 done, 1 a bug in retinanet, 2 command line or config, 3 data set, 4 checkpoint, 5 numerical, 6 resources,
7 a study with cells that failed, 8 a cell that another process runs, 9 another rank
is gone, 130 and 143 for signals. Imports nothing heavy,
so that `--help` is quick.
"""

import io
import os
import sys
import traceback
from collections.abc import Callable
from types import TracebackType

from retinanet.commands.import_interrupts import interrupts_after_imports
from retinanet.errors import judge
from retinanet.files import silence_stdout


def run(main: Callable[[], None]) -> int:
    """Run a command's main and return its exit code; errors are printed on stderr. SystemExit passes through."""
    # CPU threads that spin for long while they wait starve each other as soon as anything else runs: next to one busy
    # process a training step took nine times as long. Some tens of microseconds keep the speed of an idle machine.
    # GNU OpenMP reads this when torch is imported, which happens later.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    # Else torch precedes the message on ranks that cannot meet by its own addresses in memory, line by line.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    _prepare_streams()
    border = _Border()
    with border, interrupts_after_imports():
        main()
        sys.stdout.flush()
    return border.exit_code


def _prepare_streams() -> None:
    """Standard streams that are closed (`>&-`) discard; names that an encoding lacks appear as escapes."""
    number = 0
    while number <= 2:  # else the next file that is opened becomes what libraries take for stderr
        number = os.open(os.devnull, os.O_RDWR)
    os.close(number)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - a device, for good
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class _Border:
    """Catches what leaves a `with` block, prints it and keeps the exit code."""

    exit_code = 0

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None or isinstance(error, SystemExit | GeneratorExit):
            return False
        verdict = judge(error)
        self.exit_code = verdict.exit_code
        if isinstance(error, BrokenPipeError):
            silence_stdout()
        try:
            if verdict.is_bug:
                traceback.print_exception(error, file=sys.stderr)
            if verdict.message:
                print(fitted(verdict.message), file=sys.stderr, flush=True)
        except OSError:
            # Nobody reads stderr either, or its terminal is closed; the exit code still reports it.
            pass
        return True


def fitted(message: str) -> str:
    """The message, on a terminal broken between words, with the command that it may end in on lines of its own."""
    if not sys.stderr.isatty():
        return message
    # Imported here: it takes some milliseconds, and other modules import this one to be quick.
    from shutil import get_terminal_size

    from retinanet.display.facts import WIDEST, wrap, wrap_command

    width = min(get_terminal_size().columns, WIDEST)
    text, mark, command = message.partition("Continue with: ")
    lines = wrap(f"{text}{mark}".rstrip(), width)
    return "\n".join([*lines, *(f"  {line}" for line in wrap_command(command, width - 2) if command)])
