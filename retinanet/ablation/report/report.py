"""The report of a study: report.md, report.html and the folder report/ with every picture and its numbers."""

from pathlib import Path

from retinanet.ablation.report.collect import StudyResult
from retinanet.ablation.report.data import RESAMPLES, ReportData, gather
from retinanet.ablation.report.loss_curves import draw_figure_1, draw_figure_7, draw_figures_5_and_6
from retinanet.ablation.report.numbers import write_numbers
from retinanet.ablation.report.plots import (
    draw_learning_curves,
    draw_points,
    draw_precision_recall,
    draw_score_histograms,
)
from retinanet.ablation.report.same_images import Grid, build_grid, draw_same_images
from retinanet.ablation.report.statistics import BETTER, NOT_MEASURED, SAME, SEEDS_DOUBT, WORSE
from retinanet.ablation.report.tables import cells_table, difference_blocks, results_table, signed_points, tuning_table
from retinanet.display.document.blocks import Block, Heading, Listing, Paragraph, Picture
from retinanet.display.document.html import render_html
from retinanet.display.document.markdown import render_markdown
from retinanet.files import make_folder, write_text

PICTURES = "report"


def write_report(result: StudyResult, folder: Path) -> None:
    """Write report.md, report.html and report/*.{png,jpg,csv} into `folder`; what lies there from before is replaced.

    A study that is not finished is reported as far as it is. The bootstrap is computed here, with fixed draws: the
    same cells give the same numbers. Raises DataError for annotations, images or detections that cannot be used,
    CheckpointError for a damaged metrics.jsonl, ResourceError where it cannot write.
    """
    data = gather(result)
    pictures = folder / PICTURES
    make_folder(pictures)
    grid = build_grid(data)
    write_numbers(data, grid, pictures)
    blocks = [
        *_summary_blocks(data),
        *_fairness_blocks(data),
        *_result_blocks(data, pictures),
        *_detail_blocks(data, grid, pictures),
        *_loss_blocks(pictures),
        Heading("Settings"),
        *difference_blocks(data),
    ]
    write_text(folder / "report.md", render_markdown(result.title, blocks, folder))
    write_text(folder / "report.html", render_html(result.title, blocks))


def findings(data: ReportData) -> list[str]:
    """What the comparison says, a sentence for each verdict that occurs."""
    reference = data.result.reference
    texts = {
        BETTER: f"Better than {reference} in AP",
        WORSE: f"Worse than {reference} in AP",
        SEEDS_DOUBT: f"These networks differ from those of {reference} in AP, but other seeds could undo it",
        SAME: f"Not distinguishable from {reference} in AP on this test split",
        NOT_MEASURED: "Nothing to measure",
    }
    found = []
    for verdict, text in texts.items():
        compared = [(arm.info.name, arm.comparison) for arm in data.arms if arm.comparison is not None]
        names = [f"{name} ({signed_points(c.difference)})" for name, c in compared if c.verdict == verdict]
        if names:
            found.append(f"{text}: {'; '.join(names)}.")
    left = [arm.info.name for arm in data.arms if arm.comparison is None and arm.info.name != data.result.reference]
    if left:
        found.append(f"Not compared, for want of a finished seed: {'; '.join(left)}.")
    return found


def _summary_blocks(data: ReportData) -> list[Block]:
    cells = [cell for cell in data.result.cells if not cell.tuning]
    done = sum(cell.status == "done" for cell in cells)
    images = len(data.ground_truth["images"])
    objects = len(data.ground_truth["annotations"])
    blocks: list[Block] = [Paragraph(data.result.note)] if data.result.note else []
    blocks.append(
        Paragraph(
            f"{len(data.arms)} arms, {done} of {len(cells)} trainings finished; measured on {images:,} test images "
            f"with {objects:,} annotations ({data.result.test_annotations.name}). AP is in points from 0 to 100."
        )
    )
    blocks.append(Listing(tuple(findings(data)) or ("No arm can be compared yet.",)))
    warnings = (*data.result.guards, *data.remarks)
    return [*blocks, Heading("To keep in mind", 3), Listing(warnings)] if warnings else blocks


def _fairness_blocks(data: ReportData) -> list[Block]:
    """How the comparison was made fair."""
    seeds = sorted({cell.seed for arm in data.arms for cell in arm.cells})
    seeds_text = ", ".join(map(str, seeds))
    return [
        Heading("How the comparison was made"),
        Listing(
            (
                "All arms have the same base config, printed at the end, and differ in the settings listed there.",
                f"Seeds {seeds_text}: with the same seed, arms start from the same initial weights (outputs that only "
                "one arm has, such as the background of a softmax head, are drawn last), and see the same images in "
                "the same order with the same flips, for the same number of steps.",
                data.result.lr_rule_text,
                "No checkpoint was picked by its score: every training counts with the weights at its end.",
                f"Differences: paired bootstrap over test images ({RESAMPLES:,} resamples, fixed draws, the same for "
                "all arms; AP recomputed for each), mean over the seeds that both arms have, 95 % percentile interval, "
                "two-sided p-value, Holm's correction over the arms. It says how the difference of these trained "
                "networks would vary with other test images.",
                "With other seeds too: the same samples, each moved by a draw of Student's t (seeds - 1 degrees of "
                "freedom) times the standard error of the seeds' own differences. An arm is called better or worse "
                "only where both corrected p-values are below 0.05, so that few seeds seldom say so.",
                "A seed that diverged has no detections and counts as AP 0.",
                f"Machine: {data.result.machine}.",
            )
        ),
    ]


def _result_blocks(data: ReportData, pictures: Path) -> list[Block]:
    blocks: list[Block] = [Heading("Results"), results_table(data)]
    if any(arm.info.paper for arm in data.arms):
        blocks.append(
            Paragraph(
                "Rows in italics are the paper's own numbers (arXiv 1708.02002), of its data set, network and budget. "
                "They stand there for their order among themselves; they are not comparable with ours.",
                quiet=True,
            )
        )
    blocks.append(
        Picture(
            draw_points(data, pictures / "points.png"),
            "AP of every seed with mean and interval, and the difference to the reference, one line an arm",
            "Left: AP of every seed, their mean (bar) and its 95 % interval over test images. Right: difference to "
            "the reference with its 95 % intervals, thick over test images, thin over images and seeds; one that "
            "crosses the line leaves the sign open. Bold: better or worse after Holm's correction.",
        )
    )
    blocks.append(cells_table(data))
    tuning = tuning_table(data)
    return [*blocks, tuning] if tuning is not None else blocks


def _detail_blocks(data: ReportData, grid: Grid, pictures: Path) -> list[Block]:
    return [
        Heading("Learning curves"),
        Picture(
            draw_learning_curves(data, pictures / "learning_curves.png"),
            "Validation AP and training class loss over steps, one line an arm",
            "Mean over finished seeds; the band reaches from the lowest seed to the highest. A seed that did not "
            "finish is a thin line, with a cross where it diverged. Class losses of different kinds have other "
            "scales: compare their shapes, not their heights.",
        ),
        Heading("Precision and recall"),
        Picture(
            draw_precision_recall(data, pictures / "precision_recall.png"),
            "Precision over recall at IoU 0.5 and 0.75, one line an arm",
            "Interpolated precision, the mean over classes and finished seeds, all object sizes.",
        ),
        Heading("Scores of right and wrong detections"),
        Picture(
            draw_score_histograms(data, pictures / "score_histograms.png"),
            "Histograms of the scores of true and false positives, a panel an arm",
            "Detections of a seed (mean over finished seeds) by score, true and false at IoU 0.5, all classes; the "
            "count is logarithmic. Detections below the evaluation's score threshold do not exist.",
        ),
        Heading("The same images by every arm"),
        Picture(
            draw_same_images(grid, pictures / "same_images.jpg"),
            "A grid of test images: ground truth in the first row, then the detections of each arm",
            "Images are spread evenly over the test split, not chosen. Each arm by its first finished seed, from the "
            "score at which its F1 on the test split is best, since the arms' scores are on different scales.",
            wide=True,
        ),
    ]


def _loss_blocks(pictures: Path) -> list[Block]:
    """The paper's figures of the losses, from this project's own functions."""
    return [
        Heading("The losses"),
        Picture(
            draw_figure_1(pictures / "loss_figure_1.png"),
            "Cross entropy and focal loss over the probability of the true class",
            "Focal loss for gamma from 0 (cross entropy) to 5, without alpha: the paper's Figure 1.",
        ),
        Picture(
            draw_figures_5_and_6(pictures / "loss_figures_5_6.png"),
            "Cross entropy, focal loss and FL* and their derivatives over the signed logit",
            "CE, FL and FL* and their derivatives by x_t = y x, without alpha: the paper's Figures 5 and 6.",
        ),
        Picture(
            draw_figure_7(pictures / "loss_figure_7.png"),
            "FL* under many settings, and the share of gradient that each leaves to easy examples",
            "After the paper's Figure 7, which colours settings of FL* by the AP that they trained to. Here, without "
            "training: the gradient of an easy example over that of a hard one. White lines are the settings that "
            "leave as much as focal loss does; circles are the two settings of the paper's Table 3 with the paper's "
            "own AP.",
        ),
    ]
