"""The report's tables: results with the paper's, the status of every cell, learning rates tried, config differences.

AP is in points from 0 to 100, as the paper prints it.
"""

import math
from collections.abc import Sequence

from retinanet.ablation.cells import CellStatus
from retinanet.ablation.report.collect import CellResult
from retinanet.ablation.report.data import ArmData, ReportData
from retinanet.ablation.report.statistics import ArmVerdict, spread_over_seeds
from retinanet.display.document.blocks import Code, Table, TableRow
from retinanet.display.numbers import NOTHING, p_text, points, signed_points
from retinanet.scoring.matches import AP_NAMES

RESULT_HEADER = ("arm", "AP, mean ± sd", "verdict", "Δ AP [95 %, images]", "p (Holm)", "[95 %, seeds too]", "p (Holm)")
METRIC_HEADER = ("arm", "AP of every seed", *AP_NAMES[1:], "minutes")
LEARNED = 0.01
"""AP50 of its best seed, 0..1, below which an arm has learned nothing."""
NOTHING_LEARNED = "has learned nothing"


def has_learned(arm: ArmData) -> bool:
    """Whether a seed reaches LEARNED, or none is measured, or there is nothing to measure."""
    best = [float(cell.points_M[AP_NAMES.index("AP50")]) for cell in arm.measured]
    return not best or max(best) >= LEARNED or max(best) < 0


def results_table(data: ReportData) -> Table:
    """The study's comparison, with the paper's own row under each arm that has one."""
    rows: list[TableRow] = []
    for arm in data.arms:
        rows.append(TableRow(_result_cells(data, arm), _kind_of(data, arm)))
        if "AP" in arm.info.paper:
            rows.append(
                TableRow(("the paper's own", f"{arm.info.paper['AP']:.1f}", "not comparable", *[""] * 4), "paper")
            )
    return Table(f"AP on the test split, against {data.result.reference}", RESULT_HEADER, tuple(rows), (0, 2))


def metrics_of_arms_table(data: ReportData) -> Table:
    """Every seed's AP, the means of the other metrics and the training time, with the paper's own rows."""
    rows: list[TableRow] = []
    for arm in data.arms:
        others = (points(arm.mean(name)) for name in AP_NAMES[1:])
        cells = (arm.info.name, seeds_text(arm), *others, minutes_text(arm.cells))
        rows.append(TableRow(cells, _kind_of(data, arm)))
        if arm.info.paper:
            paper = [f"{arm.info.paper[name]:.1f}" if name in arm.info.paper else NOTHING for name in AP_NAMES[1:]]
            rows.append(TableRow(("the paper's own", "", *paper, ""), "paper"))
    return Table("Every seed, and the means of other metrics", METRIC_HEADER, tuple(rows), (0, 1))


def _kind_of(data: ReportData, arm: ArmData) -> str:
    complete = bool(arm.cells) and all(cell.record.status == CellStatus.DONE for cell in arm.cells)
    return "incomplete" if not complete else "reference" if arm.info.name == data.result.reference else ""


def _result_cells(data: ReportData, arm: ArmData) -> tuple[str, ...]:
    over_seeds = spread_over_seeds([float(cell.points_M[0]) for cell in arm.measured])
    mean = points(over_seeds.mean)
    if not math.isnan(over_seeds.deviation):
        mean += f" ± {points(over_seeds.deviation)}"
    verdict, *numbers = _comparison_cells(data, arm)
    return (arm.info.name, mean, verdict if has_learned(arm) else NOTHING_LEARNED, *numbers)


def seeds_text(arm: ArmData) -> str:
    """Every seed in the study's order: its AP, or its status."""
    known = {cell.record.seed: points(float(cell.points_M[0])) for cell in arm.finished()}
    texts = [known.get(cell.record.seed, cell.record.status) for cell in arm.cells]
    # No-break spaces: a line may end between seeds, not before the dot.
    return "\u00a0· ".join(texts) or NOTHING


def _comparison_cells(data: ReportData, arm: ArmData) -> tuple[str, str, str, str, str]:
    """Verdict; difference with interval and Holm's p over images; interval and Holm's p over seeds too."""
    if arm.info.name == data.result.reference:
        return ("reference", NOTHING, NOTHING, NOTHING, NOTHING)
    found = arm.comparison
    if found is None:
        return (ArmVerdict.NOT_MEASURED, NOTHING, NOTHING, NOTHING, NOTHING)
    interval = f"{signed_points(found.difference)} [{signed_points(found.low)}, {signed_points(found.high)}]"
    wider = f"[{signed_points(found.seeds_low)}, {signed_points(found.seeds_high)}]"
    return (found.verdict, interval, p_text(found.p_holm), wider, p_text(found.seeds_p_holm))


def minutes_text(cells: Sequence[CellResult]) -> str:
    """Mean training minutes of the finished seeds; a dash if there is none."""
    known = [cell.record.seconds / 60 for cell in cells if cell.record.status == CellStatus.DONE]
    if not known:
        return NOTHING
    mean = sum(known) / len(known)
    return f"{mean:.0f}" if mean >= 10 else f"{mean:.1f}"


def cells_table(data: ReportData) -> Table:
    """Every cell of the comparison: its learning rate, status, metrics, time and message."""
    rows = []
    for arm in data.arms:
        values = {cell.record.seed: points(float(cell.points_M[0])) for cell in arm.measured}
        for record in (cell.record for cell in arm.cells):
            texts = (
                arm.info.name,
                str(record.seed),
                f"{record.lr:g}" if record.lr else NOTHING,
                record.status,
                values.get(record.seed, NOTHING),
                points(record.val_metrics.get("AP", -1.0)),
                f"{record.seconds / 60:.1f}" if record.seconds else NOTHING,
                first_line(record.message),
            )
            rows.append(TableRow(texts, "" if record.status == CellStatus.DONE else "incomplete"))
    header = ("arm", "seed", "learning rate", "status", "AP test", "AP val", "minutes", "message")
    return Table("Every training", header, tuple(rows), (0, 3, 7))


def tuning_table(data: ReportData) -> Table | None:
    """The learning rates that each arm tried, with AP on val; None if none was searched."""
    if not any(cell.tuning for cell in data.result.cells):
        return None
    rows = []
    for arm in data.arms:
        tuned = [cell for cell in data.result.cells if cell.record.arm == arm.info.name and cell.tuning]
        seeds = {cell.record.seed for cell in tuned}
        tried = tuned + [cell for cell in arm.cells if cell.record.seed in seeds]
        for cell in sorted(tried, key=lambda cell: cell.record.lr):
            record = cell.record
            chosen = {other.record.lr for other in arm.cells}
            verdict = "selected" if record.lr and record.lr in chosen else ""
            val = points(record.val_metrics.get("AP", -1.0))
            texts = (arm.info.name, f"{record.lr:g}", str(record.seed), val, record.status, verdict)
            rows.append(TableRow(texts))
    header = ("arm", "learning rate", "seed", "AP val", "status", "")
    return Table("Learning rates tried", header, tuple(rows), (0, 4, 5))


def difference_blocks(data: ReportData) -> list[Table | Code]:
    """The settings of each arm on top of the base, one row per key, and the base itself."""
    rows = []
    for arm in data.arms:
        lines = arm.info.overrides_text or ("none: the base unchanged",)
        rows += [
            TableRow((arm.info.name if i == 0 else "", line, arm.info.note if i == 0 else ""))
            for i, line in enumerate(lines)
        ]
    table = Table("Settings of each arm on top of the base", ("arm", "setting", "note"), tuple(rows), (0, 1, 2))
    return [table, Code("The base config, resolved", data.result.base_text)]


def first_line(message: str, most: int = 160) -> str:
    """The first line of a message, cut to `most` characters."""
    line = next(iter(message.splitlines()), "")
    return line if len(line) <= most else line[: most - 1] + "…"
