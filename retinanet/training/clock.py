"""Speed, data wait, memory and time left of a training loop: wall-clock figures that no result depends on."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class StepClock:
    """Averages since the last call of `read`; time outside of steps (evaluation, saving) is not counted."""

    def __init__(self, batch_size: int, total_steps: int) -> None:
        self.batch_size, self.total_steps = batch_size, total_steps
        self.waited = self.worked = 0.0
        self.steps = 0
        self.pace: float | None = None

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
        yield
        self.worked += time.monotonic() - started
        self.steps += 1

    def read(self, step: int, device: torch.device) -> dict[str, float]:
        """Figures of the steps since the last call."""
        spent = max(self.waited + self.worked, 1e-9)
        recent = spent / max(self.steps, 1)
        self.pace = recent if self.pace is None else 0.7 * self.pace + 0.3 * recent
        figures = {
            "time": time.time(),
            "images_per_second": self.batch_size / recent,
            "data_wait": self.waited / spent,
            "memory_mb": _memory_mb(device),
            "seconds_left": self.pace * (self.total_steps - step),
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
