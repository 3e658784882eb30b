"""The report of an evaluation: report.html, one file, and the folder plots/ with every picture and its numbers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from retinanet.diagnostics.analysis.analyse import Analysis, image_row
from retinanet.diagnostics.analysis.columns import Scored
from retinanet.diagnostics.analysis.findings import findings
from retinanet.diagnostics.analysis.numbers import write_numbers
from retinanet.diagnostics.analysis.plots import draw_class_ap, draw_precision_recall, draw_sizes_and_crowding
from retinanet.diagnostics.analysis.plots_of_errors import (
    NAMED_CELLS,
    draw_calibration,
    draw_confusion,
    draw_errors,
    draw_thresholds,
)
from retinanet.diagnostics.analysis.report_files import PLOTS, REPORT, ReportHeader
from retinanet.diagnostics.analysis.report_tables import (
    class_table,
    confused_table,
    errors_table,
    images_table,
    metrics_table,
)
from retinanet.diagnostics.analysis.thumbnails import LEGEND, draw_verdicts
from retinanet.display.document.blocks import Block, Gallery, Heading, Listing, Paragraph
from retinanet.display.document.blocks import Picture as Figure
from retinanet.display.document.html import render_html
from retinanet.display.drawing import Picture, save_picture
from retinanet.errors import DataError
from retinanet.files import make_folder, write_text
from retinanet.scoring.evaluation import Evaluation


def write_report(
    subject: ReportHeader,
    evaluation: Evaluation,
    scored: Scored,
    analysis: Analysis,
    folder: Path,
    extra: Callable[[Path], Sequence[Block]],
    on_step: Callable[[str], None],
) -> list[str]:
    """Write report.html and plots/ into `folder`; what lies there from before is replaced.

    extra: gives further sections, its pictures drawn into the folder that it is told. on_step is told what is done
    next.
    Returns the images that could not be drawn, a sentence each. Raises ResourceError where it cannot write.
    """
    plots = folder / PLOTS
    make_folder(plots)
    write_numbers(analysis, scored, plots)
    on_step("drawing plots")
    blocks = [
        *_summary(subject, evaluation, scored, analysis),
        *_found(analysis, scored, plots),
        *_errors(analysis, scored, plots),
        *_scores(analysis, scored, plots),
        *extra(plots),
    ]
    on_step("drawing images")
    errors: list[str] = []
    for title, places in (("worst", analysis.worst), ("best", analysis.best)):
        blocks += _images(title, places, subject, scored, analysis, plots, errors)
    on_step("writing the report")
    write_text(folder / REPORT, render_html(subject.title, blocks, contents=True))
    return errors


def _summary(subject: ReportHeader, evaluation: Evaluation, scored: Scored, analysis: Analysis) -> list[Block]:
    objects, found = scored.objects, scored.found
    crowd = int(objects.crowd_N.sum())
    counts = (
        f"{len(scored.image_names):,} images, {len(objects.image_N) - crowd:,} objects"
        f"{f' and {crowd:,} crowd regions' if crowd else ''} of {len(scored.categories)} classes, "
        f"{len(found.score_D):,} detections that COCO scores (at most 100 of a class in an image)."
    )
    return [
        Listing((*subject.lines, counts, f"The twelve numbers and AP by class: {evaluation.engine}.")),
        Heading("Summary"),
        metrics_table(evaluation.metrics),
        Listing(tuple(findings(analysis, scored))),
    ]


def _found(analysis: Analysis, scored: Scored, plots: Path) -> list[Block]:
    return [
        Heading("Precision and recall"),
        Figure(
            draw_precision_recall(plots / "precision_recall.png", analysis.curves, scored.names()),
            "Precision over recall at IoU 0.5 and 0.75",
            "Read a curve from the left: so large a share of the objects is found (recall) at that share of right "
            "detections (precision). The area under a class's curve is its AP at that IoU; a curve that ends early "
            "has objects that no detection finds.",
        ),
        Heading("Classes"),
        Figure(
            draw_class_ap(plots / "class_ap.png", analysis.classes),
            "AP and AP50 of every class",
            "A long way from the bar (AP) to the dot (AP50) says that objects are found but boxes are not tight. "
            "Behind each name: its objects without crowd; of few, AP is mostly chance.",
        ),
        class_table(analysis, scored),
        Heading("Size and crowding"),
        Figure(
            draw_sizes_and_crowding(
                plots / "size_and_crowding.png", analysis.sizes, analysis.crowding, analysis.overlaps
            ),
            "AP by size and by objects in the image, recall by overlap with a neighbour",
            "Compare bars within a panel; under each stands its range and how many objects or images are in it. Left: "
            "AP of objects by the square root of their area (COCO's small ends at 32, its medium at 96). Middle: AP of "
            "the images with so many objects, alone. Right: share of objects found, by their largest IoU with another "
            f"object of any class: green from score {analysis.score:.3f} on, pale from any score.",
        ),
    ]


def _errors(analysis: Analysis, scored: Scored, plots: Path) -> list[Block]:
    where = "by name" if len(scored.categories) <= NAMED_CELLS else "by number in the table of classes"
    blocks: list[Block] = [
        Heading("Kinds of error"),
        Figure(
            draw_errors(plots / "errors.png", analysis.errors),
            "AP50 that each kind of error costs",
            "A bar is the AP50 that would be gained if this kind of error alone were put right (TIDE, arXiv "
            "2008.08115); in brackets how many there are, of any score. Localisation: right class, IoU 0.1 to 0.5. "
            "Classification: IoU 0.5 or more with an object of another class. Both: wrong class and badly placed. "
            "Duplicate: the object is taken by a better detection. Background: nothing is there. Missed: no detection "
            "comes near the object. Gains do not add up, since errors hide each other.",
        ),
        errors_table(analysis, scored),
        Heading("Confusion"),
        Figure(
            draw_confusion(plots / "confusion.png", analysis.confusion, scored.names()),
            "Confusion matrix",
            f"A row is what objects are, a column what they are detected as, {where}; the colour is the share of the "
            f"row. Detections from score {analysis.score:.3f} on (best F1), IoU 0.5. Pairs of one class go first, as "
            "COCO takes them, even where a detection of another class lies closer; then what is left is paired over "
            "all classes. Last column: objects that have no partner. Last row: detections without one, by the class "
            "that they claim; they may lie on an object that was found already.",
        ),
    ]
    confused = confused_table(analysis, scored)
    return [*blocks, confused if confused else Paragraph("No class is taken for another at this score.")]


def _scores(analysis: Analysis, scored: Scored, plots: Path) -> list[Block]:
    blocks: list[Block] = [
        Heading("Choosing a threshold"),
        Figure(
            draw_thresholds(plots / "thresholds.png", analysis.thresholds, scored.names()),
            "Precision, recall and F1 over the threshold",
            "Read off what a threshold gives: precision is the share of shown detections that are right, recall the "
            "share of objects found, F1 their harmonic mean, at IoU 0.5. The dashed line is the threshold of the best "
            "F1 over all classes; dots at the right are the best of each class, listed with its precision and recall "
            "in the table of classes and in eval.json under thresholds.",
        ),
        Heading("Calibration"),
    ]
    if analysis.calibration is None:
        blocks.append(Paragraph("Not measured: scores outside 0 to 1 are no probabilities."))
        return blocks
    used = analysis.calibration.shown
    shown = (
        f" The {used.detections:,} from score {used.from_score:.3f} on have a mean score of {used.mean_score:.3f}; "
        f"{used.right:.3f} of them are right."
        if used
        else ""
    )
    picture = Figure(
        draw_calibration(plots / "calibration.png", analysis.calibration.overall),
        "Share of right detections over their score",
        "Where bars end on the dashed line, a score of 0.7 means that 7 in 10 detections are right; bars under it say "
        "that scores are too high, over it too low. ECE is the mean gap over detections, so low scores count "
        f"most where there are most of them: the right panel counts.{shown}",
    )
    return [*blocks, picture]


def _images(
    title: str,
    places: Sequence[int],
    subject: ReportHeader,
    scored: Scored,
    analysis: Analysis,
    plots: Path,
    errors: list[str],
) -> list[Block]:
    rows = [image_row(analysis.images, scored, place) for place in places]
    blocks: list[Block] = [Heading(f"The {title} images")]
    if not rows:
        return [*blocks, Paragraph("None: no image has an error." if title == "worst" else "None: nothing is found.")]
    among = "more errors" if title == "worst" else "more right"
    blocks.append(
        Paragraph(
            f"By F1 of the detections from score {analysis.score:.3f} on, {title} first; among equals those with "
            f"{among}, then by LRP error, which also tells how tight boxes are (0 perfect, 1 nothing right)."
            + (f" Boxes are {LEGEND}." if subject.images is not None else "")
        )
    )
    pictures = []
    for rank, (place, row) in enumerate(zip(places, rows), 1):
        if subject.images is not None:
            drawn = _thumbnail(subject.images, place, scored, analysis, errors)
            if drawn is not None:
                path = plots / f"{title}_{rank:02d}.jpg"
                save_picture(path, drawn)
                pictures.append(Figure(path, f"{title} image {rank}", _caption(rank, row)))
    if pictures:
        blocks.append(Gallery(tuple(pictures)))
    table = images_table(f"The {len(rows)} {title} images", rows)
    return [*blocks, table._replace(folded=bool(pictures))]


def _caption(rank: int, row: dict[str, Any]) -> str:
    return (
        f"{rank}. {row['file_name']}: {row['right']} right, {row['false']} false, {row['not_found']} not found, "
        f"F1 {row['f1']:.2f}"
    )


def _thumbnail(folder: Path, place: int, scored: Scored, analysis: Analysis, errors: list[str]) -> Picture | None:
    """The picture of an image, or None with an error told where its file cannot be used."""
    name = scored.image_names[place]
    if not (folder / name).resolve().is_relative_to(folder.resolve()):
        errors.append(f"{name}: leads out of the image folder {folder}; name it relative to that")
        return None
    try:
        return draw_verdicts(folder / name, scored, place, analysis.score)
    except DataError as error:
        errors.append(str(error))
        return None
