"""Medians, quartiles and paired ratios; turns; what a timed stretch holds."""

import time
from collections.abc import Callable

import pytest
import torch

from benchmarks.contest import Running
from benchmarks.memory import second_step
from benchmarks.spread import paired_ratios, spread_of
from benchmarks.timing import LEAST_SECONDS, steps_to_fill, take_turns, timed

CPU = torch.device("cpu")


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


def test_contestants_take_turns_after_warming_up() -> None:
    calls: list[str] = []

    def contestant(name: str) -> Running:
        return Running(
            lambda: calls.append(name), lambda: calls.append(f"before {name}"), lambda: calls.append(f"after {name}")
        )

    seconds = take_turns({"a": contestant("a"), "b": contestant("b")}, 2, 1, True, CPU, lambda _text: None)
    turn = ["before a", "a", "after a", "before b", "b", "after b"]
    assert calls == turn * 3, "one warm-up turn and two timed ones"
    assert {name: len(found) for name, found in seconds.items()} == {"a": 2, "b": 2}


def test_preparation_is_not_timed_and_steps_are_averaged() -> None:
    running = Running(lambda: time.sleep(0.01), lambda: time.sleep(0.3), lambda: time.sleep(0.3))
    assert 0.01 <= timed(running, 3, CPU) < 0.2


@pytest.mark.parametrize("seconds", [1e-9, 1e-4, 0.03, 2.0])
def test_a_stretch_fills_the_least_time(seconds: float) -> None:
    steps = steps_to_fill(seconds)
    assert steps >= 1
    assert steps * max(seconds, 1e-7) >= LEAST_SECONDS * 0.999
    assert steps == 1 or (steps - 1) * max(seconds, 1e-7) < LEAST_SECONDS * 1.001


def growing(megabytes: int) -> Callable[[], None]:
    def step() -> None:
        torch.ones(megabytes * 2**18).add_(1)

    return step


@pytest.mark.parametrize("megabytes", [64, 256])
def test_extra_memory_is_what_a_step_allocates(megabytes: int) -> None:
    running = Running(growing(megabytes))
    running.step()
    found = second_step(running, "extra", 0, CPU) / 2**20
    assert found == pytest.approx(megabytes, rel=0.1)
