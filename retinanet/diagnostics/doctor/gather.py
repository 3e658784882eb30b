"""Reading a run's folder, and its data and detector where they are found, into `Evidence`."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.config.auto import resolve_auto
from retinanet.config.fields import known
from retinanet.config.load import load_config
from retinanet.config.schema import Config
from retinanet.data.categories import aligned
from retinanet.data.coco import CocoDataset, with_objects
from retinanet.data.results import read_results
from retinanet.diagnostics.doctor.diagnose import Part
from retinanet.diagnostics.doctor.facts import (
    AnchorFacts,
    Evidence,
    FoundFacts,
    TrialFacts,
    anchor_facts,
    found_facts,
    split_facts,
    unreadable_detections,
)
from retinanet.diagnostics.doctor.trial import draw_samples, try_detector
from retinanet.display.progress import image_progress
from retinanet.errors import ConfigError, DataError, UserError
from retinanet.evaluation.splits import load_split
from retinanet.run.checkpoint import Checkpoint, load_checkpoint
from retinanet.run.folder import RunFolder
from retinanet.run.metric_rows import read_rows
from retinanet.scoring.eval_file import read_eval_file
from retinanet.training.balance import count_epoch
from retinanet.training.causes import RunEvidence, run_evidence
from retinanet.training.optim import build_plan

Rows = list[dict[str, Any]]


class Gathered(NamedTuple):
    """Evidence, and why parts of it are missing."""

    evidence: Evidence
    weights: Path
    """The checkpoint that was tried."""
    reasons: dict[Part, str]


class Data(NamedTuple):
    """Both splits, as the training used them."""

    train: CocoDataset
    val: CocoDataset


def run_folder(path: Path) -> RunFolder:
    """The run that a folder, or a file in it or its checkpoints/, belongs to. ConfigError where there is none."""
    for folder in (path, path.parent, path.parent.parent):
        if (folder / "config.yaml").is_file() and (folder == path or path.is_file()):
            return RunFolder(folder)
    if not path.exists():
        raise ConfigError(f"{path}: no such folder; give a run's folder, such as runs/NAME.")
    checkpoints = sorted(path.glob("checkpoints/*.pt"))
    if checkpoints:
        remedy = f"its checkpoints hold it: retinanet config show {checkpoints[0]} > {path / 'config.yaml'}"
        raise ConfigError(f"{path}: has no config.yaml; {remedy}")
    raise ConfigError(f"{path}: holds no run (no config.yaml); give a folder that `retinanet train` has written.")


def gather_evidence(folder: RunFolder, overrides: list[str], images: int) -> Gathered:
    """Everything that can be read of a run. overrides: keys for its config, such as data.root=PATH.

    images: how many of each split to detect on; 0 none. Raises ConfigError for a config that cannot be used.
    """
    config = load_config(folder.config, overrides)
    reasons: dict[Part, str] = {}
    rows, data = _rows(folder, reasons), _data(config, reasons)
    config = resolve_auto(config, training_images(config, rows, data))
    run = _run(config, rows, data, folder)
    weights = weights_to_try(folder, run)
    checkpoint = _checkpoint(weights, reasons)
    anchors: AnchorFacts | None = None
    found: FoundFacts | None = None
    trial: TrialFacts | None = None
    if data is not None:
        anchors = anchor_facts(config, data.train)
        found = _found(folder, data.val, reasons)
        trial = _trial(folder, config, checkpoint, data, images, reasons)
    else:
        reasons["detections"] = reasons["detector"] = reasons["data"]
    evidence = Evidence(
        run=run,
        known=checkpoint.categories if checkpoint is not None else None,
        train=split_facts(data.train) if data is not None else None,
        val=split_facts(data.val) if data is not None else None,
        anchors=anchors,
        found=found,
        trial=trial,
    )
    return Gathered(evidence, weights, reasons)


def training_images(config: Config, rows: Sequence[dict[str, Any]], data: Data | None) -> int:
    """Images of an epoch: of the data or, without them, by the epochs in the metrics; at least 1."""
    if data is not None:
        return count_epoch(config, data.train)
    last = next((row for row in reversed(rows) if row["kind"] == "train" and row.get("epoch")), None)
    if last is None or config.schedule.batch_size == "auto":
        return 1
    return max(1, round(int(last["step"]) * known(config.schedule.batch_size) / float(last["epoch"])))


def _run(config: Config, rows: Rows, data: Data | None, folder: RunFolder) -> RunEvidence:
    plan = build_plan(config.schedule, training_images(config, rows, data))
    evidence = run_evidence(config, plan, rows)
    if evidence.best_ap is None and folder.eval.is_file():
        return evidence._replace(best_ap=float(read_eval_file(folder.eval)["metrics"]["AP"]))
    return evidence


def _rows(folder: RunFolder, reasons: dict[Part, str]) -> Rows:
    if not folder.metrics.is_file():
        reasons["metrics"] = f"no file {folder.metrics}"
        return []
    rows = read_rows(folder.metrics)
    if not any(row["kind"] == "train" for row in rows):
        reasons["metrics"] = f"{folder.metrics} has no training rows: the run ended before its first step was logged"
    return rows


def _data(config: Config, reasons: dict[Part, str]) -> Data | None:
    try:
        train, val = (load_split(config.data, split, "none") for split in ("train", "val"))
    except DataError as error:
        reasons["data"] = str(error)
        return None
    with suppress(DataError):  # of categories that differ, which is a cause of its own
        val = aligned(val, train.categories, "")
    return Data(train if config.data.empty_images else with_objects(train), val)


def weights_to_try(folder: RunFolder, run: RunEvidence) -> Path:
    """best.pt, or last.pt where no evaluation was above 0: then best.pt is only the first that was evaluated."""
    without_best = not folder.best.is_file() or run.best_ap is None or run.best_ap <= 0
    return folder.last if without_best and folder.last.is_file() else folder.best


def _checkpoint(file: Path, reasons: dict[Part, str]) -> Checkpoint | None:
    try:
        return load_checkpoint(file)
    except UserError as error:
        reasons["detector"] = str(error)
        return None


def _found(folder: RunFolder, val: CocoDataset, reasons: dict[Part, str]) -> FoundFacts | None:
    if not folder.detections.is_file():
        reasons["detections"] = f"no file {folder.detections}"
        return None
    try:
        results = read_results(folder.detections, val.ground_truth)
    except DataError as error:
        return unreadable_detections(" ".join(str(error).split()))
    return found_facts(results, val.ground_truth)


def _trial(
    folder: RunFolder, config: Config, checkpoint: Checkpoint | None, data: Data, images: int, reasons: dict[Part, str]
) -> TrialFacts | None:
    if checkpoint is None:
        return None
    if not images:
        reasons["detector"] = "--images 0 leaves it out"
        return None
    samples = draw_samples(data.train, data.val, images)
    try:
        with image_progress("detecting", samples.images) as on_batch:
            return try_detector(folder, checkpoint, config, samples, on_batch)
    except UserError as error:
        reasons["detector"] = str(error)
        return None
