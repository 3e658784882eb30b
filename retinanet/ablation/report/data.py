"""What a report shows, gathered from the cells' folders: matches, statistics, learning curves.

A seed that diverged has no model that could be evaluated: it counts as no detections, AP 0, in means, differences and
intervals (see `matches.match_detections`). A seed that failed or waits is in no number.

Legend: S seeds, R resamples, M metrics (AP_NAMES), N points of a curve.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.ablation.report.collect import ArmInfo, CellResult, StudyResult
from retinanet.ablation.report.statistics import ArmSamples, Comparison, compare_arms, spread
from retinanet.data.ground_truth import load_ground_truth
from retinanet.data.results import read_results
from retinanet.run.metrics import FILE_NAME, read_rows
from retinanet.scoring.bootstrap import resample
from retinanet.scoring.intervals import percentile_interval
from retinanet.scoring.matches import AP_NAMES, Matches, average_precisions, match_detections

RESAMPLES = 1000
SEED = 0
MAIN_METRIC = "AP"
DONE, DIVERGED = "done", "diverged"
AGREES = 1e-6
"""Largest difference between a recorded metric and the one recomputed from the detections, of 0 to 1."""
TRAINING_POINTS = 50
"""Training rows are averaged into at most so many points a curve."""

Floats = NDArray[np.float64]


class Curve(NamedTuple):
    """A number over training steps, each (N,)."""

    steps: Floats
    values: Floats


class MeasuredCell(NamedTuple):
    """A cell that finished, or diverged, with what its detections are worth."""

    result: CellResult
    matches: Matches
    points_M: Floats


class ArmData(NamedTuple):
    """One arm with everything known of it."""

    info: ArmInfo
    cells: tuple[CellResult, ...]
    """One a seed, whatever became of it; without the learning rates that were tried and left."""
    measured: tuple[MeasuredCell, ...]
    samples: ArmSamples | None
    """None without a measured cell."""
    comparison: Comparison | None
    """Against the reference in AP; None for the reference itself and where they share no measured seed."""

    def finished(self) -> list[MeasuredCell]:
        """Measured cells that trained to the end."""
        return [cell for cell in self.measured if cell.result.status == DONE]

    def interval(self, metric: str = MAIN_METRIC) -> tuple[float, float]:
        """95 % bootstrap interval of the arm's mean over seeds, 0 to 1; NaN without a measured cell."""
        if self.samples is None:
            return float("nan"), float("nan")
        resampled_SR = self.samples.resampled_SRM[:, :, AP_NAMES.index(metric)]
        return percentile_interval(np.where(resampled_SR < 0, np.nan, resampled_SR).mean(axis=0))

    def mean(self, metric: str = MAIN_METRIC) -> float:
        """Mean over measured seeds, 0 to 1, or NaN."""
        return spread([float(cell.points_M[AP_NAMES.index(metric)]) for cell in self.measured]).mean


class ReportData(NamedTuple):
    """What every table and picture is made from."""

    result: StudyResult
    ground_truth: dict[str, Any]
    arms: tuple[ArmData, ...]
    remarks: tuple[str, ...]
    """What a reader must know of the numbers, beside the study's own guards."""


def gather(result: StudyResult, resamples: int = RESAMPLES) -> ReportData:
    """Match every finished cell, resample all on the same draws, and compare with the reference.

    Raises DataError for annotations or detections that cannot be used, naming the file.
    """
    ground_truth = load_ground_truth(result.test_annotations)
    measured = [
        _measure(cell, ground_truth) for cell in result.cells if not cell.tuning and cell.status in (DONE, DIVERGED)
    ]
    resampled_CRM = resample([cell.matches for cell in measured], resamples, SEED)
    samples = [
        _samples(info.name, measured, resampled_CRM)
        for info in result.arms
        if any(cell.result.arm == info.name for cell in measured)
    ]
    compared = _compare(samples, result.reference)
    arms = tuple(
        ArmData(
            info,
            tuple(cell for cell in result.cells if cell.arm == info.name and not cell.tuning),
            tuple(cell for cell in measured if cell.result.arm == info.name),
            next((sample for sample in samples if sample.name == info.name), None),
            compared.get(info.name),
        )
        for info in result.arms
    )
    return ReportData(result, ground_truth, arms, tuple(_remarks(result, arms, len(ground_truth["images"]), resamples)))


def _measure(cell: CellResult, ground_truth: dict[str, Any]) -> MeasuredCell:
    results = None
    if cell.status == DONE:
        results = read_results(detections_path(cell), ground_truth)
    matches = match_detections(ground_truth, results)
    points = average_precisions(matches)
    return MeasuredCell(cell, matches, np.array([points[name] for name in AP_NAMES]))


def detections_path(cell: CellResult) -> Path:
    """COCO results of a finished cell on the test split."""
    return cell.folder / "test" / "detections.json"


def _samples(arm: str, measured: list[MeasuredCell], resampled_CRM: Floats) -> ArmSamples:
    rows = [index for index, cell in enumerate(measured) if cell.result.arm == arm]
    seeds = tuple(measured[index].result.seed for index in rows)
    return ArmSamples(arm, seeds, np.stack([measured[index].points_M for index in rows]), resampled_CRM[rows])


def _compare(samples: list[ArmSamples], reference: str) -> dict[str, Comparison]:
    """Arm -> comparison in AP, of arms that share a measured seed with the reference."""
    base = next((sample for sample in samples if sample.name == reference), None)
    if base is None:
        return {}
    comparable = [sample for sample in samples if set(sample.seeds) & set(base.seeds)]
    return {found.arm: found for found in compare_arms(comparable, reference, MAIN_METRIC)}


_WHAT_BECAME = {
    DIVERGED: "diverged, which counts as AP 0",
    "failed": "failed and is in no number",
    "waiting": "not finished, so in no number",
}


def _remarks(result: StudyResult, arms: tuple[ArmData, ...], images: int, resamples: int) -> list[str]:
    remarks = []
    for arm in arms:
        for status, text in _WHAT_BECAME.items():
            seeds = [str(cell.seed) for cell in arm.cells if cell.status == status]
            if seeds:
                remarks.append(f"arm {arm.info.name}: {text} (seed {', '.join(seeds)})")
        for cell in arm.finished():
            recorded = cell.result.test_metrics.get(MAIN_METRIC)
            if recorded is not None and abs(recorded - cell.points_M[0]) > AGREES:
                remarks.append(
                    f"arm {arm.info.name}, seed {cell.result.seed}: AP was recorded as {100 * recorded:.2f}, but its "
                    f"detections give {100 * cell.points_M[0]:.2f}, which is shown; were files exchanged?"
                )
    unequal = {arm.info.name: len(arm.measured) for arm in arms}
    if len(set(unequal.values())) > 1:
        counts = "; ".join(f"{name}: {count}" for name, count in unequal.items())
        remarks.append(
            f"arms have different numbers of measured seeds ({counts}); differences are over the seeds both arms have"
        )
    if not any(arm.info.name == result.reference and arm.measured for arm in arms):
        remarks.append(f"the reference {result.reference} has no measured seed yet, so nothing is compared with it")
    if images < 50:
        remarks.append(f"the test split has only {images} images: intervals from so few are rough")
    return remarks


def evaluation_curve(cell: CellResult) -> Curve:
    """AP on the validation split over steps, in points from 0 to 100; empty where nothing was evaluated."""
    rows = [row for row in _rows(cell) if row["kind"] == "eval" and row.get("AP", -1) >= 0]
    return Curve(np.array([row["step"] for row in rows], float), np.array([100 * row["AP"] for row in rows], float))


def class_loss_curve(cell: CellResult) -> Curve:
    """The training class loss over steps, averaged within equal stretches of steps; empty where nothing was logged."""
    rows = [row for row in _rows(cell) if row["kind"] == "train" and "loss_class" in row]
    steps = np.array([row["step"] for row in rows], float)
    values = np.array([row["loss_class"] for row in rows], float)
    size = -(-len(rows) // TRAINING_POINTS) or 1
    starts = np.arange(0, len(rows), size)
    return Curve(
        np.array([steps[start : start + size].mean() for start in starts]),
        np.array([values[start : start + size].mean() for start in starts]),
    )


def _rows(cell: CellResult) -> list[dict[str, Any]]:
    path = cell.folder / FILE_NAME
    return read_rows(path) if path.exists() else []


def common_steps(curves: list[Curve]) -> tuple[Floats, Floats]:
    """(N,) steps that all curves have, and (curves, N) their values there."""
    if not curves:
        return np.zeros(0), np.zeros((0, 0))
    steps = curves[0].steps
    for curve in curves[1:]:
        steps = np.intersect1d(steps, curve.steps)
    return steps, np.stack([curve.values[np.searchsorted(curve.steps, steps)] for curve in curves])
