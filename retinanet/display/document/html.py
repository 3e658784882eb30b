"""A report as one self-contained HTML file: plots as inline SVG, pictures as data URIs, no script, no network."""

import base64
import html
from collections.abc import Sequence
from typing import assert_never

from retinanet.display.document.blocks import Block, Code, Gallery, Heading, Listing, Panels, Paragraph, Picture, Table
from retinanet.display.document.private import without_machine_paths
from retinanet.display.document.svg import inline_svg
from retinanet.errors import printable

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
"""What a browser may load for this file: only what is in it."""

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1d1d1f; --quiet: #5c5c62; --rule: #c9c9ce;
  --shade: #f3f3f5; --warn: #8a3b00; --warn-shade: #fdf3ea; --blue: #0072b2; --wine: #882255; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #161618; --ink: #e7e7ea; --quiet: #a2a2aa; --rule: #46464d; --shade: #222226; --warn: #ffb27a;
    --warn-shade: #2d231b; --blue: #3d8fd1; --wine: #a678e0; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body { margin: 0; background: var(--paper); color: var(--ink); overflow-wrap: break-word;
  font: 16px/1.5 Charter, "Bitstream Charter", "Iowan Old Style", "Palatino Linotype", Georgia, serif; }
main { max-width: 82rem; margin: 0 auto; padding: 2.5rem 1.5rem 5rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 2.8rem 0 .8rem; padding-top: .6rem; border-top: 1px solid var(--rule); }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .5rem; }
p, li { max-width: 48rem; overflow-wrap: anywhere; }
p.quiet, figcaption { color: var(--quiet); font-size: .9rem; }
a { color: inherit; text-decoration-color: var(--quiet); text-underline-offset: .15em; }
:target { outline: 2px solid var(--blue); outline-offset: 3px; }
.table { overflow-x: auto; margin: 1rem 0 1.4rem; }
table { border-collapse: collapse; font: .84rem/1.4 system-ui, "Segoe UI", Helvetica, Arial, sans-serif;
  font-variant-numeric: tabular-nums; border-top: 2px solid var(--ink); border-bottom: 2px solid var(--ink); }
caption { text-align: left; font: 600 .95rem/1.5 Charter, Georgia, serif; padding-bottom: .4rem; }
th, td { padding: .32rem .5rem; text-align: right; vertical-align: top; }
th { border-bottom: 1px solid var(--ink); font-weight: 600; white-space: nowrap; }
thead th { vertical-align: bottom; }
td { border-top: 1px solid var(--rule); white-space: nowrap; }
th.left, td.left { text-align: left; }
td.left { white-space: normal; overflow-wrap: break-word; min-width: 6.5rem; max-width: 26rem; }
tbody th { text-align: left; border-bottom: 0; border-top: 1px solid var(--rule); white-space: normal; min-width: 5rem;
  max-width: 22rem; overflow-wrap: break-word; }
th:first-child { position: sticky; left: 0; background: var(--paper); }
tr.reference > * { background: var(--shade); }
tr.paper > * { color: var(--quiet); font-style: italic; font-weight: 400; border-top-style: dotted; }
tr.paper > th { padding-left: 1.6rem; }
tr.incomplete > * { background: var(--warn-shade); }
figure { margin: 1.2rem 0 2rem; }
figure img { max-width: 100%; height: auto; display: block; background: #ffffff; border: 1px solid var(--rule); }
figure.wide { width: min(100vw - 3rem, 2150px); margin-left: 50%; transform: translateX(-50%); }
figure.wide div { overflow-x: auto; }
figure.wide img { max-width: none; width: max(100%, 1200px); }
figcaption { max-width: 52rem; margin-top: .5rem; }
.panels { display: flex; flex-wrap: wrap; align-items: flex-start; gap: .8rem 1.2rem; overflow-x: auto; }
.panels svg { display: block; width: min(var(--w), 100%); min-width: calc(.82 * var(--w)); height: auto;
  font-family: system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
.panels svg * { stroke-linejoin: round; stroke-linecap: butt; }
.panels text { fill: var(--ink); }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(21rem, 100%), 1fr)); align-items: start;
  gap: 1.2rem 1rem; }
.gallery figure { margin: 0; }
.gallery img { max-height: 25rem; }
.gallery figcaption { overflow-wrap: anywhere; line-height: 1.35; margin-top: .3rem; }
nav { border-left: 3px solid var(--rule); padding-left: 1rem; margin: 1.6rem 0; }
nav ul { list-style: none; margin: .2rem 0; padding: 0; columns: 16rem; }
pre { overflow-x: auto; background: var(--shade); padding: .8rem 1rem; font-size: .8rem; line-height: 1.4; }
details summary { cursor: pointer; }
@media (max-width: 600px) {
  main { padding: 1.2rem 1rem 3rem; }
  h1 { font-size: 1.5rem; }
  ul { padding-left: 1.2rem; }
  tbody th, td.left { min-width: 4.5rem; max-width: 11rem; }
  figure.wide { width: 100%; margin-left: 0; transform: none; } }
@media print { :root { color-scheme: light; } main { max-width: none; } figure.wide img { width: 100%; } }
"""


def render_html(title: str, blocks: Sequence[Block], contents: bool = False) -> str:
    """The whole file. Pictures are read from their paths; all text is escaped.

    contents: put a list of the sections (headings of level 2) before the first of them.
    """
    body = "\n".join(_render(block) for block in blocks)
    if contents:
        body = _with_contents(body, [block.text for block in blocks if isinstance(block, Heading) and block.level == 2])
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_escape(POLICY)}">\n'
        f"<title>{_escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{_escape(title)}</h1>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _render(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{_escape(text)}</h{level}>"
        case Paragraph(text, quiet):
            return f"<p{_class('quiet' if quiet else '')}>{_escape(text)}</p>"
        case Listing(items):
            return "<ul>\n" + "\n".join(f"<li>{_escape(item)}</li>" for item in items) + "\n</ul>"
        case Picture():
            return _picture(block)
        case Panels(paths, alt, caption):
            label = _escape(alt)
            panels = "\n".join(inline_svg(printable(path.read_text(encoding="utf-8")), label) for path in paths)
            below = f"<figcaption>{_escape(caption)}</figcaption>"
            return f'<figure>\n<div class="panels">\n{panels}\n</div>\n{below}\n</figure>'
        case Gallery(pictures):
            return '<div class="gallery">\n' + "\n".join(_picture(picture) for picture in pictures) + "\n</div>"
        case Code(code_title, text):
            return f"<details><summary>{_escape(code_title)}</summary>\n<pre>{_escape(text)}</pre></details>"
        case Table():
            return _table(block)
        case _:
            assert_never(block)


def _with_contents(body: str, sections: list[str]) -> str:
    """The body with a list of links to its sections."""
    first, *others = body.split("<h2>")
    links = "\n".join(f'<li><a href="#part-{n}">{_escape(text)}</a></li>' for n, text in enumerate(sections, 1))
    parts = "".join(f'<h2 id="part-{n}">{part}' for n, part in enumerate(others, 1))
    return f'{first}<nav aria-label="contents">\n<ul>\n{links}\n</ul>\n</nav>\n{parts}'


def _class(name: str) -> str:
    """The attribute; empty for an empty name."""
    return f' class="{_escape(name)}"' if name else ""


def _anchor(name: str) -> str:
    """The attribute; empty for an empty name."""
    return f' id="{_escape(name)}"' if name else ""


def _picture(picture: Picture) -> str:
    kind = "png" if picture.path.suffix == ".png" else "jpeg"
    data = base64.b64encode(picture.path.read_bytes()).decode("ascii")
    image = f'<img src="data:image/{kind};base64,{data}" alt="{_escape(picture.alt)}">'
    return (
        f"<figure{_anchor(picture.anchor)}{_class('wide' if picture.wide else '')}>\n"
        + (f"<div>{image}</div>" if picture.wide else image)
        + f"\n<figcaption>{_escape(picture.caption)}</figcaption>\n</figure>"
    )


def _table(table: Table) -> str:
    def side(column: int) -> str:
        return _class("left" if column in table.left_columns else "")

    head = "".join(f'<th scope="col"{side(i)}>{_escape(cell)}</th>' for i, cell in enumerate(table.header))
    body = []
    for row in table.rows:
        first, *others = row.cells
        cells = "".join(f"<td{side(i)}>{_escape(cell)}</td>" for i, cell in enumerate(others, 1))
        name = f'<a href="#{_escape(row.link)}">{_escape(first)}</a>' if row.link else _escape(first)
        body.append(f'<tr{_anchor(row.anchor)}{_class(row.kind)}><th scope="row">{name}</th>{cells}</tr>')
    caption = "" if table.folded else f"<caption>{_escape(table.title)}</caption>\n"
    whole = (
        f'<div class="table"><table>\n{caption}<thead><tr>{head}</tr></thead>\n'
        "<tbody>\n" + "\n".join(body) + "\n</tbody>\n</table></div>"
    )
    return f"<details><summary>{_escape(table.title)}</summary>\n{whole}</details>" if table.folded else whole


def _escape(text: str) -> str:
    return html.escape(printable(without_machine_paths(text)))
