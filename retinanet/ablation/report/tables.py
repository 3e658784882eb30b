"""The report's tables: results beside the paper's, what became of every cell, learning rates tried, config differences.

AP is in points from 0 to 100, as the paper prints it.
"""

import math
from collections.abc import Sequence

from retinanet.ablation.report.collect import CellResult
from retinanet.ablation.report.data import DIVERGED, DONE, ArmData, ReportData
from retinanet.ablation.report.statistics import NOT_MEASURED, spread
from retinanet.display.document.blocks import Code, Table, TableRow
from retinanet.scoring.matches import AP_NAMES

NOTHING = "–"
RESULT_HEADER = (
    "arm", "AP, mean ± sd", "every seed", "AP50", "AP75", "APs", "APm", "APl",
    "Δ AP [95 % interval]", "p", "p (Holm)", "with other seeds too: interval, p (Holm)", "verdict", "minutes",
)  # fmt: skip


def points(value: float) -> str:
    """A metric from 0 to 1 as points with one decimal; a dash for NaN or pycocotools' -1."""
    return NOTHING if math.isnan(value) or value < 0 else f"{100 * value:.1f}"


def signed_points(value: float) -> str:
    """A difference of metrics as points with its sign."""
    return NOTHING if math.isnan(value) else f"{100 * value:+.1f}".replace("-", "−")


def p_text(p: float) -> str:
    """A p-value to three decimals; what is less is said to be less."""
    if math.isnan(p):
        return NOTHING
    return "<0.001" if p < 0.0005 else f"{p:.3f}"


def results_table(data: ReportData) -> Table:
    """The study's table, with the paper's own row under each arm that has one."""
    rows: list[TableRow] = []
    for arm in data.arms:
        complete = bool(arm.cells) and all(cell.status == DONE for cell in arm.cells)
        kind = "reference" if arm.info.name == data.result.reference else ""
        rows.append(TableRow(_result_cells(data, arm), kind if complete else "incomplete"))
        if arm.info.paper:
            rows.append(TableRow(_paper_cells(arm), "paper"))
    return Table(f"AP on the test split, against {data.result.reference}", RESULT_HEADER, tuple(rows), (0, 2, 12))


def _result_cells(data: ReportData, arm: ArmData) -> tuple[str, ...]:
    aps = [float(cell.points_M[0]) for cell in arm.measured]
    over_seeds = spread(aps)
    mean = points(over_seeds.mean)
    if not math.isnan(over_seeds.deviation):
        mean += f" ± {100 * over_seeds.deviation:.1f}"
    others = tuple(points(arm.mean(name)) for name in AP_NAMES[1:])
    return (arm.info.name, mean, seeds_text(arm), *others, *_comparison_cells(data, arm), minutes_text(arm.cells))


def seeds_text(arm: ArmData) -> str:
    """Every seed in the study's order: its AP, or what became of it."""
    known = {cell.result.seed: cell for cell in arm.measured if cell.result.status == DONE}
    texts = [points(float(known[c.seed].points_M[0])) if c.seed in known else c.status for c in arm.cells]
    # No-break spaces: a line ends between seeds, not before the dot.
    return "\u00a0· ".join(texts) or NOTHING


def _comparison_cells(data: ReportData, arm: ArmData) -> tuple[str, str, str, str, str]:
    """Difference with interval, p and Holm's p over images; interval and Holm's p over seeds too; verdict."""
    if arm.info.name == data.result.reference:
        return (NOTHING, NOTHING, NOTHING, NOTHING, "reference")
    found = arm.comparison
    if found is None:
        return (NOTHING, NOTHING, NOTHING, NOTHING, NOT_MEASURED)
    interval = f"{signed_points(found.difference)} [{signed_points(found.low)}, {signed_points(found.high)}]"
    wider = f"[{signed_points(found.seeds_low)}, {signed_points(found.seeds_high)}], {p_text(found.seeds_p_holm)}"
    return (interval, p_text(found.p), p_text(found.p_holm), wider, found.verdict)


def minutes_text(cells: Sequence[CellResult]) -> str:
    """Mean training minutes of the seeds that finished; a dash without any."""
    known = [cell.seconds / 60 for cell in cells if cell.status == DONE]
    if not known:
        return NOTHING
    mean = sum(known) / len(known)
    return f"{mean:.0f}" if mean >= 10 else f"{mean:.1f}"


def _paper_cells(arm: ArmData) -> tuple[str, ...]:
    paper = arm.info.paper
    numbers = [f"{paper[name]:.1f}" if name in paper else NOTHING for name in AP_NAMES]
    blank = ("", "", "", "", "not comparable", "")
    return ("the paper's own", numbers[0], "", *numbers[1:], *blank)


def cells_table(data: ReportData) -> Table:
    """Every cell of the comparison: its learning rate, what became of it, its numbers, time and message."""
    rows = []
    for arm in data.arms:
        values = {cell.result.seed: float(cell.points_M[0]) for cell in arm.measured}
        for cell in arm.cells:
            ap = points(values[cell.seed]) if cell.status in (DONE, DIVERGED) else NOTHING
            val = points(cell.val_metrics.get("AP", -1.0))
            lr = f"{cell.lr:g}" if cell.lr else NOTHING
            minutes = f"{cell.seconds / 60:.1f}" if cell.seconds else NOTHING
            cells = (arm.info.name, str(cell.seed), lr, cell.status, ap, val, minutes, first_line(cell.message))
            rows.append(TableRow(cells, "" if cell.status == DONE else "incomplete"))
    header = ("arm", "seed", "learning rate", "status", "AP test", "AP val", "minutes", "message")
    return Table("Every training", header, tuple(rows), (0, 3, 7))


def tuning_table(data: ReportData) -> Table | None:
    """The learning rates that each arm tried, by AP on val; None where none was searched."""
    if not any(cell.tuning for cell in data.result.cells):
        return None
    rows = []
    for arm in data.arms:
        chosen = {cell.lr for cell in arm.cells if cell.lr}
        tuned = [cell for cell in data.result.cells if cell.arm == arm.info.name and cell.tuning]
        seeds = {cell.seed for cell in tuned}
        tried = tuned + [cell for cell in arm.cells if cell.seed in seeds]
        for cell in sorted(tried, key=lambda cell: cell.lr):
            verdict = "chosen" if not cell.tuning and cell.lr in chosen else ""
            val = points(cell.val_metrics.get("AP", -1.0))
            rows.append(TableRow((arm.info.name, f"{cell.lr:g}", str(cell.seed), val, cell.status, verdict)))
    header = ("arm", "learning rate", "seed", "AP val", "status", "")
    return Table("Learning rates tried", header, tuple(rows), (0, 4, 5))


def difference_blocks(data: ReportData) -> list[Table | Code]:
    """What each arm sets on top of the base, one row a key, and the base itself."""
    rows = []
    for arm in data.arms:
        lines = arm.info.overrides_text or ("nothing: the base as it is",)
        rows += [
            TableRow((arm.info.name if i == 0 else "", line, arm.info.note if i == 0 else ""))
            for i, line in enumerate(lines)
        ]
    table = Table("What each arm sets on top of the base", ("arm", "setting", "note"), tuple(rows), (0, 1, 2))
    return [table, Code("The base config, resolved", data.result.base_text)]


def first_line(message: str, most: int = 160) -> str:
    """The first line of a message, cut to so many characters."""
    line = next(iter(message.splitlines()), "")
    return line if len(line) <= most else line[: most - 1] + "…"
