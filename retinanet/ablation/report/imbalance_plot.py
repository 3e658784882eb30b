"""The figure of a study over levels of imbalance: AP minus that of the reference against positives : anchors."""

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes

from retinanet.ablation.report.levels import ArmDifference, LevelData
from retinanet.ablation.report.plots import arm_styles
from retinanet.display.figures import INK, as_text, legend_below, new_panel, save_figure, shortened, tidy

SIDE_STEP = 1.07
"""Factor between the places of neighbouring arms at one level, so that their intervals do not cover each other."""


def draw_imbalance(levels: Sequence[LevelData], differences: Sequence[ArmDifference], folder: Path) -> tuple[Path, ...]:
    """One panel for each threshold, one line for each arm, a simultaneous interval at each level."""
    result = levels[0].result
    names = [arm.info.name for arm in levels[0].main().arms]
    others = [name for name in names if name != result.reference]
    styles = arm_styles(names)
    thresholds = list(dict.fromkeys(one.threshold for one in differences)) or [None]
    ends = [100 * end for one in differences for end in (one.low, one.high) if not math.isnan(end)]
    paths = []
    for place, threshold in enumerate(thresholds, 1):
        figure, panel = new_panel(3.6 + 0.19 * -(-len(others) // 2))
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
        title = "" if threshold is None else f"score threshold {threshold:g}"
        _draw_axes(panel, levels, f"AP minus that of {shortened(result.reference)}", title)
        if ends:
            spare = 0.05 * (max(*ends, 0) - min(*ends, 0)) or 1
            panel.set_ylim(min(*ends, 0) - spare, max(*ends, 0) + spare)
        legend_below(figure, panel, 2)
        name = "imbalance" if len(thresholds) == 1 else f"imbalance_{place}"
        paths.append(save_figure(figure, folder / f"{name}.svg"))
    return tuple(paths)


def _draw_axes(panel: Axes, levels: Sequence[LevelData], label: str, title: str) -> None:
    panel.axhline(0, color=INK, linewidth=1)
    tidy(panel, "positive : all anchors", label, title)
    known = [level for level in levels if not math.isnan(level.imbalance.ratio())]
    if not known:
        return
    ratios = [level.imbalance.ratio() for level in known]
    panel.set_xscale("log")
    panel.set_xlim(min(ratios) / 2, max(ratios) * 2)
    names = [f"1 : {level.imbalance.ratio():,.0f}\n{as_text(level.result.level)}" for level in known]
    panel.set_xticks(ratios, names)
    panel.set_xticks([], minor=True)
