"""The report of a study over levels: simultaneous intervals, thresholds, the primary comparison, flat curves."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from study_on_disk import make_study

from retinanet.ablation.forecast import forecast, plan_warnings, read_plan, write_plan
from retinanet.ablation.power import PairedSpread
from retinanet.ablation.report.collect import StudyResult
from retinanet.ablation.report.levels import (
    LevelData,
    arm_differences,
    curve_ends,
    gather_level,
    primary_results,
    simultaneous_half_widths,
)
from retinanet.ablation.report.levels_report import primary_sentence, write_levels_report
from retinanet.ablation.study import Study, load_study
from retinanet.ablation.study_file import PrimaryKeys
from retinanet.display.numbers import signed_points
from retinanet.scoring.evaluation import above_score, coco_evaluation

ARMS = {"focal": 0.9, "CE": 0.3}
PRIMARY = PrimaryKeys(arm="CE", against="focal")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> list[StudyResult]:
    """Two levels of two arms with three seeds, whose runs have logged 10 and 1 positives an image."""
    found = []
    for level, positives in (("many", 10.0), ("few", 1.0)):
        result = make_study(tmp_path_factory.mktemp(level), ARMS, {})
        cells = tuple(
            cell._replace(
                record=cell.record._replace(
                    level=level, positives_per_image=positives, anchors_per_image=1000.0, logits_per_image=3000.0
                )
            )
            for cell in result.cells
        )
        found.append(
            result._replace(
                cells=cells, level=level, level_text=(), thresholds=(0.001, 0.5), primary=PRIMARY, guards=()
            )
        )
    return found


@pytest.fixture(scope="module")
def levels(parts: list[StudyResult]) -> list[LevelData]:
    return [gather_level(part) for part in parts]


@pytest.fixture
def study(tmp_path: Path, tiny_yaml: Path) -> Study:
    path = tmp_path / "study.yaml"
    arms = "arms: [{name: focal}, {name: CE, overrides: {loss.classification.kind: cross_entropy}}]"
    primary = "primary: {arm: CE, against: focal, difference: 2.0}"
    text = f"base: {tiny_yaml}\n{arms}\nreference: focal\n{primary}\noutput: {tmp_path}/out\n"
    path.write_text(text, encoding="utf-8")
    return load_study(path)


def test_simultaneous_intervals_hold_together() -> None:
    rng = np.random.default_rng(0)
    scales = np.array([1.0, 2.0, 5.0, 0.1, 1.0, 3.0])
    halves = simultaneous_half_widths(list(scales[:, None] * rng.normal(size=(6, 20_000))))
    inside = np.abs(scales[:, None] * rng.normal(size=(6, 20_000))) <= np.array(halves)[:, None]
    assert inside.all(axis=0).mean() == pytest.approx(0.95, abs=0.01)
    assert inside.mean(axis=1) == pytest.approx(np.full(6, 0.95 ** (1 / 6)), abs=0.01)
    alone = simultaneous_half_widths([rng.normal(size=20_000), np.full(20_000, np.nan)])
    assert alone[0] == pytest.approx(1.96, abs=0.05)
    assert np.isnan(alone[1])


def test_differences_are_measured_at_both_thresholds_and_over_imbalance(levels: list[LevelData]) -> None:
    assert [level.imbalance.ratio() for level in levels] == [100.0, 1000.0]
    found = arm_differences(levels)
    assert [(one.level, one.threshold) for one in found] == [
        ("many", 0.001), ("many", 0.5), ("few", 0.001), ("few", 0.5)
    ]  # fmt: skip
    for one in found:
        assert one.low < one.difference < one.high
    for level in levels:
        for data in level.at:
            assert data.threshold is not None
            cell = data.arms[1].measured[0]
            results = json.loads((cell.folder / "test" / "detections.json").read_text(encoding="utf-8"))
            expected = coco_evaluation(data.ground_truth, above_score(results, data.threshold)).metrics["AP"]
            assert cell.points_M[0] == expected
    assert levels[0].at[0].arms[1].mean() > levels[0].at[1].arms[1].mean()


def test_the_primary_comparison_is_corrected_over_its_levels_alone(levels: list[LevelData]) -> None:
    both = primary_results(levels)
    ps = [one.comparison.p for one in both if one.comparison is not None]
    assert len(ps) == 2
    assert both[0].comparison is not None
    assert both[0].comparison.p_holm == pytest.approx(min(1.0, 2 * min(ps)))
    one_level = PRIMARY.model_copy(update={"level": "few"})
    named = [level._replace(result=level.result._replace(primary=one_level)) for level in levels]
    (alone,) = primary_results(named)
    assert alone.comparison is not None
    assert (alone.level.result.level, alone.comparison.p_holm) == ("few", alone.comparison.p)
    assert primary_sentence(alone).startswith("Level few: CE ")


def test_a_curve_that_still_rises_is_named(levels: list[LevelData]) -> None:
    level = levels[0]
    assert [end.is_flat() for end in curve_ends(level)] == [False, False], "the runs rise in a straight line"
    assert curve_ends(level)[0].change == pytest.approx(0.25 * curve_ends(level)[0].last, rel=0.3)


@pytest.mark.slow
def test_the_report_has_every_part(parts: list[StudyResult], tmp_path: Path) -> None:
    write_levels_report(parts, tmp_path, ["there is no plan"])
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    wanted = ("Level many: CE", "1 : 100 : 300", "1 : 1,000 : 3,000", "## Primary comparison", "report/imbalance_1.svg")
    for part in (*wanted, "Not flat", "## Level few", "report/few/points.svg", "at 0.5", "- there is no plan"):
        assert part in text, part
    assert "var(--" not in (tmp_path / "report" / "imbalance_2.svg").read_text(encoding="utf-8")
    assert (tmp_path / "report" / "imbalance.csv").read_text(encoding="utf-8").count("\n") == 5
    with (tmp_path / "report" / "primary.csv").open(encoding="utf-8", newline="") as file:
        few = next(row for row in csv.DictReader(file) if row["level"] == "few")
    assert float(few["low"]) < float(few["difference"]) < float(few["high"])
    assert f"| few | {signed_points(float(few['difference']))} " in text


def test_a_study_that_cannot_tell_what_it_asks_is_warned_of(study: Study) -> None:
    (before,) = plan_warnings(study)
    assert "there is no plan: 3 seeds and 1 primary comparison find only differences of 3.3 standard" in before
    found = forecast((PairedSpread(0.03, 0.0, 0.0), -0.02, 4), study, 0.02, "")
    write_plan(study.folder, [found._replace(cell_seconds=3.0)])
    assert read_plan(study.folder) == [found._replace(cell_seconds=3.0)]
    (after,) = plan_warnings(study)
    assert "3 seeds find differences of 9.8 AP with 80 % power; it asks for 2, for which" in after
    assert f"{found.needed} seeds are needed" in after
    write_plan(study.folder, [found._replace(spread=PairedSpread(0.001, 0.0, 0.0))])
    assert plan_warnings(study) == []
