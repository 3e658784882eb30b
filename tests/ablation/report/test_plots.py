"""The report's plots, and the styles and curves that they are made of."""

from pathlib import Path

import numpy as np
import pytest
from study_on_disk import make_study

from retinanet.ablation.report.data import (
    ReportData,
    StepCurve,
    class_loss_curve,
    common_steps,
    detections_path,
    evaluation_curve,
    gather,
)
from retinanet.ablation.report.plots import (
    arm_styles,
    draw_learning_curves,
    draw_points,
    draw_score_histograms,
    draw_study_precision_recall,
    score_counts,
    styles_of,
)
from retinanet.display.figures import as_text, shortened
from retinanet.files import read_json

ARMS = {"focal": 0.9, "CE": 0.4, "_odd $\\frac": 0.7, "gone": 0.2}
STATUSES = {("CE", 1): "diverged", **{("gone", seed): "diverged" for seed in (0, 1, 2)}, ("_odd $\\frac", 2): "failed"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    return gather(make_study(tmp_path_factory.mktemp("plots"), ARMS, STATUSES), resamples=50)


def has_color(path: Path, color: str) -> bool:
    """Whether an SVG draws something in this colour."""
    return f"stroke: {color.lower()}" in path.read_text(encoding="utf-8")


def test_an_arm_keeps_its_style_when_others_are_added() -> None:
    names = [f"arm {n}" for n in range(12)]
    few, many = arm_styles(names[:3]), arm_styles(names)
    assert all(many[name] == few[name] for name in few)
    assert len({(style.color, style.dashes) for style in many.values()}) == 12


def test_a_name_is_no_mathematics_and_no_hidden_label() -> None:
    assert as_text("a$b$") == r"a\$b\$"
    assert not as_text("_x").startswith("_")
    assert shortened("x" * 50, 10) == "x" * 9 + "…"


@pytest.mark.parametrize("draw", [draw_points, draw_learning_curves, draw_study_precision_recall])
def test_every_finished_arm_is_in_the_picture_in_its_colour(data: ReportData, draw, tmp_path: Path) -> None:
    first, second = draw(data, tmp_path)
    for arm in data.arms:
        if arm.finished():
            color = styles_of(data)[arm.info.name].color
            assert has_color(first, color), arm.info.name
            assert has_color(second, color) or (draw is draw_points and arm is data.arms[0]), arm.info.name


def test_score_histograms_show_false_positives_and_every_arm(data: ReportData, tmp_path: Path) -> None:
    for arm, path in zip(data.arms, draw_score_histograms(data, tmp_path), strict=True):
        assert has_color(path, styles_of(data)[arm.info.name].color) == bool(arm.finished())


def test_score_counts_hold_every_detection_of_a_mean_seed(data: ReportData) -> None:
    focal = data.arms[0]
    hits, misses = score_counts(focal)
    # 64-pixel scenes have few detections, none of them beyond COCO's limit or on a crowd.
    written = np.mean([len(read_json(detections_path(cell))) for cell in focal.finished()])
    assert hits.sum() + misses.sum() == pytest.approx(written)
    assert hits.sum() > 0
    assert misses.sum() > 0


def test_curves_are_read_from_metrics(data: ReportData) -> None:
    done, diverged = data.arms[1].cells[0], data.arms[1].cells[1]
    assert evaluation_curve(done).steps.tolist() == [50, 100, 150, 200]
    assert evaluation_curve(diverged).steps.tolist() == [50, 100]
    assert 0 < evaluation_curve(done).values[-1] <= 100
    assert class_loss_curve(done).steps.tolist() == list(range(10, 201, 10))


def test_a_cell_that_never_started_has_empty_curves(data: ReportData, tmp_path: Path) -> None:
    absent = data.arms[0].cells[0]._replace(folder=tmp_path / "none")
    assert len(evaluation_curve(absent).steps) == len(class_loss_curve(absent).steps) == 0


def test_common_steps_are_those_of_all() -> None:
    first = StepCurve(np.array([1.0, 2.0, 4.0]), np.array([10.0, 20.0, 40.0]))
    second = StepCurve(np.array([2.0, 3.0, 4.0]), np.array([2.0, 3.0, 4.0]))
    steps, values = common_steps([first, second])
    assert steps.tolist() == [2, 4]
    assert values.tolist() == [[20, 40], [2, 4]]
    assert common_steps([])[0].size == 0
