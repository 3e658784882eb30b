"""A resumed run: what it continues from, whether for another length, and what the learning rate does then."""

from pathlib import Path

from retinanet.config.flat import flat
from retinanet.config.load import config_to_dict
from retinanet.config.schedule_keys import ScheduleKeys
from retinanet.config.schema import Config
from retinanet.errors import CheckpointError, ConfigError
from retinanet.run.checkpoint import Checkpoint, load_checkpoint, not_finite_parts
from retinanet.run.folder import RunFolder
from retinanet.training.optim import Plan, build_plan, lr_at
from retinanet.training.state import RATES


def choose_checkpoint(folder: RunFolder) -> tuple[Checkpoint, Path, str]:
    """The newest checkpoint of a run that can be used, its file, and why a newer one was not; empty: there is none.

    Raises the CheckpointError of the newest one if none can be used.
    """
    errors: list[CheckpointError] = []
    files = folder.checkpoints()
    for file in files:
        try:
            saved = load_checkpoint(file)
            if bad := not_finite_parts(saved):
                raise CheckpointError(f"{file}: {len(bad)} of its tensors hold NaN or infinity, the first is {bad[0]}.")
        except CheckpointError as error:
            errors.append(error)
            continue
        reason = str(errors[0]) if errors else "" if file == folder.last else f"{folder.last}: no such checkpoint."
        return saved, file, f"{reason} Continuing from {file}, step {saved.progress.step}." if reason else ""
    others = f" Nor can {len(errors) - 1} earlier one{'s' * (len(errors) > 2)} be used." if errors[1:] else ""
    raise CheckpointError(f"{errors[0]}{others}") from errors[0]


def finished_step(saved: Checkpoint, images: int) -> int | None:
    """The step at which a saved run had reached its length, on a training set of `images`; None if it had not."""
    step = saved.progress.step
    return step if build_plan(saved.config.schedule, images).total_steps == step else None


def check_length(plan: Plan, step: int, source: Path) -> None:
    """Raise ConfigError for a length that the run in `source` has already passed at `step`."""
    if plan.total_steps < step:
        raise ConfigError(
            f"schedule: {plan.total_steps:,} steps, but the run in {source} has already made {step:,}; give a longer "
            "schedule.epochs or schedule.iterations."
        )


def describe_new_rates(saved: Config, config: Config, step: int) -> str | None:
    """With which other keys of RATES a run goes on at `step`; None for the same ones."""
    was, now = flat(config_to_dict(saved)), flat(config_to_dict(config))
    changed = [
        f"{key}={now[key]} (was {was[key]})" for key in now if key.startswith(RATES) and now[key] != was.get(key)
    ]
    return f"continued at step {step:,} with {', '.join(changed)}" if changed else None


def describe_new_length(saved: Config, config: Config, plans: tuple[Plan, Plan], step: int) -> str | None:
    """How a run goes on at `step` with another length than it was saved with; None for the same length.

    plans: of both configs.
    """
    before, after = plans
    if (before.total_steps, before.milestones) == (after.total_steps, after.milestones):
        return None
    was, now = lr_at(step, before), lr_at(step, after)
    match config.schedule.shape:
        case "cosine":
            course = "its cosine is recomputed for the new length"
        case "constant":
            course = "it is constant"
        case "steps":
            dropped = sum(step >= milestone for milestone in after.milestones)
            course = (
                f"{dropped} of its milestones {list(after.milestones)} are passed" if after.milestones else "no drop"
            )
    changes = f"stays {now:.3g}" if was == now else f"was {was:.3g} and is now {now:.3g}"
    length, old_length = _length(config.schedule, after), _length(saved.schedule, before)
    return (
        f"continued at step {step:,} for {length} instead of {old_length}; the learning rate here {changes} ({course})"
    )


def _length(schedule: ScheduleKeys, plan: Plan) -> str:
    steps = f"{plan.total_steps:,} step{'s' * (plan.total_steps != 1)}"
    if schedule.epochs is None:
        return steps
    return f"{schedule.epochs:g} epoch{'s' * (schedule.epochs != 1)} ({steps})"
