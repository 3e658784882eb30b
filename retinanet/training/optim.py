"""Parameter groups, optimizer, learning rate as a pure function of the step, and rescaling by batch size."""

import math
from typing import Literal, NamedTuple, assert_never

from torch import nn, optim

from retinanet.config.fields import known
from retinanet.config.schedule_keys import ScheduleKeys


class Plan(NamedTuple):
    """A schedule in optimizer steps, after rescaling to the batch size in use."""

    total_steps: int
    lr: float
    warmup: int
    warmup_factor: float
    shape: Literal["steps", "cosine", "constant"]
    milestones: tuple[int, ...]
    decay: float
    final_factor: float


def build_plan(schedule: ScheduleKeys, images: int) -> Plan:
    """Convert config `schedule` to steps.

    images: size of the training set. With batch_size = f * reference_batch, lr is multiplied by f and warmup,
    iterations and iteration milestones are divided by f (the linear rule, arXiv 1706.02677); a length in epochs
    needs no change. Values that are `auto` are replaced before (`config.auto`).
    """
    batch_size = known(schedule.batch_size)
    factor = batch_size / schedule.reference_batch
    steps_per_unit = images / batch_size if schedule.epochs is not None else 1.0 / factor
    length = known(schedule.epochs) if schedule.epochs is not None else schedule.iterations
    return Plan(
        total_steps=max(1, math.ceil(float(length or 0) * steps_per_unit - 1e-9)),
        lr=schedule.lr * factor,
        warmup=round(known(schedule.warmup) / factor),
        warmup_factor=schedule.warmup_factor,
        shape=schedule.shape,
        milestones=tuple(round(milestone * steps_per_unit) for milestone in schedule.milestones),
        decay=schedule.decay,
        final_factor=schedule.final_factor,
    )


def describe_rescaling(schedule: ScheduleKeys, plan: Plan) -> str | None:
    """One line on what the batch size has changed; None if it is the reference batch size."""
    if schedule.batch_size == schedule.reference_batch:
        return None
    return (
        f"batch size {schedule.batch_size} instead of {schedule.reference_batch}: lr {schedule.lr:g} -> {plan.lr:g}, "
        f"warmup {schedule.warmup} -> {plan.warmup} steps, {plan.total_steps} steps in all"
        + (f", milestones {list(plan.milestones)}" if plan.milestones else "")
    )


LONGEST_WARMUP = 0.1
"""Part of a run from which a warmup is reported as too long."""


def describe_long_warmup(schedule: ScheduleKeys, plan: Plan) -> str | None:
    """A warning, with the remedy, about a warmup of more than a tenth of the run; None if it is not longer."""
    if plan.warmup <= max(1, LONGEST_WARMUP * plan.total_steps):
        return None
    missed = ", so the learning rate never reaches schedule.lr" if plan.warmup >= plan.total_steps else ""
    factor = known(schedule.batch_size) / schedule.reference_batch
    better = int(LONGEST_WARMUP * plan.total_steps * factor)
    return (
        f"warning: warmup takes {plan.warmup} of the {plan.total_steps} steps{missed}; set schedule.warmup={better} "
        "(or auto), or train longer"
    )


def lr_at(step: int, plan: Plan) -> float:
    """Learning rate of the update that follows `step` finished updates (0: the first update)."""
    match plan.shape:
        case "steps":
            factor = plan.decay ** sum(step >= milestone for milestone in plan.milestones)
        case "cosine":
            progress = min(1.0, max(0, step - plan.warmup) / max(1, plan.total_steps - plan.warmup))
            factor = plan.final_factor + (1.0 - plan.final_factor) * 0.5 * (1.0 + math.cos(math.pi * progress))
        case "constant":
            factor = 1.0
        case _:
            assert_never(plan.shape)
    if step < plan.warmup:
        factor *= plan.warmup_factor + (1.0 - plan.warmup_factor) * step / plan.warmup
    return plan.lr * factor


def set_lr(optimizer: optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every parameter group to `lr` times its multiplier."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_multiplier"]


def parameter_groups(model: nn.Module, schedule: ScheduleKeys) -> list[dict[str, object]]:
    """Trainable parameters grouped by learning rate and decay, in the order of the model, within groups too."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    bias_decay = schedule.norm_decay if schedule.bias_decay is None else schedule.bias_decay
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            bias = name == "bias" and isinstance(module, nn.Conv2d)
            multiplier = part_multiplier(path, schedule) * (schedule.bias_lr if bias else 1.0)
            decays = parameter.ndim > 1 or (bias_decay if bias else schedule.norm_decay)
            groups.setdefault((multiplier, schedule.weight_decay if decays else 0.0), []).append(parameter)
    return [
        {"params": parameters, "lr_multiplier": multiplier, "weight_decay": decay}
        for (multiplier, decay), parameters in groups.items()
    ]


def part_multiplier(path: str, schedule: ScheduleKeys) -> float:
    """Multiplier of the learning rate for the part of the network that a module's path is in."""
    part = path.partition(".")[0]
    multipliers = {"backbone": schedule.backbone_lr, "fpn": schedule.fpn_lr}
    return multipliers.get(part, schedule.head_lr if part in ("class_head", "box_head") else 1.0)


def build_optimizer(model: nn.Module, schedule: ScheduleKeys) -> optim.Optimizer:
    """The optimizer of config `schedule`; its learning rate is set before every step by `set_lr`."""
    groups = parameter_groups(model, schedule)
    match schedule.optimizer:
        case "sgd":
            return optim.SGD(groups, lr=schedule.lr, momentum=schedule.momentum, fused=True)
        case "adamw":
            return optim.AdamW(groups, lr=schedule.lr, betas=(schedule.momentum, 0.999), fused=True)
        case _:
            assert_never(schedule.optimizer)
