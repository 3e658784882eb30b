"""A report as Markdown that links its pictures by paths relative to the file."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import assert_never
from urllib.parse import quote

from retinanet.display.document.blocks import Block, Code, Gallery, Heading, Listing, Panels, Paragraph, Picture, Table
from retinanet.display.document.private import without_machine_paths

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~&$])")


def escape_markdown(text: str) -> str:
    """Text on one line with everything escaped that has a meaning in Markdown."""
    return _SPECIAL.sub(r"\\\1", " ".join(without_machine_paths(text).split()))


def render_markdown(title: str, blocks: Sequence[Block], folder: Path) -> str:
    """The whole file; paths of pictures are relative to `folder`, the folder of the file."""
    return "\n\n".join([f"# {escape_markdown(title)}", *(_render(block, folder) for block in blocks)]) + "\n"


def _render(block: Block, folder: Path) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {escape_markdown(text)}"
        case Paragraph(text):
            # A line that begins like a list item or a number must not become one.
            return re.sub(r"^([-+]|\d+[.)])(?=\s)", r"\\\1", escape_markdown(text))
        case Listing(items):
            return "\n".join(f"- {escape_markdown(item)}" for item in items)
        case Picture(path, alt, caption):
            link = f"![{escape_markdown(alt)}]({quote(path.relative_to(folder).as_posix())})"
            return f"{link}\n\n*{escape_markdown(caption)}*"
        case Panels(paths, alt, caption):
            links = [f"![{escape_markdown(alt)}]({quote(path.relative_to(folder).as_posix())})" for path in paths]
            return "\n".join(links) + f"\n\n*{escape_markdown(caption)}*"
        case Gallery(pictures):
            return "\n\n".join(_render(picture, folder) for picture in pictures)
        case Code(code_title, text):
            fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
            return f"{escape_markdown(code_title)}\n\n{fence}yaml\n{without_machine_paths(text).rstrip()}\n{fence}"
        case Table():
            return _table(block)
        case _:
            assert_never(block)


def _table(table: Table) -> str:
    rules = [":--" if column in table.left_columns else "--:" for column in range(len(table.header))]
    lines = [
        f"**{escape_markdown(table.title)}**",
        "",
        _line([escape_markdown(cell) for cell in table.header]),
        _line(rules),
    ]
    for row in table.rows:
        cells = [escape_markdown(cell) for cell in row.cells]
        if row.kind == "paper":
            cells = [f"*{cell}*" if cell else "" for cell in cells]
        elif row.kind == "reference":
            cells[0] = f"**{cells[0]}**"
        lines.append(_line(cells))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
