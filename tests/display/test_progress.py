"""What is told of progress where there is no terminal."""

import pytest

from retinanet.display import progress
from retinanet.display.progress import image_progress


def test_nothing_is_said_of_speed_before_there_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    with image_progress("predicting", 1) as report:
        report(1)
    assert capsys.readouterr().out == "predicting 1/1 images\n"


def test_speed_and_time_left(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 4.0, 20.0, 40.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
    with image_progress("evaluating", 8) as report:
        report(1)
        report(3)
        report(4)
    assert capsys.readouterr().out.splitlines() == [
        "evaluating 4/8 images, 0.2 a second, 20 s left",
        "evaluating 8/8 images, 0.2 a second",
    ]


def test_an_instant_tells_no_speed(capsys: pytest.CaptureFixture[str]) -> None:
    with image_progress("predicting", 5) as report:
        report(5)
    assert capsys.readouterr().out == "predicting 5/5 images\n"
