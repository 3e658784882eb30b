"""Learning rate by hand, the linear rule of rescaling, parameter groups and optimizers."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import nn

from retinanet.config.schedule_keys import ScheduleKeys
from retinanet.training.optim import (
    Plan,
    build_optimizer,
    build_plan,
    describe_long_warmup,
    describe_rescaling,
    lr_at,
    parameter_groups,
    set_lr,
)

PLAN = Plan(
    total_steps=100,
    lr=0.4,
    warmup=10,
    warmup_factor=0.1,
    shape="steps",
    milestones=(60, 80),
    decay=0.1,
    final_factor=0.0,
)


def schedule(**keys: Any) -> ScheduleKeys:
    return ScheduleKeys.model_validate({"iterations": 1000, **keys})


@pytest.mark.parametrize(
    ("step", "lr"),
    [
        (0, 0.04),
        (1, 0.4 * 0.19),
        (5, 0.4 * 0.55),
        (9, 0.4 * 0.91),
        (10, 0.4),
        (59, 0.4),
        (60, 0.04),
        (79, 0.04),
        (80, 0.004),
        (99, 0.004),
        (500, 0.004),
    ],
)
def test_warmup_and_steps_by_hand(step: int, lr: float) -> None:
    assert lr_at(step, PLAN) == pytest.approx(lr)


@pytest.mark.parametrize(
    ("step", "lr"),
    [
        (0, 0.04),
        (10, 0.4),
        (55, 0.4 * (0.2 + 0.8 * 0.5)),
        (40, 0.4 * (0.2 + 0.8 * 0.75)),
        (100, 0.4 * 0.2),
        (1000, 0.08),
    ],
)
def test_cosine_by_hand(step: int, lr: float) -> None:
    assert lr_at(step, PLAN._replace(shape="cosine", final_factor=0.2)) == pytest.approx(lr)


def test_cosine_without_warmup_falls_to_zero() -> None:
    plan = PLAN._replace(shape="cosine", warmup=0)
    rates = [lr_at(step, plan) for step in range(101)]
    assert rates[0] == 0.4
    assert rates[99] == pytest.approx(0.2 * (1 + math.cos(0.99 * math.pi)))
    assert rates[100] == pytest.approx(0, abs=1e-12)
    assert all(earlier > later for earlier, later in pairwise(rates))


def test_constant_ignores_milestones() -> None:
    rates = [lr_at(step, PLAN._replace(shape="constant")) for step in (0, 10, 70, 99)]
    assert rates == pytest.approx([0.04, 0.4, 0.4, 0.4])


def test_a_milestone_within_warmup_counts() -> None:
    assert lr_at(5, PLAN._replace(milestones=(2,))) == pytest.approx(0.04 * 0.55)


def test_the_papers_schedule_needs_no_rescaling() -> None:
    paper = schedule(iterations=90_000, milestones=(60_000.0, 80_000.0))
    plan = build_plan(paper, images=118_000)
    assert plan == Plan(90_000, 0.01, 500, 0.001, "steps", (60_000, 80_000), 0.1, 0.0)
    assert describe_rescaling(paper, plan) is None


@pytest.mark.parametrize("batch", [8, 32, 4])
def test_iterations_follow_the_linear_rule(batch: int) -> None:
    base = schedule(lr=0.02, warmup=400, iterations=9000, milestones=(6000.0, 8000.0), batch_size=batch)
    plan = build_plan(base, images=5000)
    factor = batch / 16
    assert plan.lr == pytest.approx(0.02 * factor)
    assert plan.warmup == 400 / factor
    assert plan.total_steps == 9000 / factor
    assert plan.milestones == (6000 / factor, 8000 / factor)
    reference = build_plan(base.model_copy(update={"batch_size": 16}), images=5000)
    for seen in (0, 1600, 6400, 6400 * 8, 95_999, 96_000, 128_000, 143_936):
        ours, wanted = lr_at(seen // batch, plan) / factor, lr_at(seen // 16, reference)
        assert ours == pytest.approx(wanted), f"after {seen} images"


@pytest.mark.parametrize("batch", [8, 16, 32])
def test_epochs_keep_their_length_in_images(batch: int) -> None:
    keys = {"iterations": None, "epochs": 12.0, "milestones": (8.0, 11.0), "warmup": 100, "batch_size": batch}
    plan = build_plan(schedule(**keys), images=1600)
    steps = 1600 // batch
    assert plan.total_steps == 12 * steps
    assert plan.milestones == (8 * steps, 11 * steps)
    assert plan.lr == pytest.approx(0.01 * batch / 16)
    assert plan.warmup == 100 * 16 // batch


def test_lengths_that_do_not_divide_round_up_and_are_never_zero() -> None:
    assert build_plan(schedule(iterations=None, epochs=1.0), images=33).total_steps == 3
    assert build_plan(schedule(iterations=None, epochs=0.001), images=10).total_steps == 1
    assert build_plan(schedule(iterations=None, epochs=0.3, batch_size=1), images=10).total_steps == 3
    assert build_plan(schedule(iterations=7, batch_size=48), images=10).total_steps == 3


@pytest.mark.parametrize(
    ("warmup", "steps", "batch", "remedy"),
    [
        (0, 100, 16, None),
        (10, 100, 16, None),
        (11, 100, 16, "warmup=10"),
        (1, 3, 16, None),
        (2, 3, 16, "warmup=0"),
        # A batch of half the reference has twice the steps, but both keys are written for the reference batch.
        (20, 100, 8, "warmup=10"),
    ],
)
def test_a_warmup_of_more_than_a_tenth_is_reported_with_the_remedy(
    warmup: int, steps: int, batch: int, remedy: str | None
) -> None:
    keys = schedule(warmup=warmup, iterations=steps, batch_size=batch)
    text = describe_long_warmup(keys, build_plan(keys, 1000))
    assert (text is None) == (remedy is None)
    assert text is None or (f"schedule.{remedy} " in text and "never reaches" not in text)


def test_a_warmup_that_never_ends_is_called_so() -> None:
    keys = schedule(warmup=100, iterations=96)
    text = describe_long_warmup(keys, build_plan(keys, 66))
    assert text is not None
    assert "100 of the 96 steps, so the learning rate never reaches schedule.lr" in text


def test_the_description_names_what_changed() -> None:
    halved = schedule(batch_size=8, milestones=(600.0,))
    assert describe_rescaling(halved, build_plan(halved, images=100)) == (
        "batch size 8 instead of 16: lr 0.01 -> 0.005, warmup 500 -> 1000 steps, 2000 steps in all, milestones [1200]"
    )


class Net(nn.Module):
    """A backbone with a frozen layer and a norm, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4))
        self.backbone[0].requires_grad_(False)
        self.head = nn.Conv2d(4, 2, 1)


@pytest.mark.parametrize("backbone_lr", [1.0, 0.1])
@pytest.mark.parametrize("norm_decay", [True, False])
def test_groups_hold_each_trainable_parameter_once(norm_decay: bool, backbone_lr: float) -> None:
    net = Net()
    groups = parameter_groups(net, schedule(norm_decay=norm_decay, backbone_lr=backbone_lr, weight_decay=0.02))
    found: dict[int, tuple[float, float]] = {}
    for group in groups:
        for parameter in group["params"]:
            assert id(parameter) not in found
            found[id(parameter)] = (group["lr_multiplier"], group["weight_decay"])
    for name, parameter in net.named_parameters():
        if not parameter.requires_grad:
            assert id(parameter) not in found
            continue
        multiplier, decay = found.pop(id(parameter))
        assert multiplier == (backbone_lr if name.startswith("backbone.") else 1.0)
        assert decay == (0.02 if norm_decay or name in ("backbone.1.weight", "head.weight") else 0.0)
    assert not found
    assert len(groups) == (1 if norm_decay else 2) * (1 if backbone_lr == 1.0 else 2)


@pytest.mark.parametrize(
    ("norm_decay", "bias_decay", "bias", "norm"),
    [(True, None, True, True), (True, False, False, True), (False, True, True, False), (False, None, False, False)],
)
def test_biases_have_a_rate_and_a_decay_of_their_own(
    norm_decay: bool, bias_decay: bool | None, bias: bool, norm: bool
) -> None:
    """Detectron: biases learn at twice the rate without decay; torchvision v2: norms alone do not decay."""
    net = Net()
    settings = schedule(norm_decay=norm_decay, bias_decay=bias_decay, bias_lr=2.0, backbone_lr=0.5, weight_decay=0.02)
    groups = parameter_groups(net, settings)
    found = {id(p): (group["lr_multiplier"], group["weight_decay"]) for group in groups for p in group["params"]}
    decay = {True: 0.02, False: 0.0}
    assert found[id(net.backbone[1].weight)] == (0.5, 0.02)
    assert found[id(net.backbone[1].bias)] == (1.0, decay[bias])
    assert found[id(net.backbone[2].weight)] == (0.5, decay[norm])
    assert found[id(net.backbone[2].bias)] == (0.5, decay[norm]), "a norm's shift is no bias"
    assert found[id(net.head.weight)] == (1.0, 0.02)
    assert found[id(net.head.bias)] == (2.0, decay[bias])


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_the_optimizer_is_the_configs_and_takes_each_groups_rate(name: str, kind: type) -> None:
    optimizer = build_optimizer(Net(), schedule(optimizer=name, momentum=0.8, backbone_lr=0.1, norm_decay=False))
    assert type(optimizer) is kind
    set_lr(optimizer, 0.5)
    assert sorted(group["lr"] for group in optimizer.param_groups) == pytest.approx([0.05, 0.05, 0.5, 0.5])
    assert all(group["lr"] == 0.5 * group["lr_multiplier"] for group in optimizer.param_groups)
    if name == "sgd":
        assert {group["momentum"] for group in optimizer.param_groups} == {0.8}
    else:
        assert {group["betas"] for group in optimizer.param_groups} == {(0.8, 0.999)}


def test_two_steps_of_sgd_by_hand() -> None:
    net = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        net.weight.fill_(2.0)
    optimizer = build_optimizer(net, schedule(momentum=0.5, weight_decay=0.1))
    set_lr(optimizer, 0.1)
    weight, velocity = 2.0, 0.0
    for _ in range(2):
        optimizer.zero_grad()
        net.weight.square().sum().backward()
        optimizer.step()
        velocity = 0.5 * velocity + 2 * weight + 0.1 * weight
        weight -= 0.1 * velocity
    assert net.weight.item() == pytest.approx(weight)


def test_each_part_has_its_own_learning_rate() -> None:
    model = nn.ModuleDict({part: nn.Linear(1, 1) for part in ("backbone", "fpn", "class_head", "box_head")})
    groups = parameter_groups(model, schedule(backbone_lr=0.1, fpn_lr=0.5, head_lr=2.0))
    multipliers = {id(p): group["lr_multiplier"] for group in groups for p in group["params"]}  # type: ignore[attr-defined]
    found = {part: {multipliers[id(p)] for p in module.parameters()} for part, module in model.items()}
    assert found == {"backbone": {0.1}, "fpn": {0.5}, "class_head": {2.0}, "box_head": {2.0}}
