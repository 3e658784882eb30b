"""What an evaluation leaves behind: the table on the terminal, eval.json and the report."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from retinanet.analysis.analyse import Analysis, analyse, as_dict
from retinanet.analysis.columns import Scored, to_columns
from retinanet.analysis.findings import findings
from retinanet.analysis.stale import TITLE, remove_report
from retinanet.analysis.subject import Subject
from retinanet.console import evaluation_table
from retinanet.data.ground_truth import load_ground_truth
from retinanet.data.json_file import write_json
from retinanet.data.results import read_results
from retinanet.document.blocks import Block
from retinanet.errors import DataFault, list_faults
from retinanet.run_folder import make_folder
from retinanet.scoring.evaluation import Engine, Evaluation, check_engine, coco_evaluation
from retinanet.scoring.matches import match_detections

TOLD_IMAGES = 5
"""Of the images that could not be drawn, so many are told."""


def evaluate_files(
    ground_truth: Path,
    detections: Path,
    output: Path | None,
    *,
    engine: Engine = "auto",
    images: Path | None = None,
    report: bool = True,
) -> None:
    """COCO numbers and analyses of a results file against an annotation file, both JSON, gzipped or not.

    images: the folder of the image files, for pictures of the best and the worst. Without `report`, eval.json and
    the table only. Raises DataFault for files that cannot be used; for images that cannot be drawn when all else is
    written.
    """
    check_engine(engine)
    if images is not None and not images.is_dir():
        raise DataFault(f"--images: no folder {images}; give the folder that the file names of {ground_truth} are in.")
    folder = output or Path("runs") / f"eval-{detections.name.split('.')[0]}"
    with steps() as on_step:
        on_step(f"reading {ground_truth.name}")
        truth = load_ground_truth(ground_truth)
        if images is not None:
            check_image_folder(images, truth)
        on_step(f"reading {detections.name}")
        results = read_results(detections, truth)
        make_folder(folder)
        on_step("computing COCO's numbers")
        evaluation = coco_evaluation(truth, results, engine)
    lines = (f"Detections: {detections}.", f"Ground truth: {ground_truth}.")
    subject = Subject(f"{TITLE}{detections.name.split('.')[0]}", lines, images)
    leave_behind(folder, subject, evaluation, truth, results, {}, report=report)


def leave_behind(
    folder: Path,
    subject: Subject,
    evaluation: Evaluation,
    ground_truth: dict[str, Any],
    results: list[dict[str, Any]],
    more: dict[str, Any],
    *,
    report: bool,
    extra: Callable[[Path], Sequence[Block]] = lambda plots: (),
) -> None:
    """Analyse, write eval.json (beginning with `more`) and, where wanted, the report; print table and findings.

    The report of an earlier evaluation in `folder` is removed, wanted or not: it does not go with this eval.json.

    extra: further sections for the report, given the folder for their pictures. Raises DataFault, when all is
    written, for images that could not be drawn.
    """
    faults: list[str] = []
    with steps() as on_step:
        on_step("analysing")
        scored = to_columns(ground_truth, results, match_detections(ground_truth, results))
        analysis = analyse(scored)
        older = remove_report(folder)
        write_json(folder / "eval.json", {**more, **eval_content(evaluation, analysis, scored)}, indent=1)
        if report:
            # Imported here: a second for matplotlib, which only the report needs.
            from retinanet.analysis.report import write_report

            faults = write_report(subject, evaluation, scored, analysis, folder, extra, on_step)
    console = Console()
    console.print(evaluation_table(evaluation.metrics, evaluation.per_class, findings(analysis, scored)))
    written = "eval.json, report.html and plots/" if report else "eval.json"
    written += " (the older report there is removed)" if older and not report else ""
    console.print(f"written to {folder}/: {written}", markup=False, highlight=False, soft_wrap=True)
    if faults:
        told = list_faults("images that could not be drawn; the report has the others", faults, TOLD_IMAGES)
        raise DataFault(told)


def check_image_folder(images: Path, ground_truth: dict[str, Any]) -> None:
    """DataFault where the folder has none of the images that the ground truth names."""
    names = [str(row["file_name"]) for row in ground_truth["images"] if row.get("file_name")]
    if not any((images / name).is_file() for name in names):
        asked = (
            f"none of the {len(names):,} images is in {images} (such as {names[0]})"
            if names
            else ("the ground truth names no files of its images, so there is nothing to draw")
        )
        mend = "give the folder that the file names are relative to" if names else "leave --images out"
        raise DataFault(f"--images: {asked}; {mend}.")


def eval_content(evaluation: Evaluation, analysis: Analysis, scored: Scored) -> dict[str, Any]:
    """What eval.json holds: COCO's numbers as after training, with more about each class, and the analyses."""
    content = evaluation.as_dict()
    more = [
        {
            "APs": row.ap_small,
            "APm": row.ap_medium,
            "APl": row.ap_large,
            "images": row.images,
            "detections": row.detections,
        }
        for row in analysis.classes
    ]
    per_class = [{**row, **added} for row, added in zip(content["per_class"], more, strict=True)]
    return {**content, "per_class": per_class, **as_dict(analysis, scored)}


@contextmanager
def steps() -> Iterator[Callable[[str], None]]:
    """Gives a function that is told what is done next; a terminal shows it while it lasts."""
    with Console().status("") as status:
        yield lambda text: status.update(text + " ...")
