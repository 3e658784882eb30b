"""Wall-clock timing of contestants, one after the other in turns."""

import gc
import math
import time
from collections.abc import Callable, Mapping

import torch

from benchmarks.contest import Running

LEAST_SECONDS = 0.05
"""A timed stretch is as many steps as fill this time, so that the clock and the scheduler weigh little."""


def timed(running: Running, steps: int, device: torch.device) -> float:
    """Seconds of one step, averaged over `steps` of them in a row; the device has finished at both ends."""
    running.before()
    synchronise(device)
    started = time.perf_counter()
    for _ in range(steps):
        running.step()
    synchronise(device)
    seconds = (time.perf_counter() - started) / steps
    running.after()
    return seconds


def steps_to_fill(seconds: float) -> int:
    """Steps of a timed stretch for a step of `seconds`."""
    return max(1, math.ceil(LEAST_SECONDS / max(seconds, 1e-7)))


def take_turns(
    contestants: Mapping[str, Running],
    rounds: int,
    warmups: int,
    once: bool,
    device: torch.device,
    report: Callable[[str], None],
) -> dict[str, list[float]]:
    """Seconds of a step of each contestant in each round: a, b, c, a, b, c, ...; `rounds` figures each.

    Warm-up steps also decide how many steps a stretch has (`once`: one). report is told what runs. The garbage
    collector works between rounds only.
    """
    steps = {}
    for name, running in contestants.items():
        report(f"{name}: warming up")
        warm = [timed(running, 1, device) for _ in range(warmups)]
        steps[name] = 1 if once or not warm else steps_to_fill(warm[-1])
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    gc.disable()
    try:
        for turn in range(rounds):
            gc.collect()
            for name, running in contestants.items():
                report(f"{name}: round {turn + 1} of {rounds}")
                seconds[name].append(timed(running, steps[name], device))
    finally:
        gc.enable()
    return seconds


def synchronise(device: torch.device) -> None:
    """Wait until `device` has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
