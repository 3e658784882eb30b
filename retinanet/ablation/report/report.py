"""The report of a study: report.md, report.html and the folder report/ with every picture and its numbers."""

from pathlib import Path

from retinanet.ablation.cells import CellStatus
from retinanet.ablation.report.collect import StudyResult
from retinanet.ablation.report.data import RESAMPLES, ReportData, gather
from retinanet.ablation.report.numbers import write_study_numbers
from retinanet.ablation.report.plots import (
    draw_learning_curves,
    draw_points,
    draw_score_histograms,
    draw_study_precision_recall,
)
from retinanet.ablation.report.same_images import Grid, build_grid, draw_same_images
from retinanet.ablation.report.statistics import ArmVerdict
from retinanet.ablation.report.tables import (
    LEARNED,
    cells_table,
    difference_blocks,
    has_learned,
    metrics_of_arms_table,
    results_table,
    tuning_table,
)
from retinanet.display.document.blocks import Block, Heading, Listing, Panels, Paragraph, Picture
from retinanet.display.document.html import render_html
from retinanet.display.document.markdown import render_markdown
from retinanet.display.numbers import points, signed_points
from retinanet.files import make_folder, write_text
from retinanet.scoring.matches import AP_NAMES

PICTURES = "report"


def write_study_report(result: StudyResult, folder: Path) -> None:
    """Write report.md, report.html and report/*.{svg,jpg,csv} into `folder`, replacing earlier ones.

    An unfinished study is reported as far as it is. The bootstrap uses fixed draws, so the same cells give the same
    numbers. Raises DataError for annotations, images or detections that cannot be used, CheckpointError for a damaged
    metrics.jsonl, ResourceError if a file cannot be written.
    """
    data = gather(result)
    pictures = folder / PICTURES
    make_folder(pictures)
    grid = build_grid(data)
    write_study_numbers(data, grid, pictures)
    blocks = [
        *_summary_blocks(data),
        *result_blocks(data, pictures),
        *fairness_blocks(data),
        *detail_blocks(data, grid, pictures),
        Heading("Settings"),
        *difference_blocks(data),
    ]
    write_text(folder / "report.md", render_markdown(result.title, blocks, folder))
    write_text(folder / "report.html", render_html(result.title, blocks))


def study_findings(data: ReportData) -> list[str]:
    """Results of the comparison, one sentence for each verdict that occurs; no verdict where nothing has learned."""
    if (text := learned_nothing(data)) is not None:
        return [text]
    reference = data.result.reference
    texts = {
        ArmVerdict.BETTER: f"Better than {reference} in AP",
        ArmVerdict.WORSE: f"Worse than {reference} in AP",
        ArmVerdict.SEEDS_DOUBT: f"These networks differ from those of {reference} in AP, but other seeds could undo it",
        ArmVerdict.SAME: f"Not distinguishable from {reference} in AP on this test split",
        ArmVerdict.NOT_MEASURED: "Nothing to measure",
    }
    none = [arm.info.name for arm in data.arms if not has_learned(arm)]
    found = [f"Has learned nothing (AP50 below {points(LEARNED)} with every seed): {'; '.join(none)}."] if none else []
    for verdict, text in texts.items():
        compared = [(arm.info.name, arm.comparison) for arm in data.arms if arm.comparison is not None]
        names = [f"{name} ({signed_points(c.difference)})" for name, c in compared if c.verdict == verdict]
        if names:
            found.append(f"{text}: {'; '.join(names)}.")
    left = [arm.info.name for arm in data.arms if arm.comparison is None and arm.info.name != data.result.reference]
    if left:
        found.append(f"Not compared, because there is no finished seed: {'; '.join(left)}.")
    return found


def learned_nothing(data: ReportData) -> str | None:
    """That no arm has learned anything, where that is so."""
    measured = [arm for arm in data.arms if arm.measured]
    if not measured or any(has_learned(arm) for arm in measured):
        return None
    best = max(float(cell.points_M[AP_NAMES.index("AP50")]) for arm in measured for cell in arm.measured)
    return (
        f"No arm has learned anything: the best training of all has AP50 {points(best)} on the test split, so there is "
        "nothing to compare. Train for longer, with another learning rate or from pretrained weights, or look at the "
        "data with retinanet data check and at a run with retinanet doctor."
    )


def _summary_blocks(data: ReportData) -> list[Block]:
    cells = [cell for cell in data.result.cells if not cell.tuning]
    done = sum(cell.record.status == CellStatus.DONE for cell in cells)
    images = len(data.ground_truth["images"])
    objects = len(data.ground_truth["annotations"])
    blocks: list[Block] = [Paragraph(data.result.note)] if data.result.note else []
    blocks.append(
        Paragraph(
            f"{len(data.arms)} arms, {done} of {len(cells)} trainings finished; measured on {images:,} test images "
            f"with {objects:,} annotations ({data.result.test_annotations.name}). AP is in points from 0 to 100."
        )
    )
    blocks.append(Listing(tuple(study_findings(data)) or ("No arm can be compared yet.",)))
    warnings = (*data.result.guards, *data.remarks)
    return [*blocks, Heading("Caveats", 3), Listing(warnings)] if warnings else blocks


def fairness_blocks(data: ReportData) -> list[Block]:
    """How the comparison is kept fair."""
    seeds = sorted({cell.record.seed for arm in data.arms for cell in arm.cells})
    seeds_text = ", ".join(map(str, seeds))
    return [
        Heading("How the comparison was made"),
        Listing(
            (
                "All arms have the same base config, printed at the end, and differ only in the settings listed there.",
                f"Seeds {seeds_text}: with the same seed, arms start from the same initial weights (outputs that only "
                "one arm has, such as the background of a softmax head, are initialised last), and see the same "
                "images in the same order with the same flips, for the same number of steps.",
                data.result.lr_rule_text,
                "No checkpoint was selected by its score: every training is evaluated with its final weights.",
                f"Differences: paired bootstrap over test images ({RESAMPLES:,} resamples, fixed draws, the same for "
                "all arms; AP recomputed for each), mean over the seeds that both arms have, 95 % percentile interval, "
                "two-sided p-value, Holm's correction over the arms. It states how the difference between these "
                "trained networks would vary with other test images.",
                "With other seeds too: the same samples, each shifted by a draw of Student's t (seeds - 1 degrees of "
                "freedom) times the standard error of the differences between seeds. An arm is called better or worse "
                "only if both corrected p-values are below 0.05, which few seeds rarely reach.",
                "A seed that diverged has no detections and counts as AP 0.",
                f"Machine: {data.result.machine}.",
            )
        ),
    ]


def result_blocks(data: ReportData, pictures: Path) -> list[Block]:
    """Tables and points of every arm; draws panels into `pictures`."""
    blocks: list[Block] = [Heading("Results"), results_table(data), metrics_of_arms_table(data)]
    if any(arm.info.paper for arm in data.arms):
        blocks.append(
            Paragraph(
                "Rows in italics are the paper's numbers (arXiv 1708.02002), for its data set, network and budget. "
                "They are shown for their order among themselves and are not comparable with this study's.",
                quiet=True,
            )
        )
    blocks.append(
        Panels(
            draw_points(data, pictures),
            "AP of every seed with mean and interval, and the difference to the reference, one line per arm",
            "First: AP of every seed, their mean (bar) and its 95 % interval over test images. Second: difference to "
            "the reference with its 95 % intervals, thick over test images, thin over images and seeds; if one "
            "crosses the line, the sign is undecided. Bold: better or worse after Holm's correction.",
        )
    )
    blocks.append(cells_table(data))
    tuning = tuning_table(data)
    return [*blocks, tuning] if tuning is not None else blocks


def detail_blocks(data: ReportData, grid: Grid, pictures: Path) -> list[Block]:
    """Learning curves, precision, scores and images, which it draws into `pictures`."""
    return [
        Heading("Learning curves"),
        Panels(
            draw_learning_curves(data, pictures),
            "Validation AP and training class loss over steps, one line per arm",
            "Mean over finished seeds; the band reaches from the lowest seed to the highest. A seed that did not "
            "finish is a thin line, with a cross where it diverged. Class losses of different kinds have different "
            "scales: compare their shapes, not their heights.",
        ),
        Heading("Precision and recall"),
        Panels(
            draw_study_precision_recall(data, pictures),
            "Precision over recall at IoU 0.5 and 0.75, one line per arm",
            "Interpolated precision, the mean over classes and finished seeds, all object sizes.",
        ),
        Heading("Scores of right and wrong detections"),
        Panels(
            draw_score_histograms(data, pictures),
            "Histograms of the scores of true and false positives, one panel per arm",
            "Detections per seed (mean over finished seeds) by score, true and false at IoU 0.5, all classes; the "
            "count is logarithmic. The evaluation's score threshold removes detections below it.",
        ),
        Heading("The same images with every arm"),
        Picture(
            draw_same_images(grid, pictures / "same_images.jpg"),
            "A grid of test images: ground truth in the first row, then the detections of each arm",
            "Images are spread evenly over the test split, not chosen. Each arm with its first finished seed, above "
            "the score with its best F1 on the test split, because the arms' scores are on different scales.",
            wide=True,
        ),
    ]
