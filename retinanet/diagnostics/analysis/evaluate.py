"""What an evaluation leaves behind: the table on the terminal, eval.json and the report."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from retinanet.diagnostics.analysis.analyse import Analysis, analyse, as_dict
from retinanet.diagnostics.analysis.columns import Scored, to_columns
from retinanet.diagnostics.analysis.findings import findings
from retinanet.diagnostics.analysis.report_files import ReportHeader, remove_report
from retinanet.display.console import evaluation_table
from retinanet.display.document.blocks import Block
from retinanet.display.progress import steps
from retinanet.errors import DataError, list_errors
from retinanet.files import write_json
from retinanet.scoring.evaluation import Evaluation
from retinanet.scoring.matches import match_detections

TOLD_IMAGES = 5
"""Of the images that could not be drawn, so many are told."""


def write_evaluation_report(
    folder: Path,
    subject: ReportHeader,
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

    extra: further sections for the report, given the folder for their pictures. Raises DataError, when all is
    written, for images that could not be drawn.
    """
    errors: list[str] = []
    with steps() as on_step:
        on_step("analysing")
        scored = to_columns(ground_truth, results, match_detections(ground_truth, results))
        analysis = analyse(scored)
        older = remove_report(folder)
        write_json(folder / "eval.json", {**more, **eval_content(evaluation, analysis, scored)}, indent=1)
        if report:
            # Imported here: a second for matplotlib, which only the report needs.
            from retinanet.diagnostics.analysis.report import write_report

            errors = write_report(subject, evaluation, scored, analysis, folder, extra, on_step)
    console = Console()
    console.print(evaluation_table(evaluation.metrics, evaluation.per_class, findings(analysis, scored)))
    written = "eval.json, report.html and plots/" if report else "eval.json"
    written += " (the older report there is removed)" if older and not report else ""
    console.print(f"written to {folder}/: {written}", markup=False, highlight=False, soft_wrap=True)
    if errors:
        told = list_errors("images that could not be drawn; the report has the others", errors, TOLD_IMAGES)
        raise DataError(told)


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
