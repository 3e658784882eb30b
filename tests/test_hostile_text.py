"""Names and files that are made to act on a terminal, a spreadsheet, a browser or the memory do not."""

import gzip
import json
import os
import sys
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path

import pytest
from rich.console import Console

from retinanet.commands.border import run
from retinanet.config.load import config_from_dict, with_overrides
from retinanet.config.schema import Config
from retinanet.display.console import class_table, parts_table
from retinanet.display.document.blocks import Paragraph
from retinanet.display.document.html import render_html
from retinanet.display.facts import Fact, Facts
from retinanet.display.progress import LiveLines
from retinanet.errors import ConfigError, DataError, judge, printable
from retinanet.files import read_json, write_csv
from retinanet.prepare.source import open_source

HOSTILE = (
    *("\x1b]0;title\x07", "\x1b[2J", "\x1b]52;c;ZWNobw==\x07", "\x9b31m", "a\rb", "\x1b[8mhidden", "\x08\x08", "\x7f"),
    *("\u202egnp.exe", "\u2066x\u2069", "\x1bP$q\x1b\\", "\x00"),
)
"""Titles, cleared screens, clipboards, hidden text, overwriting, reversed names, requests to the terminal."""


def shown(what: object) -> str:
    out = StringIO()
    Console(file=out, width=100).print(what)
    return out.getvalue()


def is_harmless(text: str) -> bool:
    return all(letter in "\n\t" or letter.isprintable() for letter in text)


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_escaped_wherever_they_are_shown(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert is_harmless(printable(name))
    assert is_harmless(judge(DataError(f"class {name}")).message)
    entry = {"name": name, "AP": 0.5, "AP50": 0.5, "instances": 3}
    assert is_harmless(shown(class_table([entry])))
    assert is_harmless(shown(Facts([Fact("train", name)])))
    assert is_harmless(shown(parts_table([("a", "b", name)])))
    LiveLines(terminal=False).say(name)
    assert is_harmless(capsys.readouterr().out)
    assert is_harmless(render_html(name, [Paragraph(name)]))


def test_ordinary_text_stays() -> None:
    text = "größe 犬 😀\n\tC:\\x.jpg"
    assert printable(text) == text


@pytest.mark.parametrize("name", ["=HYPERLINK(1)", "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1", "\r=1"])
def test_a_spreadsheet_computes_no_name(name: str, tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ["name", "AP"], [[name, -0.5]])
    cell = (tmp_path / "a.csv").read_text(encoding="utf-8").splitlines()[1].lstrip('"')
    assert cell[0] == "'"
    assert cell.endswith(",-0.5")


def test_numbers_as_text_stay_numbers(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", ["AP", "change"], [["-0.5", "+12.5%"]])
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == "AP,change\n-0.5,+12.5%\n"


@pytest.mark.slow
def test_a_gzip_bomb_is_refused_and_ordinary_ones_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json.gz"
    path.write_bytes(gzip.compress(b"[" + b" " * (70 << 20) + b"]"))
    with pytest.raises(DataError, match=r"0\.1 MB of gzip hold more than 67 MB"):
        read_json(path)
    rows = [{"id": i, "bbox": [i, i, 5, 5]} for i in range(20_000)]
    path.write_bytes(gzip.compress(json.dumps(rows).encode()))
    assert read_json(path) == rows


def test_a_zero_byte_in_a_config_is_named() -> None:
    with pytest.raises(ConfigError, match=r"output.*zero byte"):
        config_from_dict({"output": "runs/a\0b"}, "c.yaml")
    with pytest.raises(ConfigError, match=r"data\.root.*zero byte"):
        config_from_dict({"data": {"root": "a\0b"}}, "c.yaml")


def test_half_a_character_is_refused(tmp_path: Path) -> None:
    """JSON can write it; no file, terminal or page can."""
    path = tmp_path / "a.json"
    path.write_text('{"name": "\\ud800x"}', encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.json: has '\\ud800', half of a character"):
        read_json(path)
    path.write_text('{"name": "\\ud83d\\ude00", "path": "C:\\\\ud800"}', encoding="utf-8")
    assert read_json(path) == {"name": "😀", "path": "C:\\ud800"}


def test_folders_that_are_not_utf_8_are_refused(tmp_path: Path) -> None:
    """TensorBoard, matplotlib and JSON cannot name them."""
    name = os.fsdecode(b"\xff")
    for key in ("output", "data.root"):
        with pytest.raises(ConfigError, match=rf"{key}: is not UTF-8 text"):
            with_overrides(Config(), [f"{key}={name}"])
    (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=r"this name is not UTF-8 text"):
        open_source(tmp_path / name, 0.1)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_a_name_that_the_output_cannot_encode_ends_no_command(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out = TextIOWrapper(BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    assert run(lambda: print("犬 \udcff")) == 0
    assert out.buffer.getvalue().decode(encoding).strip() == (
        "犬 \\udcff" if encoding == "utf-8" else "\\u72ac \\udcff"
    )
