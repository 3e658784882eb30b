"""Aligned facts, broken between words."""

import io

import pytest
from rich.console import Console

from retinanet.display.facts import Fact, Facts, wrap, wrap_command

PATH = "/a/folder/with/a/name/that/is/longer/than/any/line/of/this/test/file.json"
COMMAND = "retinanet predict runs/quickstart/checkpoints/best.pt PHOTOS/ eval.shown_score=0.5"


@pytest.mark.parametrize("width", [20, 40, 80])
def test_words_stay_whole(width: int) -> None:
    text = f"some words, then {PATH} and the rest of it\n  an indented line that goes on for quite a while"
    lines = wrap(text, width)
    assert " ".join(" ".join(lines).split()) == " ".join(text.split())
    assert all(len(line) <= width or PATH in line for line in lines)
    assert [line for line in lines if line.startswith("  an")]
    assert wrap(text, 200) == text.split("\n")


def test_a_broken_command_is_one_for_a_shell_and_quoted_words_are_not_broken() -> None:
    lines = wrap_command(COMMAND, 40)
    assert len(lines) > 1
    assert all(line.endswith(" \\") for line in lines[:-1])
    assert " ".join("\n".join(lines).replace("\\\n", " ").split()) == COMMAND
    assert wrap_command(COMMAND + " 'my photos'", 40) == [COMMAND + " 'my photos'"]
    assert wrap_command("short", 40) == ["short"]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_texts_align_below_each_other_and_names_of_any_script_count_their_cells(width: int) -> None:
    names = ", ".join(["赤血球 2,381", "白血球 214", "血小板 209"] * 4)
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(Facts([Fact("train", names), Fact("a longer label", "text [bold]x[/bold]"), Fact("", COMMAND, True)]))
    lines = console.export_text().splitlines()
    assert lines[0].startswith("train           赤血球")
    assert "a longer label  text [bold]x[/bold]" in lines
    assert all(console.measure(line).maximum <= width for line in lines if "best.pt" not in line)
    assert "\x1b" not in "".join(lines)
