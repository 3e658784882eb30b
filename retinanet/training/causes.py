"""Causes of a low AP that a run's config and metrics prove, without its data.

Each cause is a pure function of `RunEvidence` that returns a `Finding` or None. `retinanet doctor` adds causes that
need the data or the detector (`diagnostics.doctor`).
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from statistics import fmean
from typing import Any, NamedTuple

from retinanet.config.fields import known
from retinanet.config.schema import Config
from retinanet.training.optim import LONGEST_WARMUP, Plan

LOW_AP = 0.1
"""Best AP below which a run's AP is low. Above it, only causes that are proven by themselves are reported."""
LONG_WARMUP, ENDLESS_WARMUP = 0.25, 0.5
"""Part of a run that a warmup may take where AP is low, and in any run: a tenth is usual, a fifth does no harm."""
HEAD_SIGMA = 0.01
"""Standard deviation of the initial weights of the subnets (paper section 4.1)."""
LEAST_TRAVEL = 1.0
"""Distance in the space of all weights below which SGD has left a network as it was."""
FEW_STEPS = 200
UNLEARNED = 0.6
"""Final over initial loss above which little has been learned; trainings that work end below a half."""
STILL_FALLING = 0.05
"""Relative fall of the loss over the last fifth of a run from which a longer run is better."""
DIVERGED = 1.3
"""Final over least loss (the first one, or a mean of a fifth of the run) from which the loss has risen."""
EXPLODED = 5.0
"""Largest over initial loss of a training that diverged, whether or not it recovered."""
USUAL_LR = {"adamw": 0.001, "sgd": 0.01}
"""Upper bound of the learning rate that is proposed."""
SCRATCH_IMAGES = 4000
"""Images below which a backbone without weights has learned little: the quickstart's scenes take 4,640."""
FEW_POSITIVES = 0.5


class Finding(NamedTuple):
    """A proven cause."""

    title: str
    """What is wrong, as part of a sentence: lower case, no full stop."""
    proof: str
    """Sentences with the numbers that prove it."""
    remedy: str
    """Keys or a command as they are typed; empty where there is no single one."""
    advice: str = ""
    """What to do in words, before the remedy."""


class RunEvidence(NamedTuple):
    """What is known of a run from its own files."""

    config: Config
    """With numbers in place of `auto`."""
    plan: Plan
    train_rows: tuple[Mapping[str, Any], ...]
    """Training rows of metrics.jsonl, in order."""
    eval_rows: tuple[Mapping[str, Any], ...]
    """Evaluations of metrics.jsonl, in order."""
    best_ap: float | None
    """In 0..1, -1 where val has no objects; None: never evaluated."""

    def steps(self) -> int:
        """Updates that were made, as far as they are logged."""
        return int(self.train_rows[-1]["step"]) if self.train_rows else 0

    def images_seen(self) -> int:
        """Images of all updates."""
        return self.steps() * known(self.config.schedule.batch_size)

    def is_low(self) -> bool:
        """Whether AP is low, or not known."""
        return self.best_ap is None or self.best_ap < LOW_AP

    def losses(self) -> list[float]:
        """The total loss of every row."""
        return [float(row["loss"]) for row in self.train_rows]


RunCause = Callable[[RunEvidence], Finding | None]


def run_evidence(config: Config, plan: Plan, rows: Sequence[Mapping[str, Any]]) -> RunEvidence:
    """The evidence of a run's config, plan and all rows of its metrics.jsonl."""
    evaluations = tuple(row for row in rows if row["kind"] == "eval")
    values = [float(row["AP"]) for row in evaluations if "AP" in row]
    return RunEvidence(
        config=config,
        plan=plan,
        train_rows=tuple(row for row in rows if row["kind"] == "train" and "loss" in row),
        eval_rows=evaluations,
        best_ap=max(values, default=None),
    )


def quick_cause(config: Config, plan: Plan, rows: Sequence[Mapping[str, Any]]) -> str | None:
    """One line on the first cause that the metrics prove, with its remedy; None without one.

    For the end of a run whose AP is low; needs no data. rows: as `run.metric_rows.read_rows` returns them.
    """
    evidence = run_evidence(config, plan, rows)
    for _, cause in RUN_CAUSES:
        finding = cause(evidence)
        if finding is not None:
            return f"{finding.title}; {finding.advice or 'set'} {finding.remedy}".rstrip()
    return None


def warmup_too_long(evidence: RunEvidence) -> Finding | None:
    """The learning rate was still rising for most of the run, or for much of it where AP is low."""
    plan, steps = evidence.plan, evidence.steps()
    most = LONG_WARMUP if evidence.is_low() else ENDLESS_WARMUP
    if not steps or plan.warmup <= max(1, most * min(steps, plan.total_steps)):
        return None
    reached = _max_lr(evidence) / plan.lr
    never = plan.warmup >= steps
    schedule = evidence.config.schedule
    factor = known(schedule.batch_size) / schedule.reference_batch
    return Finding(
        title="warmup is never left" if never else "warmup takes too much of the run",
        proof=f"{plan.warmup} steps of warmup in a run of {steps}; the highest learning rate was {reached:.0%} of "
        f"schedule.lr, the mean {_mean_lr(evidence) / plan.lr:.0%}.",
        remedy=f"schedule.warmup={max(1, int(LONGEST_WARMUP * plan.total_steps * factor))}",
    )


def lr_too_high(evidence: RunEvidence) -> Finding | None:
    """The loss rose, or exploded, once the learning rate was high."""
    losses = evidence.losses()
    if len(losses) < 3 or not evidence.is_low():
        return None
    parts = _fifths(losses)
    start, end, most = losses[0], parts[-1], max(losses)
    least = min(start, *parts)
    exploded, rose = most >= EXPLODED * start, end >= max(DIVERGED * least, UNLEARNED * start)
    if not exploded and not rose:
        return None
    schedule = evidence.config.schedule
    clip = schedule.clip_norm
    norms = [float(row["grad_norm"]) for row in evidence.train_rows if "grad_norm" in row]
    proof = f"The loss began at {start:.3g}, had a maximum of {most:.3g} and ended at {end:.3g}"
    proof += f", after {least:.3g}." if rose and least < start else "."
    if clip is not None and norms:
        clipped = sum(norm > clip for norm in norms) / len(norms)
        proof += f" Gradients were clipped in {clipped:.0%} of the logged steps (largest norm {max(norms):.3g})."
    return Finding(
        title="the learning rate is too high",
        proof=f"{proof} The highest learning rate was {_max_lr(evidence):.2g}.",
        remedy=f"schedule.lr={_round(schedule.lr / 10)}" + ("" if clip else " schedule.clip_norm=10"),
    )


def lr_too_low(evidence: RunEvidence) -> Finding | None:
    """All updates together could not move the weights: a bound that holds whatever the data are."""
    rows, schedule = evidence.train_rows, evidence.config.schedule
    if len(rows) < 2 or not evidence.is_low() or warmup_too_long(evidence):
        return None
    total_lr = _mean_lr(evidence) * evidence.steps()
    if schedule.optimizer == "adamw":
        if total_lr >= HEAD_SIGMA:
            return None
        bound = f"AdamW moves a weight by at most about the learning rate in a step, so by {total_lr:.2g} in all"
        bound += f"; the subnets' random initial weights have a deviation of {HEAD_SIGMA:g}."
        factor = 30 * HEAD_SIGMA / total_lr
    else:
        norms = [float(row.get("grad_norm", 0.0)) for row in rows]
        norm = fmean(min(norm, schedule.clip_norm or norm) for norm in norms)
        travel = total_lr * norm / (1 - schedule.momentum)
        if travel >= LEAST_TRAVEL or not norm:
            return None
        bound = f"With gradients of norm {norm:.2g}, all updates together moved the weights by at most {travel:.2g}"
        bound += " (Euclidean distance), almost nowhere from where they started."
        factor = 30 * LEAST_TRAVEL / travel
    better = min(schedule.lr * factor, USUAL_LR[schedule.optimizer])
    if better < 2 * schedule.lr:
        return None  # a usual rate: the run is too short
    losses = evidence.losses()
    return Finding(
        title="the learning rate is too low",
        proof=f"{bound} The loss went from {losses[0]:.3g} to {_fifths(losses)[-1]:.3g}.",
        remedy=f"schedule.lr={_round(better)}",
    )


def too_short(evidence: RunEvidence) -> Finding | None:
    """AP or the fall of the loss had not ended when the run did."""
    if not evidence.train_rows or warmup_too_long(evidence) or lr_too_high(evidence) or lr_too_low(evidence):
        return None
    losses, steps = evidence.losses(), evidence.steps()
    parts = _fifths(losses)
    fall = 1 - parts[-1] / parts[-2] if len(parts) > 1 and parts[-2] > 0 else 0.0
    few = steps < FEW_STEPS and parts[-1] > UNLEARNED * losses[0]
    rise = _last_rise(evidence)
    if rise is None and not (evidence.is_low() and (few or fall >= STILL_FALLING)):
        return None
    proof = f"{steps} steps; the loss went from {losses[0]:.3g} to {parts[-1]:.3g}"
    proof += f" and fell by {fall:.0%} in the last fifth." if fall >= STILL_FALLING else "."
    if rise is not None:
        proof += f" AP still rose at the end: {', '.join(f'{value:.3f}' for value in rise)}."
    schedule = evidence.config.schedule
    length = (
        f"schedule.epochs={known(schedule.epochs) * 4:g}"
        if schedule.epochs is not None
        else f"schedule.iterations={(schedule.iterations or 1) * 4}"
    )
    return Finding(title="training is too short", proof=proof, remedy=length)


def no_weights(evidence: RunEvidence) -> Finding | None:
    """The backbone starts from random weights and has seen few images."""
    seen = evidence.images_seen()
    if starts_from_weights(evidence.config) or not evidence.is_low() or not 0 < seen < SCRATCH_IMAGES:
        return None
    return Finding(
        title="the backbone started from random weights and saw few images",
        proof=f"model.backbone.weights is none, and {evidence.steps()} steps show {seen:,} images.",
        remedy="model.backbone.weights=imagenet",
        advice="start from weights, or train much longer:",
    )


def frozen_random(evidence: RunEvidence) -> Finding | None:
    """Parts of the backbone are kept at random weights."""
    backbone = evidence.config.model.backbone
    if starts_from_weights(evidence.config):
        return None
    if backbone.frozen_stages:
        return Finding(
            title="stages of the backbone are frozen at random weights",
            proof=f"model.backbone.weights is none and model.backbone.frozen_stages is {backbone.frozen_stages}: these "
            "stages never learn.",
            remedy="model.backbone.weights=imagenet",
            advice="start from weights, or unfreeze them with model.backbone.frozen_stages=0:",
        )
    if backbone.norm in ("frozen_bn", "eval_bn") and evidence.is_low():
        return Finding(
            title="the backbone has random weights and no working normalisation",
            proof=f"model.backbone.weights is none and model.backbone.norm is {backbone.norm}, whose statistics stay "
            "those of no data (mean 0, variance 1).",
            remedy="model.backbone.norm=bn",
        )
    return None


def few_positives(evidence: RunEvidence) -> Finding | None:
    """Few anchors learn an object."""
    counts = [float(row["positives_per_image"]) for row in evidence.train_rows if "positives_per_image" in row]
    if not counts or fmean(counts) >= FEW_POSITIVES or not evidence.is_low():
        return None
    without = sum(count == 0 for count in counts) / len(counts)
    switch = "assign.kind=iou " if evidence.config.assign.kind == "atss" else ""
    return Finding(
        title="there are too few positive anchors",
        proof=f"{fmean(counts):.2g} positive anchors an image in the mean of {len(counts)} logged steps, none at all "
        f"in {without:.0%} of them.",
        remedy=f"{switch}assign.low_quality=true",
        advice="check the anchors (`retinanet anchors`), leave out images without objects (data.empty_images=false), "
        "or give every box its best anchor:",
    )


RUN_CAUSES: tuple[tuple[str, RunCause], ...] = (
    ("warmup", warmup_too_long),
    ("learning rate too high", lr_too_high),
    ("learning rate too low", lr_too_low),
    ("positive anchors", few_positives),
    ("frozen parts", frozen_random),
    ("backbone's weights", no_weights),
    ("length of training", too_short),
)
"""In the order in which they are looked for."""


def starts_from_weights(config: Config) -> bool:
    """Whether the backbone starts from trained weights: its own, or those of a detector."""
    return config.model.weights is not None or config.model.backbone.weights != "none"


def _last_rise(evidence: RunEvidence) -> list[float] | None:
    """The AP of the last evaluations if they rise by a tenth, and by a point, over the last quarter of the run."""
    values = [(int(row["step"]), float(row["AP"])) for row in evidence.eval_rows if row.get("AP", -1) >= 0]
    if len(values) < 3:
        return None
    last_step, last = values[-1]
    before = [ap for step, ap in values if step <= 0.75 * last_step]
    if not before or last < max(ap for _, ap in values) or last < max(before) + max(0.1 * max(before), 0.01):
        return None
    return [ap for _, ap in values[-3:]]


def _fifths(losses: Sequence[float]) -> list[float]:
    """Means of the loss over five parts of the run, of fewer where there are fewer rows."""
    count = min(5, len(losses))
    edges = [round(part * len(losses) / count) for part in range(count + 1)]
    return [fmean(losses[a:b]) for a, b in pairwise(edges)]


def _mean_lr(evidence: RunEvidence) -> float:
    rates = [float(row["lr"]) for row in evidence.train_rows if "lr" in row]
    return fmean(rates) if rates else evidence.plan.lr


def _max_lr(evidence: RunEvidence) -> float:
    return max((float(row["lr"]) for row in evidence.train_rows if "lr" in row), default=evidence.plan.lr)


def _round(value: float) -> str:
    """One significant digit, as it is typed."""
    return f"{float(f'{value:.0e}'):g}"
