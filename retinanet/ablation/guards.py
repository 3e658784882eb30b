"""Checks of a comparison: differences between arms that make it unfair, and warnings against misreading it."""

import math
from pathlib import Path
from typing import NamedTuple

from retinanet.config.fields import known
from retinanet.config.flat import differing
from retinanet.config.load import config_to_dict
from retinanet.config.schema import Config

FEW_SEEDS = 3
HIGH_PRIOR = 0.1


class Splits(NamedTuple):
    """Annotation files on which numbers are measured."""

    selection: Path
    test: Path

    def overlap(self) -> bool:
        """Whether both are the same file."""
        return self.selection.resolve() == self.test.resolve()


def is_under(key: str, prefixes: tuple[str, ...]) -> bool:
    """Whether a dotted key is one of the prefixes or lies in a section that one names."""
    return any(key == prefix or key.startswith(prefix + ".") for prefix in prefixes)


def unfair_differences(reference: Config, arm: Config, may_differ: tuple[str, ...]) -> list[str]:
    """Dotted keys in which an arm differs from the reference and that are not under `may_differ`."""
    keys = differing(config_to_dict(reference), config_to_dict(arm))
    return [key for key in keys if not is_under(key, may_differ)]


def study_warnings(
    arms: dict[str, Config], seeds: tuple[int, ...], lr_values: tuple[float, ...], splits: Splits
) -> tuple[str, ...]:
    """Warnings for readers of this study, one sentence each.

    arms: name -> config; lr_values: the grid, empty under the rule `same`; splits: selection and test annotations.
    """
    warnings: list[str] = []
    for name, config in arms.items():
        warnings += [f"arm {name}: {text}" for text in _arm_warnings(config)]
    if len(seeds) < FEW_SEEDS:
        warnings.append(
            f"{len(seeds)} seed{'s' * (len(seeds) > 1)}: the spread over seeds is poorly known; use 3 or more"
        )
    if splits.overlap() and not lr_values:
        warnings.append(
            f"the test split is the config's own val split ({splits.test.name}): no training and no choice of this "
            "study uses it, but the base's settings may have been tuned on it"
        )
    warnings += _milestone_warnings(next(iter(arms.values())))
    repeating = [name for name, config in arms.items() if config.data.repeat_threshold]
    if 0 < len(repeating) < len(arms):
        warnings.append(
            f"{', '.join(repeating)}: repeats images, so it does not see those of the other arms in their order"
        )
    longer = [name for name, config in arms.items() if config.data.repeat_threshold and config.schedule.epochs]
    if len({config.data.repeat_threshold for config in arms.values()}) > 1 and longer:
        warnings.append(
            f"the budget is in epochs, which data.repeat_threshold makes longer: {', '.join(longer)} may train for "
            "more steps than the other arms; give budget.iterations"
        )
    return tuple(warnings)


def _arm_warnings(config: Config) -> list[str]:
    loss = config_to_dict(config)["loss"]["classification"]
    kind, alpha = loss["kind"], loss.get("alpha")
    gamma = loss.get("gamma") if kind == "focal" else 0.0
    warnings = []
    if kind in ("focal", "balanced_cross_entropy") and gamma == 0 and isinstance(alpha, float) and alpha == 0.25:
        warnings.append(
            f"{'gamma 0 with ' * (kind == 'focal')}alpha 0.25 is not plain cross entropy but the paper's 10.8 AP row "
            "(Table 1a): it weights the many negatives three times as much as positives. The paper's fair baseline is "
            "alpha 0.75"
        )
    if config.model.head.prior >= HIGH_PRIOR:
        warnings.append(
            f"model.head.prior is {config.model.head.prior:g}, so the prior of section 4.1 (0.01) is all but disabled: "
            "negatives dominate early steps, and cross entropy is expected to diverge"
        )
    return warnings


def _milestone_warnings(config: Config) -> list[str]:
    schedule = config.schedule
    length = known(schedule.epochs) if schedule.epochs is not None else schedule.iterations
    late = [milestone for milestone in schedule.milestones if milestone >= (length or math.inf)]
    if schedule.shape != "steps" or not late:
        return []
    return [
        f"schedule.milestones {[f'{m:g}' for m in late]} lie at or beyond the end of training ({length:g}): the "
        "learning rate never drops there; give milestones that fit the budget under `overrides`"
    ]
