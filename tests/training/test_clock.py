"""The time left of a run, on a simulated clock, and the figures of its steps."""

import math
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import torch

from retinanet.training import clock as clock_module
from retinanet.training.clock import Forecast, StepClock, evaluation_in_steps

TOTAL = 100
EVALUATIONS = (20, 40, 60, 80, 100)


class SimulatedTime:
    """`time`, which advances only when a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> SimulatedTime:
    simulated = SimulatedTime()
    monkeypatch.setattr(clock_module, "time", simulated)
    return simulated


def run(simulated: SimulatedTime, clock: StepClock, evaluation: float) -> Iterator[int]:
    """Yields after each step of 2 seconds, of which 0.5 wait for data; the first ones take much longer."""
    for step in range(1, TOTAL + 1):
        with clock.waiting():
            simulated.now += 0.5
        if step == 1:
            simulated.now += 30.0  # pictures before the first step
        with clock.working():
            simulated.now += {1: 90.0, 2: 20.0, 3: 5.0}.get(step, 1.5)
        yield step
        if step in EVALUATIONS:
            simulated.now += 1.0  # saving
            with clock.evaluating():
                simulated.now += evaluation


@pytest.mark.parametrize(("evaluation", "guess"), [(30.0, 15.0), (2.0, 1.0), (0.0, 0.0)])
def test_the_time_left_counts_evaluations_and_leaves_slow_steps_out(
    simulated: SimulatedTime, evaluation: float, guess: float
) -> None:
    clock = StepClock(8, Forecast(TOTAL, EVALUATIONS, evaluation_steps=guess))
    predicted, at = {}, {}
    for step in run(simulated, clock, evaluation):
        predicted[step], at[step] = clock.glance(step)["seconds_left"], simulated.now
    end = simulated.now
    for step in (10, 30, 50, 90):
        assert predicted[step] == pytest.approx(end - at[step], rel=0.05), step
    assert predicted[100] == pytest.approx(evaluation + 1.0, rel=0.05)


def test_before_any_step_nothing_is_known_and_then_the_fastest_counts(simulated: SimulatedTime) -> None:
    forecast = Forecast(10, (), evaluation_steps=0.0)
    assert math.isnan(forecast.seconds_left(0))
    for step, seconds, left in ((1, 60.0, 540.0), (2, 3.0, 24.0), (3, 7.0, 21.0)):
        forecast.step_took(seconds)
        assert forecast.seconds_left(step) == left


def test_an_evaluation_under_way_counts_for_what_is_left_of_it() -> None:
    forecast = Forecast(10, (5, 10), evaluation_steps=4.0)
    for _ in range(5):
        forecast.step_took(1.0)
    assert forecast.seconds_left(5, 0.25) == pytest.approx(5 + 3 + 4)
    assert forecast.seconds_left(5) == pytest.approx(5 + 4 + 4)
    assert forecast.seconds_left(6) == pytest.approx(4 + 4)
    forecast.evaluation_took(8.0)
    assert forecast.seconds_left(6) == pytest.approx(4 + 8)
    assert forecast.seconds_evaluating() == 8.0


def test_a_lasting_change_of_speed_is_followed() -> None:
    forecast = Forecast(1000, (), evaluation_steps=0.0)
    for _ in range(100):
        forecast.step_took(1.0)
    for _ in range(100):
        forecast.step_took(4.0)
    assert forecast.seconds_per_step() == pytest.approx(4.0, rel=0.05)


def test_an_evaluation_costs_the_forward_share_of_its_images() -> None:
    assert evaluation_in_steps(images=240, batch_size=8) == pytest.approx(10.0)


def test_figures_are_of_the_steps_since_they_were_read(simulated: SimulatedTime) -> None:
    clock = StepClock(8, Forecast(TOTAL, EVALUATIONS, evaluation_steps=0.0))
    steps = run(simulated, clock, 30.0)
    with ExitStack() as stack:
        stack.callback(steps.close)  # type: ignore[attr-defined]
        for _ in range(10):
            next(steps)
        clock.read(10, torch.device("cpu"))
        for _ in range(15):  # with an evaluation after step 20, which is not counted
            next(steps)
        figures = clock.read(25, torch.device("cpu"))
    assert figures["images_per_second"] == pytest.approx(4.0)
    assert figures["data_wait"] == pytest.approx(0.25)
    assert figures["memory_mb"] > 0
    assert clock.glance(25)["images_per_second"] == pytest.approx(4.0, rel=0.05)
