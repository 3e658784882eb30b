"""The blocks of a report, which `document.html` and `document.markdown` turn into files."""

from pathlib import Path
from typing import NamedTuple


class Heading(NamedTuple):
    """A section's title."""

    text: str
    level: int = 2


class Paragraph(NamedTuple):
    """Running text, plain."""

    text: str
    quiet: bool = False
    """Small print."""


class Listing(NamedTuple):
    """Points in a list, plain text each."""

    items: tuple[str, ...]


class TableRow(NamedTuple):
    """Cells of one row, plain text each."""

    cells: tuple[str, ...]
    kind: str = ""
    """"", "reference", "paper" (the paper's own numbers) or "incomplete" (a seed diverged, failed or is missing)."""
    link: str = ""
    """Anchor that the first cell leads to, where that is possible."""
    anchor: str = ""
    """Name by which links lead to this row."""


class Table(NamedTuple):
    """A table with a title. The first column names the row; columns not in `left_columns` are aligned right."""

    title: str
    header: tuple[str, ...]
    rows: tuple[TableRow, ...]
    left_columns: tuple[int, ...] = (0,)
    folded: bool = False
    """Shown only after a click on its title, where that is possible."""


class Picture(NamedTuple):
    """A PNG or JPEG with its description."""

    path: Path
    alt: str
    caption: str
    wide: bool = False
    """May be wider than the text."""
    anchor: str = ""
    """Name by which links lead to this picture."""


class Panels(NamedTuple):
    """The panels of one plot, SVG files: side by side where there is room, else below one another."""

    paths: tuple[Path, ...]
    alt: str
    caption: str


class Gallery(NamedTuple):
    """Small pictures side by side, each with its caption."""

    pictures: tuple[Picture, ...]


class Code(NamedTuple):
    """Lines of a config, verbatim, below a title."""

    title: str
    text: str


Block = Heading | Paragraph | Listing | Table | Picture | Panels | Gallery | Code
