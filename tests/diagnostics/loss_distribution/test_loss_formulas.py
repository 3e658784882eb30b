"""The losses as functions of the logit, compared with the paper's formulas."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retinanet.diagnostics.loss_distribution.formulas import (
    FIGURE_1_GAMMAS,
    draw_loss_formulas,
    easy_share,
    easy_share_map,
    loss_curve_rows,
    trace_loss,
    unweighted_focal,
    unweighted_focal_star,
)
from retinanet.losses.cross_entropy import cross_entropy

X_T = np.linspace(-6.0, 6.0, 25)
P_T = 1 / (1 + np.exp(-X_T))


def test_cross_entropy_is_the_papers() -> None:
    curve = trace_loss(cross_entropy, X_T)
    np.testing.assert_allclose(curve.loss, -np.log(P_T), rtol=1e-9)
    np.testing.assert_allclose(curve.slope, P_T - 1, rtol=1e-9)


@pytest.mark.parametrize("gamma", FIGURE_1_GAMMAS)
def test_focal_is_the_papers_without_alpha(gamma: float) -> None:
    curve = trace_loss(unweighted_focal(gamma), X_T)
    np.testing.assert_allclose(curve.loss, -((1 - P_T) ** gamma) * np.log(P_T), rtol=1e-9)
    slope = (1 - P_T) ** gamma * (gamma * P_T * np.log(P_T) + P_T - 1)
    np.testing.assert_allclose(curve.slope, slope, rtol=1e-9)


@pytest.mark.parametrize(("gamma", "beta"), [(2.0, 1.0), (4.0, 0.0)])
def test_focal_star_is_the_papers_without_alpha(gamma: float, beta: float) -> None:
    odds = np.exp(-(gamma * X_T + beta))  # log p* and 1 - p* without the rounding of 1 - 1
    curve = trace_loss(unweighted_focal_star(gamma, beta), X_T)
    np.testing.assert_allclose(curve.loss, np.log1p(odds) / gamma, rtol=1e-9)
    np.testing.assert_allclose(curve.slope, -odds / (1 + odds), rtol=1e-9)


def test_easy_examples_count_less_as_gamma_grows() -> None:
    shares = [easy_share(unweighted_focal(gamma)) for gamma in FIGURE_1_GAMMAS]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == pytest.approx(easy_share(cross_entropy))
    assert shares[0] == pytest.approx((1 - 1 / (1 + np.exp(-2))) / (1 - 1 / (1 + np.exp(2))))


def test_map_has_beta_in_rows_and_gamma_in_columns() -> None:
    found = easy_share_map(np.array([1.0, 3.0]), np.array([-1.0, 0.0, 1.0]))
    assert found.shape == (3, 2)
    assert found[2, 1] == easy_share(unweighted_focal_star(3.0, 1.0))


def test_rows_are_finite_and_name_every_loss() -> None:
    rows = loss_curve_rows()
    assert {row[0] for row in rows} >= {"CE", "FL γ=2", "FL* γ=2 β=1", "FL* γ=4 β=0"}
    assert np.isfinite([row[1:] for row in rows]).all()
    assert len({row[:2] for row in rows}) == len(rows)


@pytest.mark.slow
def test_figures_and_their_numbers_are_written(tmp_path: Path) -> None:
    paths = draw_loss_formulas(tmp_path / "new")
    assert sorted(path.name for path in paths) == sorted(path.name for path in (tmp_path / "new").iterdir())
    assert all(paths.values())
    figures = [path for path in paths if path.suffix == ".png"]
    assert len(figures) == 3
    for path in figures:
        with Image.open(path) as picture:
            assert picture.width > 700
            assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 100
    with (tmp_path / "new" / "loss_curves.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(loss_curve_rows())
    assert list(rows[0]) == ["loss", "x_t", "p_t", "value", "derivative"]
