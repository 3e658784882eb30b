"""The report of an evaluation: report.html, self-contained, and plots/ with every picture and its numbers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from retinanet.diagnostics.analysis.findings import describe_calibration, describe_findings
from retinanet.diagnostics.analysis.plot_data import write_plot_data
from retinanet.diagnostics.analysis.plots import draw_class_ap, draw_class_precision_recall, draw_sizes_and_crowding
from retinanet.diagnostics.analysis.plots_of_errors import (
    NAMED_CELLS,
    draw_calibration,
    draw_confusion,
    draw_errors,
    draw_thresholds,
)
from retinanet.diagnostics.analysis.report_files import PLOTS, REPORT, ReportHeader
from retinanet.diagnostics.analysis.report_tables import (
    class_scores_table,
    confused_table,
    errors_table,
    metrics_table,
    ranked_images_table,
)
from retinanet.diagnostics.analysis.thumbnails import LEGEND, draw_verdicts
from retinanet.display.document.blocks import Block, Gallery, Heading, Listing, Paragraph
from retinanet.display.document.blocks import Picture as Figure
from retinanet.display.document.html import render_html
from retinanet.display.drawing import Picture, save_picture
from retinanet.errors import DataError
from retinanet.files import make_folder, write_text
from retinanet.scoring.analysis.analyse import Analysis


def write_analysis_report(
    header: ReportHeader,
    analysis: Analysis,
    folder: Path,
    extra: Callable[[Path], Sequence[Block]],
    on_step: Callable[[str], None],
) -> list[str]:
    """Write report.html and plots/ into `folder`, replacing files of the same names.

    extra: returns further sections; it gets the folder for their pictures. on_step: called with a description of each
    step. Returns one sentence for each image that could not be drawn. Raises ResourceError where it cannot write.
    """
    plots = folder / PLOTS
    make_folder(plots)
    write_plot_data(analysis, plots)
    on_step("drawing plots")
    blocks = [
        *_summary(header, analysis),
        *_found(analysis, plots),
        *_errors(analysis, plots),
        *_scores(analysis, plots),
        *extra(plots),
    ]
    on_step("drawing images")
    errors: list[str] = []
    for title, images in (("worst", analysis.worst), ("best", analysis.best)):
        blocks += _images(title, images, header.images, analysis, plots, errors)
    on_step("writing the report")
    write_text(folder / REPORT, render_html(header.title, blocks, contents=True))
    return errors


def _summary(header: ReportHeader, analysis: Analysis) -> list[Block]:
    objects, found, evaluation = analysis.scored.objects, analysis.scored.found, analysis.evaluation
    crowd = int(objects.crowd_N.sum())
    counts = (
        f"{len(objects.image_ids_I):,} images, {len(objects.image_N) - crowd:,} objects"
        f"{f' and {crowd:,} crowd regions' if crowd else ''} of {len(objects.category_ids_K)} classes, "
        f"{len(found.score_D):,} detections that COCO scores (at most 100 of a class in an image)."
    )
    return [
        Listing((*header.lines, counts, f"The twelve metrics and AP by class: {evaluation.engine}.")),
        Heading("Summary"),
        metrics_table(evaluation.metrics),
        Listing(tuple(describe_findings(analysis))),
    ]


def _found(analysis: Analysis, plots: Path) -> list[Block]:
    names = analysis.scored.names()
    return [
        Heading("Precision and recall"),
        Figure(
            path=draw_class_precision_recall(plots / "precision_recall.png", analysis.curves, names),
            alt="Precision over recall at IoU 0.5 and 0.75",
            caption=(
                "As the score threshold falls, a curve goes from left to right: more objects are found (recall), and "
                "a smaller share of the detections is right (precision). The area under a class's curve is its AP at "
                "that IoU; where a curve falls to 0 before recall 1, the remaining objects are found by no detection."
            ),
        ),
        Heading("Classes"),
        Figure(
            path=draw_class_ap(plots / "class_ap.png", analysis.evaluation.per_class),
            alt="AP and AP50 of every class",
            caption=(
                "A large gap between the bar (AP) and the dot (AP50) means that objects are found but boxes are not "
                "tight. In brackets after each name: the number of its objects without crowd; with few, AP is mostly "
                "chance."
            ),
        ),
        class_scores_table(analysis),
        Heading("Size and crowding"),
        Figure(
            path=draw_sizes_and_crowding(
                plots / "size_and_crowding.png", analysis.sizes, analysis.crowding, analysis.overlaps
            ),
            alt="AP by size and by objects in the image, recall by overlap with a neighbour",
            caption=(
                "Compare bars within a panel; below each are its range and the number of objects or images in it. "
                "Left: AP by the square root of an object's area (COCO's small ends at 32, its medium at 96). Middle: "
                "AP on the images with that number of objects alone. Right: share of objects found, by largest IoU "
                f"with another object of any class: green at or above score {analysis.score:.3f}, pale at any score."
            ),
        ),
    ]


def _errors(analysis: Analysis, plots: Path) -> list[Block]:
    names = analysis.scored.names()
    labels = "by name" if len(names) <= NAMED_CELLS else "by number in the table of classes"
    blocks: list[Block] = [
        Heading("Types of error"),
        Figure(
            path=draw_errors(plots / "errors.png", analysis.errors),
            alt="AP50 lost to each type of error",
            caption=(
                "A bar is the AP50 that would be gained if this type of error alone were corrected (TIDE, arXiv "
                "2008.08115); in brackets, the number of such errors at any score. Localisation: right class, IoU 0.1 "
                "to 0.5. Classification: IoU 0.5 or more with an object of another class. Both: wrong class and "
                "poorly localised. Duplicate: a better detection is matched to the object. Background: there is no "
                "object. Missed: no detection is near the object. Gains do not add up, since errors hide one another."
            ),
        ),
        errors_table(analysis),
        Heading("Confusion"),
        Figure(
            path=draw_confusion(plots / "confusion.png", analysis.confusion, names),
            alt="Confusion matrix",
            caption=(
                f"Rows are true classes, columns detected classes, {labels}; the colour is the share of the row. At or "
                f"above score {analysis.score:.3f} (best F1), IoU 0.5. Pairs of the same class are matched first, as "
                "in COCO, even where a detection of another class overlaps more; the rest is then matched across "
                "classes. Last column: objects without a match. Last row: detections without a match, by detected "
                "class; they may overlap an object that is already matched."
            ),
        ),
    ]
    confused = confused_table(analysis)
    return [*blocks, confused if confused else Paragraph("No class is confused with another at this score.")]


def _scores(analysis: Analysis, plots: Path) -> list[Block]:
    blocks: list[Block] = [
        Heading("Choosing a threshold"),
        Figure(
            path=draw_thresholds(plots / "thresholds.png", analysis.thresholds, analysis.scored.names()),
            alt="Precision, recall and F1 over the threshold",
            caption=(
                "What a score threshold gives at IoU 0.5: precision is the share of the detections kept that are "
                "right, recall the share of objects found, F1 their harmonic mean. The dashed line is the threshold "
                "with the best F1 over all classes; dots on the right are the best of each class, listed with "
                "precision and recall in the table of classes and in eval.json under thresholds."
            ),
        ),
        Heading("Calibration"),
    ]
    if analysis.calibration is None:
        blocks.append(Paragraph("Not measured: scores outside 0 to 1 are not probabilities."))
        return blocks
    used = analysis.calibration.shown
    shown = (
        f" Above score {used.from_score:.3f} ({used.detections:,} detections), the detector is "
        f"{describe_calibration(used.mean_score, used.right)}."
        if used
        else ""
    )
    picture = Figure(
        path=draw_calibration(plots / "calibration.png", analysis.calibration.overall),
        alt="Precision over score",
        caption=(
            "Where bars end on the dashed line, a score of 0.7 means that 7 in 10 detections are right; bars below it "
            "mean that scores are too high, bars above it that they are too low. ECE is the mean gap over detections, "
            f"so it depends most on the scores that are most frequent, which the right panel shows.{shown}"
        ),
    )
    return [*blocks, picture]


def _images(
    title: str, images: Sequence[int], folder: Path | None, analysis: Analysis, plots: Path, errors: list[str]
) -> list[Block]:
    """The worst or best images, drawn where the folder of the image files is known; adds to `errors`."""
    rows = [analysis.image_row(image) for image in images]
    blocks: list[Block] = [Heading(f"The {title} images")]
    if not rows:
        none = "No image has an error." if title == "worst" else "No image has a right detection."
        return [*blocks, Paragraph(none)]
    more = "more errors" if title == "worst" else "more right detections"
    blocks.append(
        Paragraph(
            f"Sorted by F1 of the detections at or above score {analysis.score:.3f}, {title} first; ties by {more}, "
            "then by LRP error, which also measures how tight boxes are (0 is perfect, 1 means nothing is right)."
            + (f" Boxes are {LEGEND}." if folder is not None else "")
        )
    )
    pictures = []
    for rank, (image, row) in enumerate(zip(images, rows), 1):
        if folder is not None:
            drawn = _thumbnail(folder, image, analysis, errors)
            if drawn is not None:
                path = plots / f"{title}_{rank:02d}.jpg"
                save_picture(path, drawn)
                pictures.append(Figure(path=path, alt=f"{title} image {rank}", caption=_caption(rank, row)))
    if pictures:
        blocks.append(Gallery(tuple(pictures)))
    table = ranked_images_table(f"The {len(rows)} {title} images", rows)
    return [*blocks, table._replace(folded=bool(pictures))]


def _caption(rank: int, row: dict[str, Any]) -> str:
    return (
        f"{rank}. {row['file_name']}: {row['right']} right, {row['false']} false, {row['not_found']} not found, "
        f"F1 {row['f1']:.2f}"
    )


def _thumbnail(folder: Path, image: int, analysis: Analysis, errors: list[str]) -> Picture | None:
    """The picture of an image; None, with a sentence added to `errors`, where its file cannot be used."""
    name = analysis.scored.objects.image_names_I[image]
    if not (folder / name).resolve().is_relative_to(folder.resolve()):
        errors.append(f"{name}: outside the image folder {folder}; file names must be relative to it")
        return None
    try:
        return draw_verdicts(folder / name, analysis.scored, image, analysis.score)
    except DataError as error:
        errors.append(str(error))
        return None
