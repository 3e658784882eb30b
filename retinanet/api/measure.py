"""`retinanet.evaluate` and `retinanet.compare`: measurements that are started from Python."""

from pathlib import Path
from typing import Any, NamedTuple

from retinanet.api.load import ObjectDetector, open_any
from retinanet.api.python_data import DetectionData, write_data
from retinanet.api.train import TrainedRun, torch_settings_restored
from retinanet.api.words import Overrides, override_words
from retinanet.diagnostics.compare.inputs import Inputs
from retinanet.diagnostics.compare.report import compare_files
from retinanet.diagnostics.evaluate import evaluate_files, evaluate_loaded
from retinanet.errors import CheckpointError, ConfigError
from retinanet.evaluation.splits import Split
from retinanet.files import read_json
from retinanet.interop.any_detector import find_checkpoint
from retinanet.scoring.eval_file import read_eval_file


class EvaluationResult(NamedTuple):
    """What an evaluation has measured."""

    ap: float
    """COCO's AP, from 0 to 1, -1 without objects."""
    metrics: dict[str, float]
    """The twelve COCO numbers, such as AP, AP50 and AR100."""
    per_class: list[dict[str, Any]]
    """AP and other numbers of each class, as in eval.json."""
    intervals: dict[str, tuple[float, float]]
    """The 95 % interval of each of the twelve over images, where there is one; empty unless asked for."""
    folder: Path
    """Folder with eval.json and, unless it was not wanted, report.html."""
    detections: Path
    """The COCO results that were evaluated."""


class ComparisonResult(NamedTuple):
    """Whether detector B is better than detector A."""

    difference: float
    """AP of B minus AP of A, in points from -1 to 1."""
    low: float | None
    """Lower end of its 95 % interval; None where it cannot be measured."""
    high: float | None
    """Upper end."""
    p: float | None
    """Two-sided p-value."""
    verdict: str
    """The result in words."""
    content: dict[str, Any]
    """Everything in compare.json."""
    folder: Path
    """Folder with compare.json and report.html."""


def evaluate(
    detector: str | Path | TrainedRun | ObjectDetector,
    *,
    data: str | Path | DetectionData | None = None,
    overrides: Overrides = (),
    ground_truth: str | Path | None = None,
    images: str | Path | None = None,
    output: str | Path | None = None,
    report: bool = True,
    intervals: bool = False,
    split: Split = "val",
) -> EvaluationResult:
    """The COCO numbers of a detector on its val split, or of a file of detections; as `retinanet eval`.

    detector: what `retinanet.load` takes, or the result of `train` or `load`; with `ground_truth`, a file of COCO
        results.
    data: another data set, as `data=PATH` on the command line, or a `DetectionData`, all of whose images are evaluated
        on; overrides: config keys to change.
    ground_truth: a file of COCO annotations; images: the folder of its images, for the report's pictures.
    output: folder for eval.json and report.html; None is a folder in the run's, or in runs/. report: whether to write
        report.html. intervals: whether to measure how the metrics vary over images, with the bootstrap.
    split: another part of a detector's data to evaluate on, "test" or "train".

    Raises DataError, CheckpointError, ConfigError or ResourceError.
    """
    if ground_truth is not None:
        if data is not None or overrides:
            raise ConfigError("evaluate: give data and overrides with a detector, not with ground_truth")
        if isinstance(detector, TrainedRun | ObjectDetector):
            raise ConfigError("evaluate: with ground_truth, give a file of COCO results in place of a detector")
        results = Path(detector)
        places = [None if place is None else Path(place) for place in (output, images)]
        folder = evaluate_files(
            Path(ground_truth), results, places[0], images=places[1], report=report, intervals=intervals
        )
        return _read(folder, results)
    if images is not None:
        raise ConfigError("evaluate: images belongs to ground_truth; for a detector use overrides, data.val_images")
    source = _source_of(detector)
    if data is None or isinstance(data, str | Path):
        words = override_words(overrides, data)
    else:
        words = [*override_words(overrides), *override_words(write_data(data, data, 0.0).keys())]
    with torch_settings_restored():
        saved = open_any(source, words)
        place = find_checkpoint(source)
        chosen = None if output is None else Path(output)
        folder = evaluate_loaded(saved, place, chosen, report=report, intervals=intervals, split=split)
    return _read(folder, folder / "detections.json")


def compare(
    a: str | Path | TrainedRun | EvaluationResult,
    b: str | Path | TrainedRun | EvaluationResult,
    ground_truth: str | Path,
    *,
    images: str | Path | None = None,
    output: str | Path | None = None,
    resamples: int | None = None,
) -> ComparisonResult:
    """Whether detector B is better than detector A, with the paired bootstrap's interval; as `retinanet compare`.

    a, b: files of COCO results on the images of `ground_truth`, or results of `train` or `evaluate`.
    ground_truth: a file of COCO annotations; images: the folder of its images, for the report's pictures.
    output: folder for compare.json and report.html; None is a folder in runs/.
    resamples: bootstrap samples, at least 40; None is 1000, or more for many classes.

    Raises DataError, ConfigError or ResourceError.
    """
    files = [item.detections if isinstance(item, TrainedRun | EvaluationResult) else Path(item) for item in (a, b)]
    folder = compare_files(
        Inputs(files[0], files[1], Path(ground_truth)),
        images=None if images is None else Path(images),
        output=None if output is None else Path(output),
        resamples=resamples,
    )
    content = read_json(folder / "compare.json")
    assert isinstance(content, dict)
    ap: dict[str, Any] = next((row for row in content.get("overall", ()) if row["name"] == "AP"), {})
    return ComparisonResult(
        difference=ap.get("difference", 0.0),
        low=ap.get("low"),
        high=ap.get("high"),
        p=ap.get("p"),
        verdict=content["verdict"],
        content=content,
        folder=folder,
    )


def _source_of(detector: str | Path | TrainedRun | ObjectDetector) -> str | Path:
    if isinstance(detector, ObjectDetector):
        return detector.source
    if isinstance(detector, TrainedRun):
        if detector.best is None:
            raise CheckpointError(f"{detector.folder}: this run has no checkpoint of an evaluation yet")
        return detector.best
    return detector


def _read(folder: Path, detections: Path) -> EvaluationResult:
    content = read_eval_file(folder / "eval.json")
    measured = (content["intervals"] or {"metrics": {}})["metrics"]
    return EvaluationResult(
        ap=content["metrics"]["AP"],
        metrics=content["metrics"],
        per_class=content["per_class"],
        intervals={name: (ends[0], ends[1]) for name, ends in measured.items() if ends},
        folder=folder,
        detections=detections,
    )
