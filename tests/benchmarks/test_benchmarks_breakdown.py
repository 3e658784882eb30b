"""Breakdown of a profiled step: groups by name, by range, and of a range's backward pass."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.nn.functional import conv2d

from benchmarks.breakdown import (
    BACKWARD,
    BOX_LOSS,
    CLASS_LOSS,
    COPIES,
    FORWARD,
    GROUPS,
    OPERATORS,
    REST,
    TRANSFERS,
    UPDATE,
    break_down,
    convolution_flops,
    in_group,
    kernel_times,
)

CPU = torch.device("cpu")
PIXELS = torch.rand(2, 32, 48, 48)
FLOPS = 2 * 2 * 48 * 48 * 32 * 32 * 9
"""Of one 3x3 convolution of 32 to 32 channels on PIXELS."""


def network() -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(3):
        layers += [nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers)


def shares(step: Callable[[], object]) -> dict[str, float]:
    """Each group's least time of five, as shares of their sum: interference from other processes is rare."""
    step()
    least: dict[str, float] = {}
    for _ in range(5):
        found = break_down("it", step, CPU, peak=None)
        assert sum(group.share for group in found.groups) == pytest.approx(1.0)
        for group in found.groups:
            least[group.group] = min(group.seconds, least.get(group.group, group.seconds))
    return {group: seconds / sum(least.values()) for group, seconds in least.items()}


def test_convolutions_are_most_of_a_convolutional_network_and_mostly_backward() -> None:
    net = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)

    def step() -> None:
        optimizer.zero_grad()
        net(PIXELS).mean().backward()
        optimizer.step()

    found = shares(step)
    assert found[FORWARD] + found[BACKWARD] > 0.5
    # Two of three layers also have a gradient by their input, of the same cost as that by the weights.
    assert found[BACKWARD] > found[FORWARD]
    assert found.keys() - {COPIES} == {FORWARD, BACKWARD, OPERATORS, UPDATE, REST}


def test_without_a_backward_pass_its_group_is_absent() -> None:
    net = network()
    with torch.no_grad():
        found = shares(lambda: net(PIXELS))
    assert BACKWARD not in found
    assert found[FORWARD] > 0.5


def test_a_range_takes_its_backward_pass_with_it() -> None:
    """Not only what is called within it; and what is outside stays outside, before and after."""
    weight, other = (torch.rand(32, 32, 3, 3, requires_grad=True) for _ in range(2))
    loss = in_group(CLASS_LOSS)(lambda features: conv2d(features, weight).square().sum())

    inside = shares(lambda: loss(PIXELS).backward())
    assert {FORWARD, BACKWARD}.isdisjoint(inside)
    assert inside[CLASS_LOSS] > 0.8

    both = shares(lambda: loss(conv2d(PIXELS, other)).mul(2).backward())
    assert both[CLASS_LOSS] > both[FORWARD] > 0
    assert both[BACKWARD] > 0


def test_the_inner_range_counts_also_around_a_custom_autograd_function() -> None:
    class Cubed(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, values: Tensor) -> Tensor:
            ctx.save_for_backward(values)  # type: ignore[attr-defined]
            return values**3

        @staticmethod
        def backward(ctx: object, *slopes: Tensor) -> Tensor:
            (values,) = ctx.saved_tensors  # type: ignore[attr-defined]
            for _ in range(50):
                values.exp()
            return 3 * values**2 * slopes[0]

    values = torch.rand(2**18, requires_grad=True)
    inner = in_group(CLASS_LOSS)(Cubed.apply)
    found = shares(lambda: in_group(BOX_LOSS)(lambda: inner(values).sum())().backward())
    assert found[CLASS_LOSS] > 0.6, "the backward pass of the function alone is most of it"
    assert found[CLASS_LOSS] > found[BOX_LOSS] > 0


def test_casts_and_joins_are_copies() -> None:
    values = torch.rand(2**20)
    found = shares(lambda: torch.cat([values.bfloat16(), values.bfloat16()]).float())
    assert found[COPIES] > 0.5


def test_operations_of_convolutions_forward_and_backward() -> None:
    first, last = (nn.Conv2d(32, 32, 3, padding=1) for _ in range(2))
    flops = convolution_flops(lambda: last(first(PIXELS)).sum().backward())
    assert flops == {FORWARD: 2 * FLOPS, BACKWARD: 3 * FLOPS}, "the pixels need no gradient"


def test_rates_are_of_the_groups_own_time() -> None:
    net = network()
    net(PIXELS)
    found = break_down("it", lambda: net(PIXELS), CPU, peak=1e9)
    (forward,) = (group for group in found.groups if group.group == FORWARD)
    assert forward.flops == 3 * FLOPS
    assert forward.share_of_peak == pytest.approx(3 * FLOPS / forward.seconds / 1e9)
    assert all(group.flops is None for group in found.groups if group.group not in (FORWARD, BACKWARD))
    names = [group.group for group in found.groups]
    assert names == [group for group in GROUPS if group in names], "in the order of GROUPS"


def test_kernels_count_once_and_under_what_started_them() -> None:
    """A GPU's time line as the profiler gives it: ranges lie on it too, around their kernels."""

    def event(name: str, device: DeviceType, micros: float, annotation: bool = False) -> FunctionEvent:
        return FunctionEvent(1, name, 1, 0.0, micros, device_type=device, is_user_annotation=annotation)

    around = event("group: class loss", DeviceType.CPU, 50.0, annotation=True)
    around.append_kernel("group: class loss", 0, 100.0)
    within, convolution, copy = (
        event(f"aten::{n}", DeviceType.CPU, 5.0) for n in ("mul", "cudnn_convolution", "copy_")
    )
    within.set_cpu_parent(around)
    within.append_kernel("elementwise", 0, 20.0)
    convolution.append_kernel("implicit gemm", 0, 300.0)
    copy.append_kernel("Memcpy HtoD (Pinned -> Device)", 0, 40.0)
    on_gpu = [("group: class loss", 100.0), ("elementwise", 20.0), ("implicit gemm", 300.0), ("Memcpy HtoD", 40.0)]
    lines = [event(name, DeviceType.CUDA, micros, name.startswith("group")) for name, micros in on_gpu]
    unowned = event("a graph's kernel", DeviceType.CUDA, 7.0)
    found = kernel_times([around, within, convolution, copy, *lines, unowned])
    assert found == {CLASS_LOSS: 20.0, FORWARD: 300.0, TRANSFERS: 40.0, REST: 7.0}
