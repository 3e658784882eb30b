"""Medians, quartiles and paired ratios; turns; repeated steps; memory."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch

from benchmarks.contest import Step, Stretch, ready
from benchmarks.measure import MIN_RUN_TIME, take_turns, time_many, time_step
from benchmarks.memory import second_step
from benchmarks.report import paired_ratios, spread_of


def test_quartiles_of_known_numbers() -> None:
    spread = spread_of([5.0, 1.0, 3.0, 2.0, 4.0])
    assert (spread.least, spread.quartiles, spread.median, spread.most) == (1.0, (2.0, 4.0), 3.0, 5.0)
    assert spread.count == 5
    assert spread_of([1.0, 2.0]).median == 1.5
    assert spread_of([7.0]).quartiles == (7.0, 7.0)


def test_ratios_are_of_pairs_not_of_medians() -> None:
    """A machine that slows down threefold midway changes no paired ratio."""
    ours, peer = [1.0, 1.0, 3.0, 3.0, 3.0], [2.0, 2.0, 6.0, 6.0, 6.0]
    ratio = paired_ratios(peer, ours)
    assert (ratio.least, ratio.median, ratio.most) == (2.0, 2.0, 2.0)
    with pytest.raises(ValueError, match="zip"):
        paired_ratios(peer, ours[:-1])


@pytest.mark.slow
def test_contestants_take_turns_after_warming_up() -> None:
    calls: list[str] = []

    @contextmanager
    def stretch(name: str) -> Iterator[Step]:
        calls.append(f"before {name}")
        yield lambda: calls.append(name)
        calls.append(f"after {name}")

    stretches = {name: lambda name=name: stretch(name) for name in "ab"}
    seconds = take_turns(stretches, rounds=2, warmups=1, once=True, say=lambda _text: None)
    turn = ["before a", "a", "after a", "before b", "b", "after b"]
    assert calls == turn * 3, "one warm-up turn and two timed ones"
    assert {name: len(found) for name, found in seconds.items()} == {"a": 2, "b": 2}


@pytest.mark.slow
@pytest.mark.parametrize("time_of", [time_step, time_many])
def test_preparation_is_not_timed_and_a_figure_is_of_one_step(time_of: Callable[[Stretch], float]) -> None:
    @contextmanager
    def stretch() -> Iterator[Step]:
        time.sleep(0.2)
        yield lambda: time.sleep(0.01)
        time.sleep(0.2)

    assert 0.01 <= time_of(stretch) < 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "repeated"), [(MIN_RUN_TIME / 500, True), (MIN_RUN_TIME * 1.2, False)])
def test_short_steps_are_repeated_and_long_ones_are_not(seconds: float, repeated: bool) -> None:
    steps: list[None] = []

    def step() -> None:
        steps.append(None)
        time.sleep(seconds)

    take_turns({"it": ready(step)}, rounds=1, warmups=1, once=False, say=lambda _text: None)
    assert len(steps) > 20 if repeated else len(steps) == 2


@pytest.mark.slow
@pytest.mark.parametrize("megabytes", [64, 256])
def test_extra_memory_is_what_a_step_allocates(megabytes: int) -> None:
    def step() -> None:
        torch.ones(megabytes * 2**18).add_(1)

    step()
    found = second_step(step, "extra", 0, torch.device("cpu")) / 2**20
    assert found == pytest.approx(megabytes, rel=0.1)
