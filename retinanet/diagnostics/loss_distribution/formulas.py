"""The class losses as functions of the logit: the paper's Figures 1, 5, 6 and 7, drawn with this project's losses.

Legend: x_t = y x with y in {-1, 1}, so that p_t = sigmoid(x_t); N points of a curve. All in float64.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retinanet.display.figures import COLORS, FONT, INK, MUTED, legend_below, new_figure, save_figure, tidy
from retinanet.files import make_folder, write_csv
from retinanet.losses.cross_entropy import cross_entropy
from retinanet.losses.focal import focal, focal_star

CSV_HEADER = ("loss", "x_t", "p_t", "value", "derivative")
FIGURE_1_GAMMAS = (0.0, 0.5, 1.0, 2.0, 5.0)
EASY_LOGIT = 2.0
"""x_t of the easy example of Figure 7: p_t = 0.88."""
HARD_LOGIT = -2.0
"""x_t of the hard example of Figure 7: p_t = 0.12."""

LogitLoss = Callable[[Tensor, Tensor], Tensor]
"""(logits (N, 1), labels (N,)) -> loss (N,)."""


class LogitCurve(NamedTuple):
    """A loss and its derivative along x_t, each (N,) float64."""

    x_t: NDArray[np.float64]
    loss: NDArray[np.float64]
    slope: NDArray[np.float64]


def draw_loss_formulas(folder: Path) -> dict[Path, str]:
    """Write the figures and loss_curves.csv into a folder; returns each file with a caption.

    Raises ResourceError if a file cannot be written.
    """
    make_folder(folder)
    table = folder / "loss_curves.csv"
    write_csv(table, CSV_HEADER, loss_curve_rows())
    return {
        draw_figure_1(folder / "loss_figure_1.png"): (
            "Focal loss for gamma from 0 (cross entropy) to 5, without alpha: the paper's Figure 1."
        ),
        draw_figures_5_and_6(folder / "loss_figures_5_6.png"): (
            "CE, FL and FL* and their derivatives by x_t = y x, without alpha: the paper's Figures 5 and 6."
        ),
        draw_figure_7(folder / "loss_figure_7.png"): (
            "After the paper's Figure 7, which colours settings of FL* by their AP after training. Here, without "
            "training: the gradient of an easy example relative to that of a hard one. White lines are the settings "
            "with the same ratio as focal loss; circles are the two settings of the paper's Table 3 with its AP."
        ),
        table: "The curves of Figures 1, 5 and 6: loss, x_t, p_t, value, derivative.",
    }


def trace_loss(loss: LogitLoss, x_t: NDArray[np.float64]) -> LogitCurve:
    """Value and derivative of a loss for an example of the class (y = 1, so x_t is the logit)."""
    logits = torch.tensor(x_t, dtype=torch.float64).requires_grad_()
    value = loss(logits[:, None], torch.zeros(len(x_t), dtype=torch.int64))
    (slope,) = torch.autograd.grad(value.sum(), logits)
    return LogitCurve(x_t=x_t, loss=value.detach().numpy(), slope=slope.numpy())


def unweighted_focal(gamma: float) -> LogitLoss:
    """FL without alpha: positives, which `trace_loss` uses, have weight alpha = 1."""
    return partial(focal, alpha=1.0, gamma=gamma)


def unweighted_focal_star(gamma: float, beta: float) -> LogitLoss:
    """FL* without alpha."""
    return partial(focal_star, alpha=1.0, gamma=gamma, beta=beta)


def figure_5_losses() -> dict[str, LogitLoss]:
    """The four losses that the paper's Figures 5 and 6 compare."""
    return {
        "CE": cross_entropy,
        "FL γ=2": unweighted_focal(2.0),
        "FL* γ=2 β=1": unweighted_focal_star(2.0, 1.0),
        "FL* γ=4 β=0": unweighted_focal_star(4.0, 0.0),
    }


def easy_share(loss: LogitLoss) -> float:
    """Magnitude of the gradient of an easy example (EASY_LOGIT) relative to that of a hard one (HARD_LOGIT)."""
    easy, hard = np.abs(trace_loss(loss, np.array([EASY_LOGIT, HARD_LOGIT])).slope)
    return float(easy / hard)


def easy_share_map(gammas: NDArray[np.float64], betas: NDArray[np.float64]) -> NDArray[np.float64]:
    """`easy_share` of FL* for every beta (rows) and gamma (columns)."""
    return np.array([[easy_share(unweighted_focal_star(float(g), float(b))) for g in gammas] for b in betas])


def draw_figure_1(path: Path) -> Path:
    """CE and FL over p_t, as the paper's Figure 1."""
    p_t = np.linspace(0.005, 0.999, 400)
    figure = new_figure(6.4, 4.4)
    axes = figure.subplots()
    axes.axvspan(0.6, 1.0, color="#000000", alpha=0.05, linewidth=0)
    axes.text(0.8, 0.62, "well classified", ha="center", fontsize=FONT - 1, color=MUTED, transform=axes.transAxes)
    for color, gamma in zip(COLORS, FIGURE_1_GAMMAS):
        curve = trace_loss(unweighted_focal(gamma), np.log(p_t / (1 - p_t)))
        label = f"γ = {gamma:g}" + (" (CE)" if gamma == 0 else "")
        axes.plot(p_t, curve.loss, color=color, linewidth=1.8, label=label)
    axes.set(xlim=(0, 1), ylim=(0, 5))
    axes.legend(fontsize=FONT - 1, frameon=False, loc="upper right")
    tidy(axes, "probability of the true class, $p_t$", "loss, nats", r"FL = $-(1 - p_t)^\gamma\,\log p_t$")
    return save_figure(figure, path)


def draw_figures_5_and_6(path: Path) -> Path:
    """CE, FL and FL* and their derivatives over x_t, as the paper's Figures 5 and 6."""
    x_t = np.linspace(-5.0, 10.0, 400)
    figure = new_figure(9.0, 4.2)
    left, right = figure.subplots(1, 2)
    for color, (name, loss) in zip(COLORS, figure_5_losses().items()):
        curve = trace_loss(loss, x_t)
        left.plot(x_t, curve.loss, color=color, linewidth=1.8, label=name)
        right.plot(x_t, curve.slope, color=color, linewidth=1.8)
    for axes in (left, right):
        axes.set_xlim(-5, 10)
        axes.axvline(0, color=MUTED, linewidth=0.8)
    left.set_ylim(0, 5.2)
    tidy(left, "$x_t = y\\,x$", "loss, nats", "loss (Figure 5)")
    tidy(right, "$x_t = y\\,x$", "d loss / d$x_t$", "derivative (Figure 6)")
    legend_below(figure, left)
    return save_figure(figure, path)


def draw_figure_7(path: Path) -> Path:
    """FL* for settings of gamma and beta: the curves, and the gradient that each leaves to easy examples.

    The paper colours settings by their AP after training; without training, the gradient of an easy example relative
    to a hard one can be computed. Lines mark the settings with the same ratio as FL.
    """
    figure = new_figure(9.0, 4.4)
    left, right = figure.subplots(1, 2)
    x_t = np.linspace(-5.0, 5.0, 300)
    settings = [(gamma, beta) for gamma in (1.0, 2.0, 3.0, 4.0) for beta in (-1.0, 0.0, 1.0, 2.0)]
    limit = easy_share(unweighted_focal(0.5))
    for gamma, beta in settings:
        loss = unweighted_focal_star(gamma, beta)
        curve = trace_loss(loss, x_t)
        strong = easy_share(loss) <= limit
        left.plot(x_t, curve.loss, color=COLORS[0] if strong else COLORS[4], linewidth=1, alpha=0.75)
    left.plot(x_t, trace_loss(cross_entropy, x_t).loss, color=INK, linewidth=1.6, linestyle="--", label="CE")
    left.plot([], [], color=COLORS[0], label="easy examples at most as strong as with FL γ=0.5")
    left.plot([], [], color=COLORS[4], label="stronger")
    left.set(xlim=(-5, 5), ylim=(0, 5))
    tidy(left, "$x_t = y\\,x$", "loss, nats", "FL* for γ = 1..4, β = −1..2")
    gammas, betas = np.linspace(0.5, 5.0, 28), np.linspace(-2.0, 3.0, 26)
    shares = easy_share_map(gammas, betas)
    shades = right.pcolormesh(gammas, betas, np.log10(shares), cmap="cividis", vmin=-6, vmax=0, rasterized=True)
    bar = figure.colorbar(shades, ax=right)
    bar.set_label("log10 of easy over hard gradient", fontsize=FONT - 1)
    marks = {easy_share(unweighted_focal(gamma)): f"FL γ={gamma:g}" for gamma in (0.5, 1.0, 2.0, 5.0)}
    lines = right.contour(
        gammas, betas, np.log10(shares), sorted(np.log10(list(marks))), colors="white", linewidths=1, linestyles="solid"
    )
    right.clabel(lines, fmt={float(np.log10(share)): name for share, name in marks.items()}, fontsize=FONT - 2)
    for gamma, beta, ap in ((2.0, 1.0, 33.8), (4.0, 0.0, 33.9)):
        right.plot(gamma, beta, "o", color="white", markeredgecolor="black")
        text = right.annotate(f"paper: AP {ap}", (gamma, beta), (0, 9), textcoords="offset points", ha="center")
        text.set(color="white", fontsize=FONT - 1.5)
        text.set_bbox({"facecolor": "black", "alpha": 0.45, "edgecolor": "none", "pad": 1.5})
    tidy(right, "γ", "β", f"gradient at $x_t$ = {EASY_LOGIT:g} over that at −{-HARD_LOGIT:g}")
    right.grid(visible=False)
    legend_below(figure, left, columns=3)
    return save_figure(figure, path)


def loss_curve_rows() -> list[tuple[str, float, float, float, float]]:
    """(loss, x_t, p_t, value, derivative) for the curves of Figures 1, 5 and 6."""
    x_t = np.linspace(-5.0, 10.0, 151)
    losses = {f"FL γ={gamma:g}": unweighted_focal(gamma) for gamma in FIGURE_1_GAMMAS} | figure_5_losses()
    rows = []
    for name, loss in losses.items():
        for x, value, slope in zip(*trace_loss(loss, x_t)):
            rows.append((name, float(x), float(1 / (1 + np.exp(-x))), float(value), float(slope)))
    return rows
