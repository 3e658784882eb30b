"""The figure of a study over levels of imbalance: AP minus that of the reference against positives : anchors."""

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from retinanet.ablation.report.levels import ArmDifference, LevelData
from retinanet.ablation.report.plots import arm_styles
from retinanet.display.figures import FONT, INK, as_text, legend_below, new_figure, save_figure, shortened, tidy

SIDE_STEP = 1.07
"""Factor between the places of neighbouring arms at one level, so that their intervals do not cover each other."""


def draw_imbalance(levels: Sequence[LevelData], differences: Sequence[ArmDifference], path: Path) -> Path:
    """One panel for each threshold, one line for each arm, a simultaneous interval at each level; returns the path."""
    result = levels[0].result
    names = [arm.info.name for arm in levels[0].main().arms]
    others = [name for name in names if name != result.reference]
    styles = arm_styles(names)
    thresholds = list(dict.fromkeys(one.threshold for one in differences)) or [None]
    figure = new_figure(9.0, 4.6 + 0.22 * (len(others) // 4))
    panels = figure.subplots(1, len(thresholds), sharey=True, squeeze=False).ravel()
    for place, (panel, threshold) in enumerate(zip(panels, thresholds)):
        for number, name in enumerate(others):
            own = [one for one in differences if (one.arm, one.threshold) == (name, threshold)]
            own = sorted((one for one in own if not math.isnan(one.ratio)), key=lambda one: one.ratio)
            step = SIDE_STEP ** (number - (len(others) - 1) / 2)
            x = [one.ratio * step for one in own]
            style = styles[name]
            panel.plot(x, [100 * one.difference for one in own], color=style.color, linestyle=style.dashes)
            panel.errorbar(
                x,
                [100 * one.difference for one in own],
                yerr=[100 * (one.high - one.difference) for one in own],
                color=style.color,
                marker=style.marker,
                markersize=6,
                linestyle="",
                capsize=3,
                label=as_text(name),
            )
        _draw_axes(panel, levels, "" if place else f"AP minus that of {shortened(result.reference)}")
        panel.set_title("" if threshold is None else f"score threshold {threshold:g}", fontsize=FONT)
    legend_below(figure, panels[0], 4)
    return save_figure(figure, path)


def _draw_axes(panel: Axes, levels: Sequence[LevelData], label: str) -> None:
    panel.axhline(0, color=INK, linewidth=1)
    tidy(panel, "positive : all anchors", label)
    known = [level for level in levels if not math.isnan(level.imbalance.ratio())]
    if not known:
        return
    ratios = [level.imbalance.ratio() for level in known]
    panel.set_xscale("log")
    panel.set_xlim(min(ratios) / 2, max(ratios) * 2)
    names = [f"1 : {level.imbalance.ratio():,.0f}\n{as_text(level.result.level)}" for level in known]
    panel.set_xticks(ratios, names)
    panel.set_xticks([], minor=True)
