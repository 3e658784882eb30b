"""Names in any script: DejaVu Sans where it has the characters, another font where there is one, else one warning."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from PIL import Image, ImageDraw

from retinanet.display import fonts
from retinanet.display.figures import new_figure, save_figure

CAT = "猫"


def block_font(path: Path, character: str, advance: int) -> None:
    """A font with one character, a filled square of `advance` thousandths of its size."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    for corner in ((0, 800), (advance, 800), (advance, 0)):
        pen.lineTo(corner)
    pen.closePath()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", "block"])
    builder.setupCharacterMap({ord(character): "block"})
    builder.setupGlyf({".notdef": TTGlyphPen(None).glyph(), "block": pen.glyph()})
    builder.setupHorizontalMetrics({".notdef": (500, 0), "block": (advance, 0)})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Blocks", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The files of system fonts, none at first; nothing is remembered from other tests or for them."""
    files: list[str] = []
    monkeypatch.setattr(fonts, "system_fonts", lambda: tuple(map(Path, files)))
    monkeypatch.setattr(font_manager.fontManager, "ttflist", [*font_manager.fontManager.ttflist])
    caches = (fonts.font_of, fonts._without_font)
    for cache in caches:
        cache.cache_clear()
    yield files
    for cache in caches:
        cache.cache_clear()


@pytest.mark.parametrize("text", ["Élan", "Каска", "ελιά", "שלום", "سيارة", "a → b"])
def test_the_shipped_font_has_most_alphabets(text: str, fresh: list[str]) -> None:
    assert [path for path, _ in fonts.runs_of(text)] == [fonts.dejavu()]
    assert fonts.families_for(text) == ["DejaVu Sans"]


def test_a_system_font_writes_what_the_shipped_one_lacks(fresh: list[str], tmp_path: Path) -> None:
    block_font(tmp_path / "blocks.ttf", CAT, 1000)
    (tmp_path / "broken.ttf").write_bytes(b"no font")
    fresh += [str(tmp_path / "broken.ttf"), str(tmp_path / "blocks.ttf")]
    assert list(fonts.runs_of(f"a {CAT}{CAT} 1")) == [
        (fonts.dejavu(), "a "),
        (tmp_path / "blocks.ttf", CAT + CAT),
        (fonts.dejavu(), " 1"),
    ]
    alone = fonts.text_width("a ", 20) + fonts.text_width(" 1", 20)
    assert fonts.text_width(f"a {CAT}{CAT} 1", 20) == pytest.approx(alone + 40, abs=1)
    picture = Image.new("RGB", (60, 40))
    fonts.draw_line(ImageDraw.Draw(picture), (10, 20), CAT, 20, (255, 255, 255))
    inked = np.array(picture)[:, :, 0] > 128
    assert inked[20, 12:28].all()
    assert not inked[:, 32:].any()
    assert fonts.families_for(f"{CAT} 1") == ["DejaVu Sans", "Blocks"]


def test_a_script_without_a_font_is_warned_of_once(fresh: list[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert fonts.text_width("猫犬鳥", 20) > 0
        assert fonts.families_for("여우 ช้าง") == ["DejaVu Sans"]
    (record,) = caplog.records
    assert "character 猫" in record.getMessage()
    assert "fonts-noto-cjk" in record.getMessage()


def test_plots_take_the_same_fonts(
    fresh: list[str], tmp_path: Path, recwarn: pytest.WarningsRecorder, caplog: pytest.LogCaptureFixture
) -> None:
    block_font(tmp_path / "blocks.ttf", CAT, 1000)
    drawn = {}
    for name, files in (("without", []), ("with", [str(tmp_path / "blocks.ttf")])):
        fresh[:] = files
        fonts.font_of.cache_clear()
        figure = new_figure(2, 1)
        figure.subplots().set_yticks([0], [CAT * 3])
        drawn[name] = np.array(Image.open(save_figure(figure, tmp_path / f"{name}.png")))
    ink = {name: int((picture.mean(axis=2) < 100).sum()) for name, picture in drawn.items()}
    assert ink["with"] > ink["without"] + 300
    assert not recwarn.list
