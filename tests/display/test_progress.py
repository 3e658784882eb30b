"""Progress: plain lines where there is no terminal, bars and redrawn lines on one."""

import io
import itertools
import sys

import pytest
from rich.text import Text

from retinanet.display import progress
from retinanet.display.progress import LiveLines, image_progress, transfer_progress


class Terminal(io.StringIO):
    """Standard output that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("total", "done"), [(1, 1), (5, 5)])
def test_no_speed_is_shown_before_there_is_one(total: int, done: int, capsys: pytest.CaptureFixture[str]) -> None:
    with image_progress("predicting", total) as report:
        report(done)
    assert capsys.readouterr().out == f"predicting {done}/{total} images\n"


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that reads 0, 4, 20 and 40 seconds."""
    monkeypatch.setattr(progress.time, "monotonic", iter([0.0, 4.0, 20.0, 40.0]).__next__)


@pytest.mark.usefixtures("seconds")
def test_speed_and_time_left_of_images(capsys: pytest.CaptureFixture[str]) -> None:
    with image_progress("evaluating", 8) as report:
        for count in (1, 3, 4):
            report(count)
    assert capsys.readouterr().out.splitlines() == [
        "evaluating 4/8 images, 0.2 images/s, 20 s left",
        "evaluating 8/8 images, 0.2 images/s",
    ]


@pytest.mark.usefixtures("seconds")
def test_speed_and_time_left_of_a_resumed_download(capsys: pytest.CaptureFixture[str]) -> None:
    with transfer_progress("a.zip", 100_000_000, 20_000_000) as report:
        for done in (30_000_000, 60_000_000, 100_000_000):
            report(done)
    assert capsys.readouterr().out.splitlines() == [
        "a.zip: 60.0 of 100.0 MB, 2.0 MB/s, 20 s left",
        "a.zip: 100.0 of 100.0 MB, 2.0 MB/s, 0 s left",
    ]


def test_a_terminal_shows_bars_instead_of_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with image_progress("evaluating", 8) as report:
        report(8)
    with transfer_progress("a.zip", 2_000_000, 0) as report:
        report(2_000_000)
    shown = terminal.getvalue()
    assert "8/8" in shown
    assert "2.0/2.0 MB" in shown
    assert "8/8 images\n" not in shown


@pytest.mark.parametrize(("every", "expected"), [(0.0, "1 2 end 3"), (15.0, "end 3")])
def test_live_lines_without_a_terminal(
    every: float, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress.time, "monotonic", itertools.count(step=7).__next__)
    lines = LiveLines(every=every)
    lines.show(Text("live"), "1")
    lines.show(Text("live"), "2")
    lines.say("end")
    lines.show(Text("live"), "3")
    lines.close()
    assert capsys.readouterr().out.split() == expected.split()


def test_live_lines_on_a_terminal_stay_below_permanent_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    lines = LiveLines()
    lines.show(Text("step 1 of 2"), "plain")
    lines.say("[permanent]")
    lines.close()
    lines.close()
    shown = terminal.getvalue()
    assert shown.rindex("[permanent]") < shown.rindex("step 1 of 2")
    assert "plain" not in shown


def test_a_notebook_and_the_commands_of_its_cells_get_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    assert progress.is_live_terminal()
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    assert not progress.is_live_terminal()
