"""Documents: a list of contents, folded tables and galleries. The rest is tested where reports are made."""

from pathlib import Path

import numpy as np
from PIL import Image

from retinanet.display.document.blocks import Gallery, Heading, Paragraph, Picture, Table, TableRow
from retinanet.display.document.html import render_html
from retinanet.display.document.markdown import render_markdown


def picture(folder: Path, name: str) -> Picture:
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(folder / name)
    return Picture(folder / name, f"alt of {name}", f"caption of {name}")


def test_contents_link_every_section_and_no_smaller_heading() -> None:
    blocks = [Paragraph("before"), Heading("One <h2>"), Heading("small", 3), Heading("Two")]
    page = render_html("t", blocks, contents=True)
    assert '<li><a href="#part-1">One &lt;h2&gt;</a></li>\n<li><a href="#part-2">Two</a></li>' in page
    assert page.index("before") < page.index("<nav") < page.index('<h2 id="part-1">One &lt;h2&gt;</h2>')
    assert '<h2 id="part-2">Two</h2>' in page
    assert page.count('id="part-') == 2
    assert "<nav" not in render_html("t", blocks)


def test_contents_of_no_sections() -> None:
    assert "before" in render_html("t", [Paragraph("before")], contents=True)


def test_a_folded_table_has_its_title_to_click_on() -> None:
    table = Table("a & b", ("x", "y"), (TableRow(("1", "2")),))
    page = render_html("t", [table._replace(folded=True)])
    assert "<details><summary>a &amp; b</summary>" in page
    assert "<caption>" not in page
    assert "<caption>a &amp; b</caption>" in render_html("t", [table])


def test_a_gallery_holds_every_picture(tmp_path: Path) -> None:
    gallery = Gallery((picture(tmp_path, "a.png"), picture(tmp_path, "b.png")))
    page = render_html("t", [gallery])
    assert page.count('src="data:image/png;base64,') == 2
    assert '<div class="gallery">' in page
    text = render_markdown("t", [gallery], tmp_path)
    assert "![alt of a.png](a.png)" in text
    assert "*caption of b.png*" in text
