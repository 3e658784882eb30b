"""Evaluating a detector on its val split, or a file of detections on ground truth, with a report."""

from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from retinanet import distributed
from retinanet.build.rules import build_resize_rule, build_view_rule
from retinanet.data.coco import CocoDataset
from retinanet.data.ground_truth import load_ground_truth
from retinanet.data.results import read_noted_results
from retinanet.data.views import count_views
from retinanet.diagnostics.analysis.error_crops import check_no_crops
from retinanet.diagnostics.analysis.evaluate import write_evaluation_report
from retinanet.diagnostics.analysis.report_files import TITLE, ReportHeader
from retinanet.diagnostics.anchors.report import anchor_section
from retinanet.display.progress import image_progress, steps
from retinanet.errors import DataError
from retinanet.evaluation.detector import precision_name
from retinanet.evaluation.evaluate import evaluate_dataset
from retinanet.evaluation.saved import LoadedDetector, count_unlisted, covered, load_detector
from retinanet.evaluation.sources import resolve_data
from retinanet.evaluation.splits import Split, load_split
from retinanet.files import data_title, make_folder, write_json
from retinanet.run.folder import RunFolder
from retinanet.run.image_record import trained_note
from retinanet.scoring.columns import DETECTIONS
from retinanet.scoring.evaluation import Engine, check_engine, coco_evaluation


def evaluate_checkpoint(path: Path, overrides: list[str], output: Path | None, *, report: bool = True) -> None:
    """`evaluate_loaded` of the checkpoint `path`. `overrides` are key=value words for its config."""
    evaluate_loaded(load_detector(path, overrides), path, output, report=report)


def evaluate_loaded(
    saved: LoadedDetector,
    path: Path,
    output: Path | None,
    *,
    report: bool,
    intervals: bool = False,
    crops: bool = False,
    split: Split = "val",
) -> Path:
    """COCO metrics and analyses of the detector from `path` on a split of its config's data.

    Prints a table and writes eval.json, detections.json and, unless `report` is False, report.html and plots/ into
    `output` (default: a folder in the run's), which is returned. intervals: also those of the metrics over images;
    crops: also write false positives and missed objects as pictures. Raises DataError for data that are missing,
    invalid or have other classes, ConfigError for an engine that is not installed, ResourceError where it cannot write.
    """
    ranks = distributed.read_ranks()
    check_engine(saved.config.eval.engine)
    data = saved.config.data
    dataset = covered(saved.categories, load_split(data, split, data.check_images), path)
    left_out = count_unlisted(saved.categories, dataset)
    home = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    if not path.exists():
        home = Path("runs")  # of a detector that has a name, and no file that the user chose
    folder = output or home / f"eval-{path.stem}-{dataset.annotation_file.stem if data.source is None else split}"
    if crops:
        check_no_crops(folder)
    if ranks.is_main:
        make_folder(folder)
    distributed.start(ranks, saved.detector.device)
    views = build_view_rule(saved.config)
    count = count_views(dataset.images, views)
    unit, part = "images" if count == len(dataset.images) else "views", -(-count // ranks.world_size)
    with image_progress("evaluating", part, unit=unit, then="scoring", shown=ranks.is_main) as on_batch:
        batches = (saved.config.eval.batch_size, data.workers)
        resize_rule = build_resize_rule(saved.config)
        evaluation, results = evaluate_dataset(
            saved.detector, dataset, resize_rule, batches, ranks, on_batch, saved.config.eval, saved.categories, views
        )
    distributed.stop()
    if not ranks.is_main:
        return folder
    write_json(folder / "detections.json", results)
    header = _announce(saved, path, home, dataset, left_out)
    write_evaluation_report(
        folder,
        header,
        evaluation,
        step=saved.step,
        precision=precision_name(saved.detector),
        report=report,
        intervals=intervals,
        crops=crops,
        extra=partial(anchor_section, saved.config, dataset),
    )
    return folder


def _announce(saved: LoadedDetector, path: Path, home: Path, dataset: CocoDataset, left_out: int) -> ReportHeader:
    """Print what is evaluated and how, and return it without paths for the report. home: the run's folder."""
    how = f"computed in {precision_name(saved.detector)} on {saved.detector.device.type}"
    print(f"{path}: {how}")
    data, places = saved.config.data, resolve_data(saved.config.data)
    if note := trained_note(RunFolder(home).images, dataset, Path(places.root) / places.train_images, data.source):
        print(f"note: {note}")
    name = f"{path.name} of {home.name}" if home.name else path.name
    lines = [
        f"Detector: {name}, step {saved.step:,}, {how}.",
        f"Data: {Path(data_title(dataset.annotation_file)).name}.",
    ]
    if left_out:
        lines.append(f"Detections of {left_out} classes that are not in the data are left out.")
        print(lines[-1])
    return ReportHeader(f"{TITLE}{home.name or path.stem}", tuple(lines), dataset.image_folder)


def evaluate_files(
    ground_truth: Path,
    detections: Path,
    output: Path | None,
    *,
    engine: Engine = "auto",
    max_detections: int = DETECTIONS,
    images: Path | None = None,
    report: bool = True,
    intervals: bool = False,
    crops: bool = False,
) -> Path:
    """COCO metrics and analyses of a results file on an annotation file, both JSON, gzipped or not.

    Prints a table and writes eval.json and, unless `report` is False, report.html and plots/ into `output` (default: a
    folder in runs/), which is returned. images: the folder of the image files, for pictures of the best and the worst
    images and, with `crops`, of false positives and missed objects; intervals: also those of the metrics over images.
    Raises DataError for files that cannot be used, and, once everything is written, for images that cannot be drawn.
    """
    check_engine(engine)
    if images is not None and not images.is_dir():
        raise DataError(
            f"--images: no folder {images}; give the folder that the file names of {ground_truth} are relative to."
        )
    folder = output or Path("runs") / f"eval-{detections.name.split('.')[0]}"
    if crops:
        check_no_crops(folder)
    with steps() as on_step:
        on_step(f"reading {ground_truth.name}")
        truth = load_ground_truth(ground_truth)
        if images is not None:
            check_image_folder(images, truth)
        on_step(f"reading {detections.name}")
        results, notes = read_noted_results(detections, truth)
        make_folder(folder)
        on_step("computing COCO metrics")
        evaluation = coco_evaluation(truth, results, engine, max_detections)
    for note in notes:
        Console().print(f"note: {detections.name}: {note}", markup=False)
    lines = (f"Detections: {detections.name}.", f"Ground truth: {ground_truth.name}.", *(f"{note}." for note in notes))
    header = ReportHeader(f"{TITLE}{detections.name.split('.')[0]}", lines, images)
    write_evaluation_report(
        folder, header, evaluation, step=None, precision=None, report=report, intervals=intervals, crops=crops
    )
    return folder


def check_image_folder(images: Path, ground_truth: dict[str, Any]) -> None:
    """Raise DataError where the folder contains none of the images that the ground truth names."""
    names = [str(row["file_name"]) for row in ground_truth["images"] if row.get("file_name")]
    if not names:
        raise DataError("--images: the ground truth has no file names, so no image can be drawn; leave --images out.")
    if not any((images / name).is_file() for name in names):
        raise DataError(
            f"--images: none of the {len(names):,} images is in {images} (such as {names[0]}); give the folder that "
            "the file names are relative to."
        )
