"""The numbers of a report, gathered from the cells' folders: matches, statistics, learning curves.

A seed that diverged has no model that could be evaluated: it counts as no detections, AP 0, in means, differences and
intervals (see `matches.match_detections`). A seed that failed or has not finished enters no number.

Legend: S seeds, R resamples, M metrics (AP_NAMES), N points of a curve.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.ablation.cells import CellRecord, CellStatus
from retinanet.ablation.report.collect import ArmInfo, CellResult, StudyResult
from retinanet.ablation.report.statistics import ArmComparison, ArmSamples, compare_arms, spread_over_seeds
from retinanet.data.ground_truth import load_ground_truth
from retinanet.data.results import read_results
from retinanet.display.numbers import points
from retinanet.run.metric_rows import FILE_NAME, read_rows
from retinanet.scoring.bootstrap import resample
from retinanet.scoring.evaluation import above_score
from retinanet.scoring.intervals import percentile_interval
from retinanet.scoring.matches import AP_NAMES, Matches, average_precisions, match_detections

RESAMPLES = 1000
SEED = 0
MAIN_METRIC = "AP"
AGREES = 1e-6
"""Largest difference between a recorded metric and the one recomputed from the detections, of 0 to 1."""
TRAINING_POINTS = 50
"""Maximum number of points of a curve; training rows are averaged into them."""

Floats = NDArray[np.float64]


class StepCurve(NamedTuple):
    """A number over training steps, each (N,)."""

    steps: Floats
    values: Floats


class MeasuredCell(NamedTuple):
    """A cell that finished or diverged, with the evaluation of its detections."""

    record: CellRecord
    folder: Path
    """The run folder."""
    matches: Matches
    points_M: Floats
    """(M,) 0..1; -1 where the ground truth has nothing to measure."""


class ArmData(NamedTuple):
    """One arm with its cells and statistics."""

    info: ArmInfo
    cells: tuple[CellResult, ...]
    """One per seed, whatever its status; without the learning rates that were tried and not selected."""
    measured: tuple[MeasuredCell, ...]
    samples: ArmSamples | None
    """None without a measured cell."""
    comparison: ArmComparison | None
    """With the reference in AP; None for the reference itself and if they share no measured seed."""

    def finished(self) -> list[MeasuredCell]:
        """Measured cells that trained to the end."""
        return [cell for cell in self.measured if cell.record.status == CellStatus.DONE]

    def interval(self, metric: str = MAIN_METRIC) -> tuple[float, float]:
        """95 % bootstrap interval of the arm's mean over seeds, 0 to 1; NaN without a measured cell."""
        if self.samples is None:
            return float("nan"), float("nan")
        resampled_SR = self.samples.resampled_SRM[:, :, AP_NAMES.index(metric)]
        return percentile_interval(np.where(resampled_SR < 0, np.nan, resampled_SR).mean(axis=0))

    def mean(self, metric: str = MAIN_METRIC) -> float:
        """Mean over measured seeds, 0 to 1; NaN without a measured cell."""
        return spread_over_seeds([float(cell.points_M[AP_NAMES.index(metric)]) for cell in self.measured]).mean


class ReportData(NamedTuple):
    """The input of every table and picture."""

    result: StudyResult
    ground_truth: dict[str, Any]
    arms: tuple[ArmData, ...]
    remarks: tuple[str, ...]
    """Warnings about the numbers, in addition to the study's own guards."""
    threshold: float | None = None
    """Score above which detections count; None: that of the detector."""


def gather(result: StudyResult, resamples: int = RESAMPLES, threshold: float | None = None) -> ReportData:
    """Match every finished cell, resample all with the same draws, and compare with the reference.

    threshold: only detections with a higher score count; None: all that the detector returned.
    Raises DataError for annotations or detections that cannot be used, naming the file.
    """
    ground_truth = load_ground_truth(result.test_annotations)
    counted = (CellStatus.DONE, CellStatus.DIVERGED)
    cells = [cell for cell in result.cells if not cell.tuning]
    finished = [cell for cell in cells if cell.record.status in counted]
    measured = [_measure(cell, ground_truth, result.max_detections, threshold) for cell in finished]
    resampled_CRM = resample([cell.matches for cell in measured], resamples, SEED)
    samples = {
        info.name: _samples(info.name, measured, resampled_CRM)
        for info in result.arms
        if any(cell.record.arm == info.name for cell in measured)
    }
    compared = _compare(list(samples.values()), result.reference)
    arms = tuple(
        ArmData(
            info=info,
            cells=tuple(cell for cell in cells if cell.record.arm == info.name),
            measured=tuple(cell for cell in measured if cell.record.arm == info.name),
            samples=samples.get(info.name),
            comparison=compared.get(info.name),
        )
        for info in result.arms
    )
    return ReportData(
        result=result,
        ground_truth=ground_truth,
        arms=arms,
        remarks=tuple(_remarks(result, arms, len(ground_truth["images"]), threshold)),
        threshold=threshold,
    )


def _measure(
    cell: CellResult, ground_truth: dict[str, Any], max_detections: int, threshold: float | None
) -> MeasuredCell:
    done = cell.record.status == CellStatus.DONE
    results = read_results(detections_path(cell), ground_truth) if done else None
    if results is not None and threshold is not None:
        results = above_score(results, threshold)
    matches = match_detections(ground_truth, results, max_detections)
    metrics = average_precisions(matches)
    return MeasuredCell(
        record=cell.record,
        folder=cell.folder,
        matches=matches,
        points_M=np.array([metrics[name] for name in AP_NAMES]),
    )


def detections_path(cell: CellResult | MeasuredCell) -> Path:
    """COCO results of a finished cell on the test split."""
    return cell.folder / "test" / "detections.json"


def _samples(arm: str, measured: list[MeasuredCell], resampled_CRM: Floats) -> ArmSamples:
    rows = [index for index, cell in enumerate(measured) if cell.record.arm == arm]
    return ArmSamples(
        name=arm,
        seeds=tuple(measured[index].record.seed for index in rows),
        points_SM=np.stack([measured[index].points_M for index in rows]),
        resampled_SRM=resampled_CRM[rows],
    )


def _compare(samples: list[ArmSamples], reference: str) -> dict[str, ArmComparison]:
    """Arm -> comparison in AP, of arms that share a measured seed with the reference."""
    base = next((sample for sample in samples if sample.name == reference), None)
    if base is None:
        return {}
    comparable = [sample for sample in samples if set(sample.seeds) & set(base.seeds)]
    return {compared.arm: compared for compared in compare_arms(comparable, reference, MAIN_METRIC)}


_REMARKS = {
    CellStatus.DIVERGED: "diverged, which counts as AP 0",
    CellStatus.FAILED: "failed, which enters no number",
    CellStatus.WAITING: "not finished, which enters no number",
}


def _unmeasured(arms: tuple[ArmData, ...]) -> list[str]:
    """Which seeds have no measured result and why; arms that lack the same seeds share a line."""
    lines = list[str]()
    for status, text in _REMARKS.items():
        by_seeds: dict[str, list[str]] = {}
        for arm in arms:
            seeds = ", ".join(str(cell.record.seed) for cell in arm.cells if cell.record.status == status)
            if seeds:
                by_seeds.setdefault(seeds, []).append(arm.info.name)
        for seeds, names in by_seeds.items():
            who = f"arm {names[0]}" if len(names) == 1 else f"arms {', '.join(names)}"
            lines.append(f"{who}: {text} (seed {seeds})")
    return lines


def _remarks(result: StudyResult, arms: tuple[ArmData, ...], images: int, threshold: float | None) -> list[str]:
    remarks = _unmeasured(arms)
    for arm in arms:
        for cell in arm.finished():
            known = cell.record.test_metrics_at.get(str(threshold), cell.record.test_metrics)
            recorded = known.get(MAIN_METRIC)
            if recorded is not None and abs(recorded - cell.points_M[0]) > AGREES:
                remarks.append(
                    f"arm {arm.info.name}, seed {cell.record.seed}: AP was recorded as {points(recorded, 2)}, but its "
                    f"detections give {points(float(cell.points_M[0]), 2)}, which is shown; were files exchanged?"
                )
    unequal = {arm.info.name: len(arm.measured) for arm in arms}
    if len(set(unequal.values())) > 1:
        counts = "; ".join(f"{name}: {count}" for name, count in unequal.items())
        remarks.append(
            f"arms have different numbers of measured seeds ({counts}); differences use the seeds that both arms have"
        )
    if not any(arm.info.name == result.reference and arm.measured for arm in arms):
        remarks.append(f"the reference {result.reference} has no measured seed yet, so nothing is compared with it")
    if images < 50:
        remarks.append(f"the test split has only {images} images: intervals from so few images are rough")
    return remarks


def evaluation_curve(cell: CellResult) -> StepCurve:
    """AP on the validation split over steps, in points from 0 to 100; empty if nothing was evaluated."""
    rows = [row for row in _rows(cell) if row["kind"] == "eval" and row.get("AP", -1) >= 0]
    return StepCurve(np.array([row["step"] for row in rows], float), np.array([100 * row["AP"] for row in rows], float))


def class_loss_curve(cell: CellResult) -> StepCurve:
    """The training class loss over steps, averaged over equal ranges of steps; empty if nothing was logged."""
    rows = [row for row in _rows(cell) if row["kind"] == "train" and "loss_class" in row]
    steps = np.array([row["step"] for row in rows], float)
    values = np.array([row["loss_class"] for row in rows], float)
    size = -(-len(rows) // TRAINING_POINTS) or 1
    starts = np.arange(0, len(rows), size)
    return StepCurve(
        np.array([steps[start : start + size].mean() for start in starts]),
        np.array([values[start : start + size].mean() for start in starts]),
    )


def _rows(cell: CellResult) -> list[dict[str, Any]]:
    path = cell.folder / FILE_NAME
    return read_rows(path) if path.exists() else []


def common_steps(curves: list[StepCurve]) -> tuple[Floats, Floats]:
    """(N,) steps that all curves have, and (curves, N) the values at these."""
    if not curves:
        return np.zeros(0), np.zeros((0, 0))
    steps = curves[0].steps
    for curve in curves[1:]:
        steps = np.intersect1d(steps, curve.steps)
    return steps, np.stack([curve.values[np.searchsorted(curve.steps, steps)] for curve in curves])
