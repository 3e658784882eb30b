"""Warnings of a study, and the differences between arms that are unfair."""

from collections.abc import Callable
from pathlib import Path

import pytest

from retinanet.ablation.guards import Splits, is_under, study_warnings, unfair_differences
from retinanet.config.schema import Config

Tiny = Callable[..., Config]
APART = Splits(Path("val.json"), Path("test.json"))


def warnings_of(config: Config, splits: Splits = APART, seeds: tuple[int, ...] = (0, 1, 2)) -> tuple[str, ...]:
    return study_warnings({"mine": config}, seeds, (), splits)


def test_a_sound_study_has_no_warnings(tiny: Tiny) -> None:
    assert warnings_of(tiny()) == ()
    assert warnings_of(tiny("loss.classification.gamma=0", "loss.classification.alpha=0.75")) == ()
    assert warnings_of(tiny("loss.classification.kind=cross_entropy")) == ()


@pytest.mark.parametrize(
    ("overrides", "part"),
    [
        (["loss.classification.gamma=0"], "arm mine: gamma 0 with alpha 0.25"),
        (["loss.classification={kind: balanced_cross_entropy, alpha: 0.25}"], "10.8 AP row"),
        (["model.head.prior=0.5"], "prior of section 4.1"),
        (["schedule.shape=steps", "schedule.milestones=[4, 6]"], "milestones ['6'] lie at or beyond"),
    ],
)
def test_a_trap_is_named(tiny: Tiny, overrides: list[str], part: str) -> None:
    warnings = warnings_of(tiny(*overrides))
    assert len(warnings) == 1
    assert part in warnings[0]


def test_few_seeds_and_one_split_for_all(tiny: Tiny) -> None:
    assert "1 seed:" in warnings_of(tiny(), seeds=(4,))[0]
    same = Splits(Path("a/../val.json"), Path("val.json"))
    assert "own val split" in warnings_of(tiny(), splits=same)[0]


def test_repeats_lengthen_a_budget_in_epochs(tiny: Tiny) -> None:
    for length, warned in (("schedule.epochs=2.0", True), ("schedule.iterations=6", False)):
        arms = {"plain": tiny(length), "repeats": tiny(length, "data.repeat_threshold=0.01")}
        found = study_warnings(arms, (0, 1, 2), (), APART)
        assert any("repeats may train for more steps" in warning for warning in found) is warned
        assert any(warning.startswith("repeats: repeats images") for warning in found)
        assert study_warnings({"a": arms["repeats"], "b": arms["repeats"]}, (0, 1, 2), (), APART) == ()


def test_unfair_differences_are_dotted_keys_outside_of_may_differ(tiny: Tiny) -> None:
    other = tiny("loss.classification.kind=cross_entropy", "data.flip=0.25", "model.anchors.sizes=[8, 16, 32, 64, 99]")
    keys = unfair_differences(tiny(), other, ())
    loss = ["loss.classification.kind", "loss.classification.alpha", "loss.classification.gamma"]
    assert set(keys) == {"data.flip", "model.anchors.sizes", *loss}
    assert set(unfair_differences(other, tiny(), ())) == set(keys)
    assert unfair_differences(tiny(), other, ("loss.classification", "model")) == ["data.flip"]


def test_prefixes_end_at_dots() -> None:
    assert is_under("loss.box.weight", ("loss.box",))
    assert is_under("loss.box", ("loss.box",))
    assert not is_under("loss.boxes", ("loss.box",))
