"""Speed, data wait, memory and time left of a training loop: wall-clock figures that no result depends on."""

import math
import sys
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

SLOW_FIRST = 3
"""Steps at the start of a process that are left out of the estimate: they compile kernels and fill caches."""
FORWARD_SHARE = 1 / 3
"""Part of a training step's time that its forward pass takes: the backward pass costs twice as much."""
MEMORY_SECONDS = 60.0
"""The estimate follows a change of speed within about this time, or LEAST_STEPS steps if that is longer."""
LEAST_STEPS = 20


class Forecast:
    """Seconds left of a run: its steps, without the slow first ones, and the evaluations that are still to come.

    evaluations: ascending numbers of steps after which an evaluation follows. evaluation_steps: the time of an
    evaluation in training steps, used until one has been measured; see `evaluation_in_steps`.
    """

    def __init__(self, total_steps: int, evaluations: Sequence[int], evaluation_steps: float) -> None:
        self._total, self._evaluations, self._evaluation_steps = total_steps, evaluations, evaluation_steps
        self._first: list[float] = []
        self._seconds = self._steps = 0.0
        self._evaluated: list[float] = []

    def step_took(self, seconds: float) -> None:
        """Include a step, with all that came between it and the one before except an evaluation."""
        if len(self._first) < SLOW_FIRST:
            self._first.append(seconds)
            return
        keep = max(math.exp(-seconds / MEMORY_SECONDS), 1.0 - 1.0 / LEAST_STEPS)
        self._seconds = self._seconds * keep + seconds
        self._steps = self._steps * keep + 1.0

    def evaluation_took(self, seconds: float) -> None:
        """Include an evaluation, with the checkpoint saved before it."""
        self._evaluated.append(seconds)

    def seconds_evaluating(self) -> float:
        """Of all evaluations so far."""
        return sum(self._evaluated)

    def seconds_per_step(self) -> float:
        """Of recent steps; of the fastest while only slow first ones are known, NaN before the first."""
        if self._steps:
            return self._seconds / self._steps
        return min(self._first, default=math.nan)

    def seconds_left(self, step: int, evaluated: float = 0.0) -> float:
        """After `step` steps; NaN before the first.

        evaluated: finished part (0..1) of the evaluation that follows this step, if one does.
        """
        pace = self.seconds_per_step()
        one = sum(self._evaluated) / len(self._evaluated) if self._evaluated else self._evaluation_steps * pace
        to_come = len(self._evaluations) - bisect_left(self._evaluations, step)
        return pace * (self._total - step) + one * max(to_come - evaluated, 0.0)


def evaluation_in_steps(images: int, batch_size: int) -> float:
    """Time of an evaluation of `images` images, in training steps of `batch_size` images over all ranks."""
    return FORWARD_SHARE * images / batch_size


class StepClock:
    """Averages since the last call of `read`; time outside of steps (evaluation, saving) is not counted in them."""

    def __init__(self, batch_size: int, forecast: Forecast) -> None:
        self.batch_size, self.forecast = batch_size, forecast
        self.waited = self.worked = 0.0
        self.steps = 0
        self._lap: float | None = None
        """End of the last step or evaluation; None before the first, since opening files and pictures is no step."""

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around the call that waits for data."""
        started = time.monotonic()
        yield
        self.waited += time.monotonic() - started

    @contextmanager
    def working(self) -> Iterator[None]:
        """Around one step."""
        started = time.monotonic()
        if self._lap is None:
            self._lap = started
        yield
        ended = time.monotonic()
        self.worked += ended - started
        self.steps += 1
        self.forecast.step_took(ended - self._lap)
        self._lap = ended

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Around one evaluation."""
        if self._lap is None:
            self._lap = time.monotonic()
        yield
        ended = time.monotonic()
        self.forecast.evaluation_took(ended - self._lap)
        self._lap = ended

    def glance(self, step: int) -> dict[str, float]:
        """Figures of recent steps, at no cost; does not count as a call of `read`."""
        pace = self.forecast.seconds_per_step()
        return {
            "images_per_second": self.batch_size / max(pace, 1e-9),
            "data_wait": self.waited / max(self.waited + self.worked, 1e-9),
            "seconds_left": self.forecast.seconds_left(step),
        }

    def read(self, step: int, device: torch.device) -> dict[str, float]:
        """Figures of the steps since the last call."""
        spent = max(self.waited + self.worked, 1e-9)
        figures = {
            "time": time.time(),
            "images_per_second": self.batch_size * max(self.steps, 1) / spent,
            "data_wait": self.waited / spent,
            "memory_mb": _memory_mb(device),
            "seconds_left": self.forecast.seconds_left(step),
        }
        self.waited = self.worked = 0.0
        self.steps = 0
        return figures


def _memory_mb(device: torch.device) -> float:
    """Peak memory so far: allocations on the GPU, or resident set of the process; NaN if the system has no figure."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
