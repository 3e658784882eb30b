"""Where a step spends its time, by torch's profiler.

Convolutions and other operators are grouped by name, everything else by the range (`in_group`) that it runs in.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import DeviceType, ProfilerActivity, profile, record_function, schedule
from torch.utils.benchmark import timer
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.report import Breakdown, GroupTime

FORWARD, BACKWARD = "convolutions, forward", "convolutions, backward"
OPERATORS, COPIES = "normalisation and other operators", "copies, casts and layouts"
TRANSFERS = "host to GPU"
ASSIGNMENT, CLASS_LOSS, BOX_LOSS = "assignment", "class loss", "box loss"
UPDATE = "gradient norm and optimizer"
REST = "Python and autograd itself"
GROUPS = (FORWARD, BACKWARD, OPERATORS, COPIES, TRANSFERS, ASSIGNMENT, CLASS_LOSS, BOX_LOSS, UPDATE, REST)

STEPS = 3
"""Profiled and averaged, after one that is profiled and discarded."""

COPYING = frozenset(f"aten::{name}" for name in ("copy_", "_to_copy", "to", "cat", "clone", "contiguous"))

RANGE = "group: "
OPTIMIZER = "Optimizer."
"""How the name of torch's own range around an optimizer's methods begins."""
NODE = "autograd::engine::evaluate_function: "
"""How the name of the event around a node of a backward pass begins."""
STEP = "ProfilerStep"

IN_BACKWARD = 1
"""at::RecordScope::BACKWARD_FUNCTION."""

Forward = Mapping[tuple[int | None, int], str | None]
"""(thread, sequence number) of a node of a backward pass -> the range that its forward operator ran in, if any."""


def in_group(group: str) -> record_function:
    """A range, for `with` or around a function: all work in it counts as `group`, and so does its backward pass."""
    return record_function(RANGE + group)


def break_down(name: str, step: Callable[[], Any], device: torch.device, peak: float | None) -> Breakdown:
    """Profile a `step` that is warm. peak: floating point operations a second of a product in its precision."""
    events, seconds = profiled(step, device)
    micros = kernel_times(events) if device.type == "cuda" else own_times(events)
    flops, total = convolution_flops(step), micros.total()

    def time_of(group: str) -> GroupTime:
        taken, work = micros[group] / 1e6 / STEPS, flops.get(group)
        return GroupTime(
            group=group,
            seconds=taken,
            share=micros[group] / total,
            flops=work,
            share_of_peak=work / peak / taken if work and peak else None,
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
    # Otherwise Kineto, the profiler's library, reports on stderr that it begins, ends and finds no GPU.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    seconds = []
    with profile(activities=activities, schedule=schedule(wait=0, warmup=1, active=STEPS, repeat=1)) as profiler:
        for _ in range(1 + STEPS):
            started = timer()
            step()
            seconds.append(timer() - started)
            profiler.step()
    return list(profiler.events() or ()), sum(seconds[1:]) / STEPS


def convolution_flops(step: Callable[[], Any]) -> dict[str, float]:
    """Floating point operations of a step's convolutions, by group."""
    with FlopCounterMode(display=False) as counter:
        step()
    counted = counter.get_flop_counts().get("Global", {})
    operators = {FORWARD: torch.ops.aten.convolution, BACKWARD: torch.ops.aten.convolution_backward}
    return {group: float(counted.get(operator, 0)) for group, operator in operators.items()}


def own_times(events: Iterable[FunctionEvent]) -> Counter[str]:
    """Microseconds of each group on a CPU: each event's own, without the events within it.

    The profiler's steps are events too, so every moment of them is in one group.
    """
    events = list(events)
    forward = ranges_of_forward(events)
    micros: Counter[str] = Counter()
    for event in events:
        if [*lineage(event)][-1].name.startswith(STEP):
            micros[group_of(event, forward)] += event.self_cpu_time_total
    return micros


def kernel_times(events: Iterable[FunctionEvent]) -> Counter[str]:
    """Microseconds of each group on a GPU: the kernels and copies that its events started.

    Ranges lie on the GPU's time line as well, around their kernels; they are not counted. What no event on the host
    owns is REST.
    """
    events = [event for event in events if not event.is_user_annotation]
    forward = ranges_of_forward(events)
    micros: Counter[str] = Counter()
    for event in (event for event in events if event.device_type == DeviceType.CPU):
        group = group_of(event, forward)
        for kernel in event.kernels:
            micros[TRANSFERS if kernel.name.startswith("Memcpy HtoD") else group] += kernel.duration
    worked = sum(event.time_range.elapsed_us() for event in events if event.device_type != DeviceType.CPU)
    micros[REST] += max(0, worked - micros.total())
    return micros


def ranges_of_forward(events: Iterable[FunctionEvent]) -> Forward:
    """Which range each node of the backward pass comes from.

    Autograd numbers its nodes, and the profiler gives an operator the number of the next one: the last made it.
    """
    made = (e for e in events if e.sequence_nr >= 0 and e.scope != IN_BACKWARD and not e.name.startswith(NODE))
    return {(event.thread, event.sequence_nr): range_of(event) for event in made}


def range_of(event: FunctionEvent) -> str | None:
    """The group of the innermost range around `event`."""
    for around in lineage(event):
        if around.name.startswith(RANGE):
            return around.name.removeprefix(RANGE)
        if around.name.startswith(OPTIMIZER):
            return UPDATE
    return None


def group_of(event: FunctionEvent, forward: Forward) -> str:
    """The group of the event's range, or of the range that its node of the backward pass comes from; else by name."""
    node = next((around for around in lineage(event) if around.name.startswith(NODE)), None)
    given = range_of(event) or (forward.get((node.fwd_thread, node.sequence_nr)) if node else None)
    if given is not None:
        return given
    if event.is_user_annotation or event is node or event.scope == IN_BACKWARD:
        return REST
    if event.name in COPYING:
        return COPIES
    if event.name.startswith("aten::") and "conv" in event.name:
        return BACKWARD if node else FORWARD
    return OPERATORS


def lineage(event: FunctionEvent) -> Iterator[FunctionEvent]:
    """`event`, the one around it, and so on outwards."""
    around: FunctionEvent | None = event
    while around is not None:
        yield around
        around = around.cpu_parent
