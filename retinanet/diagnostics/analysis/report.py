"""The report of an evaluation: report.html, self-contained, and plots/ with every picture and its numbers."""

from collections.abc import Callable, Sequence
from pathlib import Path

from retinanet.diagnostics.analysis.findings import describe_calibration, describe_findings
from retinanet.diagnostics.analysis.image_sections import (
    Places,
    class_anchor,
    class_image_blocks,
    images_of_a_class,
    ranked_image_blocks,
)
from retinanet.diagnostics.analysis.plot_data import write_plot_data
from retinanet.diagnostics.analysis.plots import draw_class_ap, draw_class_precision_recall, draw_sizes_and_crowding
from retinanet.diagnostics.analysis.plots_of_errors import (
    ALL_CLASSES,
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
)
from retinanet.display.document.blocks import Block, Heading, Listing, Panels, Paragraph
from retinanet.display.document.html import render_html
from retinanet.files import make_folder, write_text
from retinanet.scoring.analysis.analyse import Analysis
from retinanet.scoring.analysis.worst_images import ClassImage, worst_images_of_classes
from retinanet.scoring.intervals import FEWEST_IMAGES

ABOUT_INTERVALS = (
    "Intervals: 95 %, by resampling the images with replacement (the pivotal bootstrap). They are about this trained "
    "detector on all images like these, where AP is lower than on few of them; not about another training, other "
    f"places or cameras, or mistakes of the labels. Classes with objects in fewer than {FEWEST_IMAGES} images have "
    "none; with few more, they are too narrow."
)


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
    worst = worst_images_of_classes(analysis.scored, analysis.score, images_of_a_class(analysis))
    blocks = [
        *_summary(header, analysis),
        *_found(analysis, plots, worst),
        *_errors(analysis, plots),
        *_scores(analysis, plots),
        *extra(plots),
    ]
    on_step("drawing images")
    errors: list[str] = []
    places = Places(header.images, plots)
    blocks += class_image_blocks(analysis, worst, places, errors)
    for title, images in (("worst", analysis.worst), ("best", analysis.best)):
        blocks += ranked_image_blocks(title, images, analysis, places, errors)
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
        metrics_table(evaluation.metrics, analysis.intervals),
        *([] if analysis.intervals is None else [Paragraph(ABOUT_INTERVALS, quiet=True)]),
        Listing(tuple(describe_findings(analysis))),
    ]


def _found(analysis: Analysis, plots: Path, worst: Sequence[Sequence[ClassImage]]) -> list[Block]:
    known = () if analysis.intervals is None else zip(analysis.evaluation.per_class, analysis.intervals.classes)
    intervals = {row.id: interval for row, interval in known if interval.known()}
    return [
        Heading("Precision and recall"),
        Panels(
            paths=draw_class_precision_recall(
                plots, analysis.curves, analysis.evaluation.per_class, analysis.scored.names()
            ),
            alt="Precision over recall at IoU 0.5 and 0.75",
            caption=(
                "As the score threshold falls, a curve goes from left to right: more objects are found (recall), and "
                "a smaller share of the detections is right (precision). The area under a class's curve is its AP at "
                "that IoU; where a curve falls to 0 before recall 1, the remaining objects are found by no detection."
            ),
        ),
        Heading("Classes"),
        Panels(
            paths=draw_class_ap(plots, analysis.evaluation.per_class, intervals),
            alt="AP and AP50 of every class",
            caption=(
                "A large gap between the bar (AP) and the dot (AP50) means that objects are found but boxes are not "
                "tight. In brackets after each name: the number of its objects without crowd; with few, AP is mostly "
                "chance."
            ),
        ),
        class_scores_table(
            analysis, [class_anchor(k) if images and len(worst) > 1 else "" for k, images in enumerate(worst)]
        ),
        Heading("Size and crowding"),
        Panels(
            paths=draw_sizes_and_crowding(plots, analysis.sizes, analysis.crowding, analysis.overlaps),
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
    return [
        Heading("Types of error"),
        Panels(
            paths=draw_errors(plots, analysis.errors),
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
        *_confusion(analysis, plots),
    ]


def _confusion(analysis: Analysis, plots: Path) -> list[Block]:
    names = analysis.scored.names()
    confused = confused_table(analysis)
    blocks: list[Block] = [Heading("Confusion")]
    paths = draw_confusion(plots, analysis.confusion, names)
    if paths:
        which = (
            f" Shown are the {ALL_CLASSES} classes or fewer of the most confused pairs; the others are taken together, "
            "and plots/confusion.csv has them all."
            if len(names) > ALL_CLASSES
            else ""
        )
        caption = (
            f"Rows are true classes, columns detected classes; the colour is the share of the row.{which} At or above "
            f"score {analysis.score:.3f} (best F1), IoU 0.5. Pairs of the same class are matched first, as in COCO, "
            "even where a detection of another class overlaps more; the rest is then matched across classes. Last "
            "column: objects without a match. Last row: detections without a match, by detected class; they may "
            "overlap an object that is already matched."
        )
        blocks.append(Panels(paths=paths, alt="Confusion matrix", caption=caption))
    return [*blocks, confused if confused else Paragraph("No class is confused with another at this score.")]


def _scores(analysis: Analysis, plots: Path) -> list[Block]:
    blocks: list[Block] = [
        Heading("Choosing a threshold"),
        Panels(
            paths=draw_thresholds(plots, analysis.thresholds, analysis.scored.names()),
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
    picture = Panels(
        paths=draw_calibration(plots, analysis.calibration.overall),
        alt="Precision over score",
        caption=(
            "Where bars end on the dashed line, a score of 0.7 means that 7 in 10 detections are right; bars below it "
            "mean that scores are too high, bars above it that they are too low. ECE is the mean gap over detections, "
            f"so it depends most on the scores that are most frequent, which the right panel shows.{shown}"
        ),
    )
    return [*blocks, picture]
