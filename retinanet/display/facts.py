"""Labelled facts as aligned lines, wrapped between words: the first and the last lines of a run."""

import sys
from collections.abc import Sequence
from shutil import get_terminal_size
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.style import Style
from rich.text import Text

from retinanet.errors import printable

WIDEST = 120
"""Columns; longer lines are hard to read."""
LABELS = 12
"""Columns of the labels, if none is longer."""


class Fact(NamedTuple):
    """A label and what it stands for; the text may have several lines."""

    label: str
    text: str
    is_command: bool = False
    """A command line, which stays one that can be pasted where it must be broken."""


class Facts:
    """Facts below each other, texts aligned, for `rich.console.Console.print` and `LiveLines.say`."""

    def __init__(self, facts: Sequence[Fact]) -> None:
        self._facts = [fact._replace(text=printable(fact.text)) for fact in facts]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        column = max([LABELS - 2, *(cell_len(fact.label) for fact in self._facts)]) + 2
        width = min(options.max_width, WIDEST) - column
        for fact in self._facts:
            lines = wrap_command(fact.text, width) if fact.is_command else wrap(fact.text, width)
            for number, line in enumerate(lines):
                label = fact.label if number == 0 else ""
                labelled = Text(label + " " * (column - cell_len(label)), "bold", no_wrap=True, overflow="ignore")
                yield labelled.append(line, Style(bold=False))


def wrap(text: str, width: int) -> list[str]:
    """The lines of a text, each broken between words so that it takes at most `width` cells of a terminal.

    A word that is longer than that stays whole, so that paths can be copied. What follows a break is indented by two
    cells more than its line.
    """
    lines: list[str] = []
    for line in text.split("\n"):
        indent = " " * (len(line) - len(line.lstrip(" ")) + 2)
        current, *words = line.split(" ")
        for word in words:
            if current.strip() and word and cell_len(current) + 1 + cell_len(word) > width:
                lines.append(current.rstrip(" "))
                current = indent + word
            else:
                current += " " + word
        lines.append(current)
    return lines


def print_lines(text: str) -> None:
    """Print text literally, on a terminal broken between words."""
    text = printable(text)
    if sys.stdout.isatty():
        text = "\n".join(wrap(text, min(get_terminal_size().columns, WIDEST)))
    print(text, flush=True)


def wrap_command(line: str, width: int) -> list[str]:
    """A command line, broken between words with a backslash, as a shell reads it; whole if it has quoted words."""
    if "'" in line or '"' in line:
        return [line]
    *broken, last = wrap(line, width - 2)
    return [*(f"{part} \\" for part in broken), last]
