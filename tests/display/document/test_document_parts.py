"""Documents: a list of contents, folded tables and galleries. The rest is tested where reports are made."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retinanet.display.document.blocks import Code, Gallery, Heading, Panels, Paragraph, Picture, Table, TableRow
from retinanet.display.document.html import render_html
from retinanet.display.document.markdown import render_markdown
from retinanet.display.document.private import without_machine_paths
from retinanet.display.figures import legend_below, line_style, new_panel, save_figure, tidy


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


def plot(path: Path, name: str) -> Path:
    figure, axes = new_panel(2.5)
    axes.plot([1, 2], [1, 2], color="#0072B2", label=name)
    tidy(axes, "x", "y")
    legend_below(figure, axes)
    return save_figure(figure, path)


def test_panels_are_svg_that_takes_the_pages_colours(tmp_path: Path) -> None:
    paths = tuple(plot(tmp_path / f"{n}.svg", "<b>&</b> <!-- 犬") for n in (1, 2))
    page = render_html("t", [Panels(paths, 'the "alt"', "below")])
    assert page.count("<svg ") == page.count("</svg>") == 2
    assert page.count('role="img" aria-label="the &quot;alt&quot;"') == 2
    assert page.count("&lt;b&gt;&amp;&lt;/b&gt; &lt;!-- 犬") == 2
    assert "stroke: var(--blue)" in page
    assert "fill: var(--paper)" in page
    body = page[page.index("<main>") :]
    assert not re.search(r"http|<metadata|<style|url\((?!#)|font-family|#0072b2", body)
    # Only definitions have names, which are hashes of what they define.
    assert set(re.findall(r' id="([^"]+)"', body)) <= set(re.findall(r'#([0-9a-z]+)[")]', body))
    text = render_markdown("t", [Panels(paths, "alt", "below")], tmp_path)
    assert "![alt](1.svg)\n![alt](2.svg)\n\n*below*" in text


def test_the_same_figure_gives_the_same_bytes(tmp_path: Path) -> None:
    assert plot(tmp_path / "1.svg", "a").read_bytes() == plot(tmp_path / "2.svg", "a").read_bytes()


def test_ten_lines_differ() -> None:
    assert len({line_style(place) for place in range(10)}) == 10


def test_rows_and_pictures_can_be_linked(tmp_path: Path) -> None:
    table = Table("t", ("a", "b"), (TableRow(("<1>", "2"), link="class-1"), TableRow(("3", "4"), anchor="class-2")))
    page = render_html("t", [table, picture(tmp_path, "a.png")._replace(anchor="class-1")])
    assert '<th scope="row"><a href="#class-1">&lt;1&gt;</a></th>' in page
    assert '<tr id="class-2"><th scope="row">3</th>' in page
    assert '<figure id="class-1">' in page


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("A is /home/jane/x y/det.json.", "A is …/x y/det.json."),
        ('root: "/mnt/c/data/bccd"', 'root: "…/bccd"'),
        (r"no file C:\Users\jane\a.jpg", "no file …/a.jpg"),
        ("and/or 1/2 //x https://arxiv.org/abs/1708.02002 runs/a/b.pt ../a/b /x", None),
    ],
)
def test_folders_of_the_machine_are_left_out(text: str, shown: str | None, tmp_path: Path) -> None:
    assert without_machine_paths(text) == (text if shown is None else shown)
    for page in (render_html("t", [Paragraph(text)]), render_markdown("t", [Code("c", text)], tmp_path)):
        assert "jane" not in page


def test_the_working_folder_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert without_machine_paths(f"in {tmp_path}/runs/a: no file") == "in runs/a: no file"
