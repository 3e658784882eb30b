"""A report as Markdown, with its pictures linked by paths relative to the file."""

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from retinanet.display.document.blocks import Block, Code, Gallery, Heading, Listing, Paragraph, Picture, Table

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&$])")


def plain(text: str) -> str:
    """Text on one line that Markdown shows as it is."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def render_markdown(title: str, blocks: Sequence[Block], folder: Path) -> str:
    """The whole file; picture paths are written relative to `folder`, in which it will lie."""
    return "\n\n".join([f"# {plain(title)}", *(_render(block, folder) for block in blocks)]) + "\n"


def _render(block: Block, folder: Path) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {plain(text)}"
        case Paragraph(text):
            # A line that begins like a list or a number is none.
            return re.sub(r"^([-+]|\d+[.)])(?=\s)", r"\\\1", plain(text))
        case Listing(items):
            return "\n".join(f"- {plain(item)}" for item in items)
        case Picture(path, alt, caption):
            return f"![{plain(alt)}]({quote(path.relative_to(folder).as_posix())})\n\n*{plain(caption)}*"
        case Gallery(pictures):
            return "\n\n".join(_render(picture, folder) for picture in pictures)
        case Code(code_title, text):
            fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
            return f"{plain(code_title)}\n\n{fence}yaml\n{text.rstrip()}\n{fence}"
        case Table():
            return _table(block)


def _table(table: Table) -> str:
    rules = [":--" if column in table.left_columns else "--:" for column in range(len(table.header))]
    lines = [f"**{plain(table.title)}**", "", _line([plain(cell) for cell in table.header]), _line(rules)]
    for row in table.rows:
        cells = [plain(cell) for cell in row.cells]
        if row.kind == "paper":
            cells = [f"*{cell}*" if cell else "" for cell in cells]
        elif row.kind == "reference":
            cells[0] = f"**{cells[0]}**"
        lines.append(_line(cells))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
