"""The numbers behind each table and picture of a report, as CSV files."""

import hashlib
from pathlib import Path

from retinanet.ablation.report.data import ReportData, class_loss_curve, detections_path, evaluation_curve
from retinanet.ablation.report.plots import PR_IOUS, SCORE_BINS, score_counts
from retinanet.ablation.report.same_images import Grid
from retinanet.ablation.report.statistics import spread_over_seeds
from retinanet.files import CsvValue, write_csv
from retinanet.scoring.matches import AP_NAMES, RECALLS, precision_recall_curve


def write_study_numbers(data: ReportData, grid: Grid, folder: Path) -> None:
    """Write all CSV files into `folder`, which exists. Metrics are from 0 to 1, in full precision."""
    write_csv(folder / "results.csv", _RESULT_HEADER, _result_rows(data))
    write_csv(folder / "cells.csv", _CELL_HEADER, _cell_rows(data))
    curves = [
        (name, arm.info.name, cell.record.seed, float(step), float(value))
        for arm in data.arms
        for cell in arm.cells
        for name, curve in (("AP val, points", evaluation_curve(cell)), ("class loss", class_loss_curve(cell)))
        for step, value in zip(curve.steps, curve.values)
    ]
    write_csv(folder / "learning_curves.csv", ("curve", "arm", "seed", "step", "value"), curves)
    precision = [
        (arm.info.name, cell.record.seed, iou, float(recall), float(value))
        for arm in data.arms
        for cell in arm.finished()
        for iou in PR_IOUS
        for recall, value in zip(RECALLS, precision_recall_curve(cell.matches, iou))
    ]
    write_csv(folder / "precision_recall.csv", ("arm", "seed", "iou", "recall", "precision"), precision)
    write_csv(
        folder / "score_histograms.csv",
        ("arm", "from", "to", "true_positives_per_seed", "false_positives_per_seed"),
        [
            (arm.info.name, float(low), float(high), float(hits), float(misses))
            for arm in data.arms
            if arm.finished()
            for low, high, hits, misses in zip(SCORE_BINS[:-1], SCORE_BINS[1:], *score_counts(arm))
        ],
    )
    write_csv(
        folder / "same_images.csv", ("arm", "least_score", "image", "right", "wrong", "objects"), _grid_rows(grid)
    )
    write_csv(
        folder / "config_differences.csv",
        ("arm", "setting"),
        [(arm.info.name, line) for arm in data.arms for line in arm.info.overrides_text],
    )


_RESULT_HEADER = (
    "arm",
    "source",
    "seeds",
    *(f"{name}_{part}" for name in AP_NAMES for part in ("mean", "sd")),
    *("AP_low", "AP_high", "AP_difference", "difference_low", "difference_high", "p", "p_holm"),
    *("with_seeds_low", "with_seeds_high", "with_seeds_p_holm", "verdict", "seeds_agree"),
)

_CELL_HEADER = (
    "arm",
    "seed",
    "learning_rate",
    "status",
    "tuning",
    "seconds",
    *AP_NAMES,
    "AP_val",
    "message",
    "detections_sha256",
)


def _result_rows(data: ReportData) -> list[list[CsvValue]]:
    rows: list[list[CsvValue]] = []
    for arm in data.arms:
        spreads = [spread_over_seeds([float(cell.points_M[m]) for cell in arm.measured]) for m in range(len(AP_NAMES))]
        row: list[CsvValue] = [
            arm.info.name,
            "measured",
            len(arm.measured),
            *(part for pair in spreads for part in pair),
        ]
        row += arm.interval()
        found = arm.comparison
        if found is not None:
            row += [found.difference, found.low, found.high, found.p, found.p_holm]
            row += [found.seeds_low, found.seeds_high, found.seeds_p_holm, found.verdict, found.seeds_agree]
        rows.append(row)
        if arm.info.paper:
            own = [arm.info.paper.get(name, float("nan")) / 100 for name in AP_NAMES]
            rows.append([arm.info.name, "the paper's own", "", *(part for value in own for part in (value, ""))])
    return rows


def _cell_rows(data: ReportData) -> list[list[CsvValue]]:
    measured = {
        (cell.record.arm, cell.record.seed): cell.points_M.tolist() for arm in data.arms for cell in arm.measured
    }
    nothing = [float("nan")] * len(AP_NAMES)
    rows: list[list[CsvValue]] = []
    for cell in data.result.cells:
        record = cell.record
        metrics = nothing if cell.tuning else measured.get((record.arm, record.seed), nothing)
        tuning = "yes" if cell.tuning else "no"
        val = record.val_metrics.get("AP", float("nan"))
        row = [record.arm, record.seed, record.lr, record.status, tuning, record.seconds, *metrics, val, record.message]
        rows.append([*row, _digest(cell.folder / "detections.json" if cell.tuning else detections_path(cell))])
    return rows


def _digest(file: Path) -> str:
    """SHA-256 of a file, equal where the cell is trained again on the same kind of machine; empty without the file."""
    if not file.is_file():
        return ""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _grid_rows(grid: Grid) -> list[list[CsvValue]]:
    return [
        [row.arm, row.threshold, image.path.name, int(f.right_D.sum()), int((~f.right_D).sum()), f.objects]
        for row in grid.rows
        for image, f in zip(grid.images, row.found)
    ]
