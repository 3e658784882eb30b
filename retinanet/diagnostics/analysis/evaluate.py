"""The output of an evaluation: the table in the terminal, eval.json and the report."""

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from retinanet.diagnostics.analysis.error_crops import write_error_crops
from retinanet.diagnostics.analysis.findings import describe_findings
from retinanet.diagnostics.analysis.report_files import ReportHeader, remove_report, replaced_report
from retinanet.display.console import evaluation_table, format_ap, print_plain
from retinanet.display.document.blocks import Block
from retinanet.display.progress import steps
from retinanet.errors import DataError, list_errors
from retinanet.scoring.analysis.analyse import analyse
from retinanet.scoring.eval_file import write_eval_file
from retinanet.scoring.evaluation import Evaluation

LISTED_IMAGES = 5
"""Maximum number of images that could not be drawn in the error message."""


def write_evaluation_report(
    folder: Path,
    header: ReportHeader,
    evaluation: Evaluation,
    *,
    step: int | None,
    precision: str | None,
    report: bool,
    crops: bool = False,
    extra: Callable[[Path], Sequence[Block]] = lambda plots: (),
) -> None:
    """Analyse, write eval.json and, unless `report` is False, the report; print the table and the findings.

    An older report in `folder` is removed in either case, since it does not belong to this eval.json.

    step, precision: see `eval_content`. crops: also write false positives and missed objects as pictures, where the
    folder of the images is known. extra: further sections of the report; it gets the folder for their pictures.
    Raises DataError, once everything is written, for images that could not be drawn.
    """
    errors: list[str] = []
    with steps() as on_step:
        on_step("analysing")
        analysis = analyse(evaluation)
        older = remove_report(folder)
        content = write_eval_file(folder / "eval.json", analysis, step=step, precision=precision)
        if report:
            # Imported here: matplotlib, which only the report needs, takes a second.
            from retinanet.diagnostics.analysis.report import write_analysis_report

            with replaced_report(folder) as part:
                errors = write_analysis_report(header, analysis, part, extra, on_step)
        pictures = list[str]()
        if crops and header.images is not None:
            on_step("drawing false positives and missed objects")
            pictures, unread = write_error_crops(folder, analysis.scored, analysis.score, header.images)
            errors += [error for error in unread if error not in errors]
    console = Console()
    findings = describe_findings(analysis, format_ap)
    console.print(evaluation_table(evaluation.metrics, content["per_class"], findings))
    written = "eval.json, report.html and plots/" if report else "eval.json"
    written += " (the older report there was removed)" if older and not report else ""
    print_plain(console, f"written to {folder}/: {written}")
    if pictures:
        print_plain(console, f"at or above score {analysis.score:.3f}: {' and '.join(pictures)}")
    if errors:
        title = "images that could not be drawn; the report has the others"
        raise DataError(list_errors(title, errors, LISTED_IMAGES))
