"""All causes in the order in which they are looked for, and what they need to be looked for."""

from collections.abc import Callable
from typing import Literal, NamedTuple, assert_never

from retinanet.diagnostics.doctor.data_causes import (
    anchors_miss,
    box_formats,
    detections_limited,
    empty_val,
    other_categories,
    unseen_classes,
)
from retinanet.diagnostics.doctor.detector_causes import (
    foreign_detections,
    overfits,
    permuted_classes,
    slow_average,
    threshold_hides,
    val_differs,
    wrong_pixels,
)
from retinanet.diagnostics.doctor.facts import Evidence
from retinanet.training.causes import (
    Finding,
    few_positives,
    frozen_random,
    lr_too_high,
    lr_too_low,
    no_weights,
    too_short,
    warmup_too_long,
)

Part = Literal["config", "metrics", "data", "detections", "detector"]
"""What a cause is read from."""


class Cause(NamedTuple):
    """One thing that is looked for."""

    name: str
    part: Part
    find: Callable[[Evidence], Finding | None]
    last: bool = False
    """Reported only if no other cause was found: its signs are also those of others."""


CAUSES: tuple[Cause, ...] = (
    Cause("objects in val", "data", empty_val),
    Cause("format of boxes", "data", box_formats),
    Cause("classes of val", "data", other_categories),
    Cause("ids of detections", "detections", foreign_detections),
    Cause("ids of classes", "detections", permuted_classes),
    Cause("classes in train", "data", unseen_classes),
    Cause("warmup", "metrics", lambda evidence: warmup_too_long(evidence.run)),
    Cause("learning rate too high", "metrics", lambda evidence: lr_too_high(evidence.run)),
    Cause("learning rate too low", "metrics", lambda evidence: lr_too_low(evidence.run)),
    Cause("anchors", "data", anchors_miss),
    Cause("positive anchors", "metrics", lambda evidence: few_positives(evidence.run), last=True),
    Cause("frozen parts", "config", lambda evidence: frozen_random(evidence.run)),
    Cause("normalisation", "config", wrong_pixels),
    Cause("score threshold", "detector", threshold_hides),
    Cause("limit of detections", "data", detections_limited),
    Cause("moving average", "detector", slow_average),
    Cause("train and val alike", "detector", val_differs),
    Cause("overfitting", "detector", overfits, last=True),
    Cause("backbone's weights", "metrics", lambda evidence: no_weights(evidence.run), last=True),
    Cause("length of training", "metrics", lambda evidence: too_short(evidence.run), last=True),
)


class Diagnosis(NamedTuple):
    """The outcome of all causes."""

    findings: tuple[Finding, ...]
    cleared: tuple[str, ...]
    """Names of causes that were looked for and not found."""
    unchecked: tuple[Cause, ...]


def diagnose(evidence: Evidence) -> Diagnosis:
    """Look for every cause, in order."""
    checked = [(cause, cause.find(evidence)) for cause in CAUSES if is_known(evidence, cause.part)]
    first = [finding for cause, finding in checked if finding is not None and not cause.last]
    last = [finding for cause, finding in checked if finding is not None and cause.last]
    return Diagnosis(
        findings=tuple(first or last),
        cleared=tuple(cause.name for cause, finding in checked if finding is None),
        unchecked=tuple(cause for cause in CAUSES if not is_known(evidence, cause.part)),
    )


def is_known(evidence: Evidence, part: Part) -> bool:
    """Whether what a cause is read from could be read."""
    match part:
        case "config":
            return True
        case "metrics":
            return bool(evidence.run.train_rows)
        case "data":
            return evidence.train is not None and evidence.val is not None
        case "detections":
            return evidence.found is not None
        case "detector":
            return evidence.trial is not None
        case _:
            assert_never(part)
