"""What a contestant's step takes its time for, by torch's profiler."""

import os
import time
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, schedule
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.groups import BACKWARD, FORWARD, GROUPS, kernel_times, own_times
from benchmarks.timing import synchronise
from retinanet.config.fields import Section

STEPS = 3
"""Profiled and averaged, after one that is profiled and thrown away."""


class GroupTime(Section):
    """One group of a step's work."""

    group: str
    seconds: float
    """Of one step."""
    share: float
    """0..1, of the sum of all groups."""
    flops: float | None
    """Floating point operations of one step; of convolutions only."""
    share_of_peak: float | None
    """0..1: the time that these take at the measured peak of a product, over `seconds`."""


class Breakdown(Section):
    """Where the time of one contestant's step goes."""

    name: str
    clock: Literal["cpu", "cuda"]
    """Whether times are of the step's thread, which is always in one group, or of the GPU while it works."""
    steps: int
    seconds: float
    """Of one step under the profiler, by the wall clock."""
    groups: tuple[GroupTime, ...]
    """Those that take any time."""


def break_down(name: str, step: Callable[[], Any], device: torch.device, peak: float | None) -> Breakdown:
    """Profile a `step` that is warm. peak: floating point operations a second of a product in its precision."""
    events, seconds = profiled(step, device)
    micros = kernel_times(events) if device.type == "cuda" else own_times(events)
    flops, total = convolution_flops(step), micros.total()

    def time_of(group: str) -> GroupTime:
        taken, work = micros[group] / 1e6 / STEPS, flops.get(group)
        least = work / peak if work and peak else None
        return GroupTime(
            group=group,
            seconds=taken,
            share=micros[group] / total,
            flops=work,
            share_of_peak=least / taken if least else None,
        )

    return Breakdown(
        name=name,
        clock="cuda" if device.type == "cuda" else "cpu",
        steps=STEPS,
        seconds=seconds,
        groups=tuple(time_of(group) for group in GROUPS if micros[group] > 0),
    )


def profiled(step: Callable[[], Any], device: torch.device) -> tuple[list[FunctionEvent], float]:
    """The events of STEPS steps, and the seconds that one took."""
    # Else Kineto, the profiler's library, writes to stderr when it begins and ends, and that it finds no GPU.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    seconds = []
    with profile(activities=activities, schedule=schedule(wait=0, warmup=1, active=STEPS, repeat=1)) as profiler:
        for _ in range(1 + STEPS):
            started = time.perf_counter()
            step()
            synchronise(device)
            seconds.append(time.perf_counter() - started)
            profiler.step()
    return list(profiler.events() or ()), sum(seconds[1:]) / STEPS


def convolution_flops(step: Callable[[], Any]) -> dict[str, float]:
    """Floating point operations of a step's convolutions, by group."""
    with FlopCounterMode(display=False) as counter:
        step()
    counted = counter.get_flop_counts().get("Global", {})
    operators = {FORWARD: torch.ops.aten.convolution, BACKWARD: torch.ops.aten.convolution_backward}
    return {group: float(counted.get(operator, 0)) for group, operator in operators.items()}
