"""Causes that metrics prove: each is found in rows that have it, and in no healthy run."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from retinanet.config.load import with_overrides
from retinanet.config.schema import Config
from retinanet.training.causes import (
    RUN_CAUSES,
    Finding,
    RunEvidence,
    few_positives,
    frozen_random,
    lr_too_high,
    lr_too_low,
    no_weights,
    quick_cause,
    run_evidence,
    too_short,
    warmup_too_long,
)
from retinanet.training.optim import build_plan, lr_at

Tiny = Callable[..., Config]
WEIGHTS = "model.backbone.weights=imagenet"
LEARNS = (2.1, 1.4, 1.1, 0.9, 0.8, 0.8, 0.7, 0.7, 0.68, 0.68, 0.68)
"""Losses of a training that works."""


def rows_of(
    config: Config,
    losses: Sequence[float],
    aps: Sequence[float] = (0.0,),
    *,
    grad_norm: float = 3.0,
    positives: float = 9,
) -> list[dict[str, Any]]:
    """Rows of a whole run with these losses at even intervals, and evaluations with these AP likewise."""
    plan = build_plan(config.schedule, images=100)
    steps = [max(1, round(plan.total_steps * k / (len(losses) - 1))) for k in range(len(losses))]
    rows = [
        {
            "kind": "train",
            "step": step,
            "loss": loss,
            "lr": lr_at(step - 1, plan),
            "grad_norm": grad_norm,
            "positives_per_image": positives,
        }
        for step, loss in zip(steps, losses, strict=True)
    ]
    evaluations = [
        {"kind": "eval", "step": round(plan.total_steps * (k + 1) / len(aps)), "AP": ap} for k, ap in enumerate(aps)
    ]
    return rows + evaluations


def evidence_of(config: Config, *arguments: Any, **named: Any) -> RunEvidence:
    return run_evidence(config, build_plan(config.schedule, images=100), rows_of(config, *arguments, **named))


def causes_of(evidence: RunEvidence) -> list[str]:
    return [name for name, cause in RUN_CAUSES if cause(evidence) is not None]


def found(finding: Finding | None) -> Finding:
    assert finding is not None
    return finding


@pytest.mark.parametrize("ap", [0.05, 0.5])
def test_a_run_that_learns_has_no_cause(tiny: Tiny, ap: float) -> None:
    config = tiny("schedule.iterations=2000", "schedule.warmup=100", WEIGHTS)
    assert causes_of(evidence_of(config, LEARNS, (ap,))) == []
    assert quick_cause(config, build_plan(config.schedule, 100), rows_of(config, LEARNS, (ap,))) is None


def test_a_run_without_rows_has_no_cause(tiny: Tiny) -> None:
    config = tiny(WEIGHTS)
    assert causes_of(run_evidence(config, build_plan(config.schedule, 100), [])) == []


def test_a_warmup_that_is_never_left(tiny: Tiny) -> None:
    config = tiny("schedule.iterations=99", "schedule.warmup=100", WEIGHTS)
    finding = found(warmup_too_long(evidence_of(config, (2.1, 2.0, 1.6, 1.4, 1.2))))
    assert (finding.title, finding.remedy) == ("warmup is never left", "schedule.warmup=9")
    assert "100 steps of warmup in a run of 99" in finding.proof
    line = quick_cause(config, build_plan(config.schedule, 100), rows_of(config, (2.1, 1.2, 1.1)))
    assert line == "warmup is never left; set schedule.warmup=9"


def test_the_warmup_is_proposed_in_steps_of_the_reference_batch(tiny: Tiny) -> None:
    config = tiny("schedule.iterations=400", "schedule.warmup=400", "schedule.batch_size=8", WEIGHTS)
    finding = found(warmup_too_long(evidence_of(config, (2.1, 2.0, 1.9))))
    assert finding.proof.startswith("200 steps of warmup in a run of 200")
    assert finding.remedy == "schedule.warmup=40"


@pytest.mark.parametrize(("warmup", "ap", "blamed"), [(24, 0.0, False), (26, 0.0, True), (26, 0.4, False)])
def test_a_warmup_of_a_part_of_the_run_matters_only_where_ap_is_low(
    tiny: Tiny, warmup: int, ap: float, blamed: bool
) -> None:
    config = tiny("schedule.iterations=100", f"schedule.warmup={warmup}", WEIGHTS)
    assert (warmup_too_long(evidence_of(config, LEARNS, (ap,))) is not None) is blamed


@pytest.mark.parametrize(
    ("losses", "blamed"),
    [
        ((2.1, 5.1, 4.8, 4.6, 4.6, 4.6), True),
        ((2.1, 1.5, 1.4, 1.9, 2.4, 2.6), True),
        ((2.1, 40.0, 2.0, 1.6, 1.2, 1.0), True),
        ((2.1, 2.5, 2.0, 1.6, 1.2, 1.0), False),
        ((0.17, 1e-4, 0.0, 1e-5, 2e-4, 2e-4), False),
    ],
)
def test_a_loss_that_rises_shows_a_learning_rate_that_is_too_high(
    tiny: Tiny, losses: tuple[float, ...], blamed: bool
) -> None:
    config = tiny("schedule.iterations=500", "schedule.lr=0.3", "schedule.clip_norm=2", WEIGHTS)
    finding = lr_too_high(evidence_of(config, losses))
    assert (finding is not None) is blamed
    if finding is not None:
        assert finding.remedy == "schedule.lr=0.03"
        assert "clipped in 100% of the logged steps" in finding.proof
    assert lr_too_high(evidence_of(config, losses, (0.4,))) is None


@pytest.mark.parametrize(
    ("optimizer", "steps", "lr", "remedy"),
    [
        ("adamw", 500, 1e-7, "schedule.lr=0.0008"),
        ("adamw", 100, 1e-7, "schedule.lr=0.001"),
        ("sgd", 500, 1e-6, "schedule.lr=0.003"),
        ("adamw", 500, 1e-3, ""),
        ("sgd", 500, 0.01, ""),
    ],
)
def test_updates_that_cannot_move_the_weights(tiny: Tiny, optimizer: str, steps: int, lr: float, remedy: str) -> None:
    """Three of four rows are after the warmup: 0.3 / (0.75 * 500), at most 0.001; 30 / (0.75 * 500 * 3 / 0.1)."""
    config = tiny(f"schedule.iterations={steps}", f"schedule.optimizer={optimizer}", f"schedule.lr={lr}", WEIGHTS)
    finding = lr_too_low(evidence_of(config, (2.1, 2.08, 2.09, 2.07)))
    assert (finding.remedy if finding else "") == remedy


@pytest.mark.parametrize(
    ("steps", "losses", "aps", "blamed"),
    [
        (60, (2.1, 2.0, 1.9, 1.8, 1.7), (0.0,), True),
        (1000, (2.1, 1.9, 1.7, 1.5, 1.3), (0.01,), True),
        (1000, LEARNS, (0.01,), False),
        (1000, LEARNS, (0.1, 0.2, 0.3, 0.4), True),
        (1000, LEARNS, (0.1, 0.38, 0.4, 0.4), False),
        (1000, LEARNS, (0.1, 0.3, 0.4, 0.35), False),
    ],
)
def test_a_training_that_ends_too_early(
    tiny: Tiny, steps: int, losses: tuple[float, ...], aps: tuple[float, ...], blamed: bool
) -> None:
    config = tiny(f"schedule.iterations={steps}", WEIGHTS)
    finding = too_short(evidence_of(config, losses, aps))
    assert (finding.remedy if finding else "") == (f"schedule.iterations={4 * steps}" if blamed else "")


def test_a_backbone_from_scratch_needs_many_images(tiny: Tiny) -> None:
    short, long = tiny("schedule.iterations=999"), tiny("schedule.iterations=1000")
    assert found(no_weights(evidence_of(short, LEARNS))).remedy == "model.backbone.weights=imagenet"
    assert no_weights(evidence_of(long, LEARNS)) is None
    assert no_weights(evidence_of(short, LEARNS, (0.4,))) is None


@pytest.mark.parametrize(
    ("overrides", "remedy"),
    [
        (("model.backbone.frozen_stages=2",), "model.backbone.weights=imagenet"),
        (("model.backbone.norm=frozen_bn",), "model.backbone.norm=bn"),
        (("model.backbone.frozen_stages=2", WEIGHTS), ""),
        ((), ""),
    ],
)
def test_frozen_parts_with_random_weights(tiny: Tiny, overrides: tuple[str, ...], remedy: str) -> None:
    finding = frozen_random(evidence_of(tiny(*overrides), LEARNS))
    assert (finding.remedy if finding else "") == remedy


def test_few_positive_anchors(tiny: Tiny) -> None:
    config = tiny(WEIGHTS)
    assert "none at all in 100%" in found(few_positives(evidence_of(config, LEARNS, positives=0.0))).proof
    assert few_positives(evidence_of(config, LEARNS, positives=0.6)) is None


def test_a_short_run_at_a_usual_rate_is_called_short_and_not_slow() -> None:
    """Twelve steps of AdamW at 0.001 move no weight far, and the remedy cannot be the rate that was used."""
    config = with_overrides(
        Config(), ["schedule.iterations=12", "schedule.milestones=[]", "schedule.warmup=1", "schedule.lr=0.001",
                   "schedule.optimizer=adamw", "schedule.batch_size=16", "schedule.shape=cosine"],
    )  # fmt: skip
    plan = build_plan(config.schedule, 49)
    rows = [{"kind": "train", "step": s, "loss": 2.2 - 0.02 * s, "lr": 5e-4, "grad_norm": 3.0} for s in range(1, 13)]
    line = quick_cause(config, plan, [*rows, {"kind": "eval", "step": 12, "AP": 0.0}])
    assert line is not None
    assert "too short" in line
    assert "schedule.iterations=48" in line
