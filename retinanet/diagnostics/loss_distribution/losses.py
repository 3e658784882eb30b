"""The class losses that are compared on a checkpoint: read from a command line or the paper's, named and checked."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retinanet.build.losses import build_class_loss
from retinanet.config import strict_yaml as yaml_strict
from retinanet.config.class_losses import (
    AnyClassLossKeys,
    BalancedCrossEntropyKeys,
    FocalKeys,
    SoftmaxCrossEntropyKeys,
    SoftmaxFocalKeys,
    is_own_kind,
)
from retinanet.config.load import config_from_dict, with_values
from retinanet.config.origins import Origin
from retinanet.config.schema import Config
from retinanet.errors import ConfigError
from retinanet.losses.classification import ClassificationLoss

GAMMAS = (0.0, 0.5, 1.0, 2.0)
"""Of the paper's Figure 4."""


def build_losses(texts: list[str]) -> list[AnyClassLossKeys]:
    """Losses from texts such as `focal`, `kind=focal,gamma=2,alpha=0.25` or `{kind: ohem, batch: 256}`.

    The keys are those of `loss.classification` in a config; missing keys have the kind's defaults. Raises ConfigError
    with the errors of all texts.
    """
    found: list[AnyClassLossKeys] = []
    errors: list[str] = []
    for text in texts:
        flow = text.strip()
        if not flow.startswith("{"):
            first = flow.split(",")[0]
            bare = "" if "=" in first or ":" in first else "kind: "
            flow = "{" + bare + re.sub(r"\s*=\s*", ": ", flow) + "}"
        parsed = yaml_strict.parse(flow)
        if parsed.errors:
            errors += [f"--loss {text!r}: {message}; write it as kind=focal,gamma=2" for _, message in parsed.errors]
            continue
        try:
            found.append(_keys_of(parsed.data, f"--loss {text!r}"))
        except ConfigError as error:
            errors.append(str(error))
    if errors:
        raise ConfigError("\n".join(errors))
    return found


def _keys_of(section: Any, source: str) -> AnyClassLossKeys:
    match section:
        case {"kind": str() as kind} if is_own_kind(kind):
            # Written on the user's command line, so that its file may be run.
            values = {f"loss.classification.{key}": value for key, value in section.items()}
            origins = dict.fromkeys(values, Origin(source))
            return with_values(Config(), values, origins=origins).loss.classification
        case _:
            return config_from_dict({"loss": {"classification": section}}, source).loss.classification


def default_losses(trained_with: AnyClassLossKeys) -> list[AnyClassLossKeys]:
    """Focal losses with the paper's four gammas for the head of `trained_with`, with its alpha where it has one."""
    match trained_with:
        case SoftmaxFocalKeys(alpha=alpha) | SoftmaxCrossEntropyKeys(alpha=alpha):
            return [SoftmaxFocalKeys(alpha=alpha, gamma=gamma) for gamma in GAMMAS]
        case FocalKeys(alpha=alpha) | BalancedCrossEntropyKeys(alpha=alpha):
            return [FocalKeys(alpha=alpha, gamma=gamma) for gamma in GAMMAS]
        case _:
            return [FocalKeys(gamma=gamma) for gamma in GAMMAS]


def name_losses(losses: Sequence[AnyClassLossKeys]) -> dict[str, AnyClassLossKeys]:
    """Short names: the kind with the keys that differ from its defaults or among the given losses of the kind.

    Losses that differ in their weight only become one, since no share depends on the weight.
    """
    keys = [loss.model_dump(exclude={"kind", "weight", "source_sha256"}) for loss in losses]
    named = {}
    for loss, own in zip(losses, keys):
        usual = {key: field.default for key, field in type(loss).model_fields.items()}
        of_kind = [other for other_loss, other in zip(losses, keys) if other_loss.kind == loss.kind]
        shown = [
            # A function of the user has keys without a default here.
            key
            for key in own
            if key not in usual or own[key] != usual[key] or any(other[key] != own[key] for other in of_kind)
        ]
        named[" ".join([loss.kind, *(f"{key} {_written(own[key])}" for key in shown)])] = loss
    return named


def _written(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + " ".join(map(_written, value)) + "]"
    return f"{value:g}" if isinstance(value, float) else "none" if value is None else str(value)


def check_head(
    trained_with: AnyClassLossKeys, classes: int, losses: dict[str, ClassificationLoss], source: Path
) -> None:
    """Raise ConfigError where a loss needs another number of outputs than the class head of `source` has."""
    any_prior = 0.5
    outputs = len(build_class_loss(trained_with).prior_bias(any_prior, classes))
    needed = {name: len(loss.prior_bias(any_prior, classes)) for name, loss in losses.items()}
    wrong = [f"{name} (needs {count})" for name, count in needed.items() if count != outputs]
    if wrong:
        head, other = ("softmax", "sigmoid") if outputs > classes else ("sigmoid", "softmax")
        raise ConfigError(
            f"--loss: {source} was trained with {trained_with.kind}: its {head} head has {outputs} outputs per anchor "
            f"for {classes} classes, which does not fit the {other} loss {', '.join(wrong)}; give {head} losses only"
        )
