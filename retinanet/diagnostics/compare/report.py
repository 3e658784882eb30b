"""Two files of detections against one ground truth: the terminal's tables, compare.json, report.html and its plots."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rich.table
import rich.text
from rich.console import Console

from retinanet.data.ground_truth import load_ground_truth
from retinanet.data.results import read_noted_results
from retinanet.diagnostics.analysis.thumbnails import LEGEND
from retinanet.diagnostics.compare.differences import (
    MAIN_METRIC,
    NOT_MEASURED,
    TOO_FEW,
    DetectorComparison,
    MetricDifference,
    check_resamples,
    compare_detectors,
)
from retinanet.diagnostics.compare.images import (
    ImageDifference,
    ThresholdedDetector,
    at_best_threshold,
    draw_side_by_side,
    find_files,
    image_differences,
    most_different,
)
from retinanet.diagnostics.compare.inputs import Inputs, described, labels, title_of
from retinanet.diagnostics.compare.plots import draw_classes, draw_differences, largest_differences
from retinanet.diagnostics.compare.tables import (
    READING,
    class_findings,
    classes_table,
    describe_scope,
    describe_verdict,
    difference_text,
    image_differences_table,
    overall_table,
    sizes_table,
)
from retinanet.display.console import print_plain
from retinanet.display.document.blocks import Block, Heading, Listing, Panels, Paragraph, Picture, Table
from retinanet.display.document.html import render_html
from retinanet.errors import printable
from retinanet.files import CsvValue, make_folder, write_csv, write_json, write_text
from retinanet.scoring.analysis.scored import score_detections
from retinanet.scoring.columns import DETECTIONS, detection_columns, truth_columns
from retinanet.scoring.evaluation import METRIC_NAMES

PICTURES_EACH_WAY = 4
ROWS_EACH_WAY = 10
TERMINAL_CLASSES = 20
OFF_CENTRE = 0.5
"""Maximum distance of the resampled differences' mean from the difference, in their standard deviations."""
COVERED = 0.9
"""Minimum ratio of the numbers of images with detections; below it, one detector may not have been run on all."""


def compare_files(
    inputs: Inputs,
    *,
    images: Path | None = None,
    output: Path | None = None,
    resamples: int | None = None,
    max_detections: int = DETECTIONS,
) -> Path:
    """Print the comparison of two COCO results files and write it into `output`, which is returned.

    output: None is a folder in runs/. images: folder of the ground truth's file names; with it the images that differ
    most are drawn. max_detections: of a class and image, those that count. For files with the same detections, only
    that is reported. Raises DataError for files that cannot be used, ConfigError for too few resamples, ResourceError
    where it cannot write.
    """
    if resamples is not None:
        check_resamples(resamples)
    truth = load_ground_truth(inputs.ground_truth)
    console, results = Console(), []
    for path in (inputs.first, inputs.second):
        detections, notes = read_noted_results(path, truth)
        results.append(detections)
        for note in notes:
            console.print(f"note: {path.name}: {note}", markup=False)
    folder = output or Path("runs") / f"compare-{'-'.join(labels(inputs))}"
    if results[0] == results[1]:
        report_identical(console, inputs, len(results[0]), folder)
        return folder
    with console.status("comparing"):
        objects = truth_columns(truth)
        first, second = (
            score_detections(objects, detection_columns(objects, found), max_detections) for found in results
        )
        pair = (at_best_threshold("A", first), at_best_threshold("B", second))
        comparison = compare_detectors(first.matches, second.matches, first.names(), resamples)
    rows = image_differences(*pair)
    shown = most_different(rows, PICTURES_EACH_WAY)
    files = find_files(shown, truth, images) if images is not None else []
    make_folder(folder)
    notes = [*remarks(pair, results), *off_centre(comparison)]
    write_comparison_files(folder, inputs, comparison, rows, pair, notes)
    blocks = [
        *summary_blocks(inputs, comparison, notes),
        *number_blocks(folder, comparison),
        *image_blocks(folder, rows, [(row, file) for row, file in zip(shown, files)], pair),
    ]
    write_text(folder / "report.html", render_html(title_of(inputs), blocks))
    print_comparison(console, inputs, comparison, notes, folder)
    return folder


def report_identical(console: Console, inputs: Inputs, detections: int, folder: Path) -> None:
    """Report in the terminal, compare.json and report.html that both files have the same detections."""
    what = f"Both files have the same detections, {detections:,} each" if detections else "Neither file has a detection"
    text = f"{what}: every difference is 0, and there is nothing to compare."
    make_folder(folder)
    named = {"A": str(inputs.first), "B": str(inputs.second), "ground_truth": str(inputs.ground_truth)}
    write_json(folder / "compare.json", {**named, "verdict": text}, indent=1)
    write_text(folder / "report.html", render_html(title_of(inputs), [Paragraph(text), Listing(described(inputs))]))
    print_plain(console, f"A  {inputs.first}\nB  {inputs.second}\n\n{text}\n\nwritten to {folder}/")


def remarks(
    detectors: tuple[ThresholdedDetector, ThresholdedDetector], results: Sequence[Sequence[dict[str, Any]]]
) -> list[str]:
    """Warnings about the two files, one sentence each."""
    notes = [f"{detector.name} has no detections." for detector, found in zip(detectors, results) if not found]
    images = len(detectors[0].scored.objects.image_ids_I)
    covered = [len({row["image_id"] for row in found}) for found in results]
    if min(covered) < COVERED * max(covered):
        notes.append(
            f"A has detections on {covered[0]:,} images and B on {covered[1]:,}: make sure that both were run on all "
            f"{images:,}, since no object counts as found in an image without detections."
        )
    return notes


def off_centre(comparison: DetectorComparison) -> list[str]:
    """A warning where the resamples' mean is far from the difference itself, so that their interval is inaccurate."""
    samples = comparison.resampled_RM[:, METRIC_NAMES.index(MAIN_METRIC)]
    samples = samples[~np.isnan(samples)]
    if comparison.main.verdict in (TOO_FEW, NOT_MEASURED) or len(samples) < 2:
        return []
    shift = float(samples.mean()) - comparison.main.difference
    if abs(shift) <= OFF_CENTRE * float(samples.std()):
        return []
    difference = comparison.main.difference
    return [
        f"The resampled differences have mean {difference_text(difference + shift)} points of {MAIN_METRIC}, not "
        f"{difference_text(difference)}: classes with few images are absent from many resamples. Treat the interval as "
        "approximate, and compare on more images."
    ]


def summary_blocks(inputs: Inputs, comparison: DetectorComparison, notes: Sequence[str]) -> list[Block]:
    """The verdict, what it is about, and warnings."""
    compared = (
        *described(inputs),
        f"Measured on {comparison.images:,} images with {sum(comparison.objects_K):,} objects of "
        f"{len(comparison.classes)} classes ({inputs.ground_truth.name}). Metrics are in points from 0 to 100.",
    )
    blocks: list[Block] = [
        Paragraph(describe_verdict(comparison)),
        Paragraph(describe_scope(comparison)),
        Listing(compared),
    ]
    return [*blocks, Heading("Notes", 3), Listing(tuple(notes))] if notes else blocks


def number_blocks(folder: Path, comparison: DetectorComparison) -> list[Block]:
    """Plots and tables of the differences over all classes, by size and by class."""
    judged, rare = split_rare(comparison)
    differing = [*largest_differences(judged, len(judged)), *largest_differences(rare, len(rare))]
    blocks: list[Block] = [
        Heading("Differences"),
        Panels(
            paths=draw_differences(folder, comparison),
            alt="Every metric's difference with its interval, and a histogram of the resampled differences of AP",
            caption=(
                "First: B minus A with its 95 % interval; where it crosses the line, the sign is uncertain. Second: "
                "the difference of AP on each resample; grey is the interval, the solid line the data set itself."
            ),
        ),
        overall_table(comparison),
        sizes_table(comparison),
        Paragraph(
            f"Paired bootstrap: {comparison.resamples:,} resamples of the images, drawn with replacement and the same "
            "for both detectors, on each of which every metric is recomputed; the interval is the central 95 % of the "
            f"differences, p is two-sided. {READING}",
            quiet=True,
        ),
        Heading("Classes"),
        Listing(tuple(class_findings(comparison)) or ("No class has an object.",)),
    ]
    if differing:
        blocks += [
            Panels(
                paths=draw_classes(folder, differing),
                alt="The difference in AP of each class with its interval",
                caption=(
                    "AP of B minus A by class with its own 95 % interval, which is not widened for the number of "
                    "classes. Filled marks are distinguishable after Holm's correction over all classes."
                ),
            ),
            classes_table(comparison, differing),
        ]
    return blocks


def image_blocks(
    folder: Path,
    rows: list[ImageDifference],
    shown: list[tuple[ImageDifference, Path]],
    pair: tuple[ThresholdedDetector, ThresholdedDetector],
) -> list[Block]:
    """The images on which the two differ most, as pictures where there are files."""
    table_rows = most_different(rows, ROWS_EACH_WAY)
    blocks: list[Block] = [
        Heading("Images on which they differ most"),
        Paragraph(
            f"Counted at IoU 0.5, each detector at the score threshold with its best F1: A {pair[0].errors.score:.2f}, "
            f"B {pair[1].errors.score:.2f}. These images are chosen for their difference, so they are not typical."
        ),
    ]
    if not table_rows:
        return [*blocks, Paragraph("Both make the same number of errors on every image.")]
    blocks.append(image_differences_table(table_rows))
    if shown:
        make_folder(folder / "images")
        blocks.append(Paragraph(f"Detections: {LEGEND}.", quiet=True))
    for number, (row, file) in enumerate(shown, 1):
        picture = draw_side_by_side(folder / "images" / f"{number:02d}_{row.image_id}.jpg", file, row, pair)
        fewer, more = ("B", "A") if row.gain > 0 else ("A", "B")
        caption = f"{row.name}: {fewer} makes {abs(row.gain)} fewer errors than {more}."
        blocks.append(Picture(path=picture, alt=f"Ground truth, A and B on {row.name}", caption=caption, wide=True))
    return blocks


def write_comparison_files(
    folder: Path,
    inputs: Inputs,
    comparison: DetectorComparison,
    rows: Sequence[ImageDifference],
    pair: tuple[ThresholdedDetector, ThresholdedDetector],
    notes: Sequence[str],
) -> None:
    """compare.json and the CSV files behind the plots; metrics from 0 to 1."""
    counts = dict(zip((found.name for found in comparison.classes), comparison.objects_K, strict=True))
    content = {
        "A": str(inputs.first),
        "B": str(inputs.second),
        "ground_truth": str(inputs.ground_truth),
        "images": comparison.images,
        "resamples": comparison.resamples,
        "verdict": describe_verdict(comparison),
        "scope": describe_scope(comparison),
        "notes": list(notes),
        "scores": {used.name: used.errors.score for used in pair},
        "overall": [difference_as_dict(found) for found in comparison.overall],
        "sizes": [difference_as_dict(found) for found in comparison.sizes],
        "classes": [{**difference_as_dict(found), "objects": counts[found.name]} for found in comparison.classes],
    }
    write_json(folder / "compare.json", content, indent=1)
    header = ("name", "A", "B", "difference", "low", "high", "p", "p_holm", "verdict", "images_with_objects")
    write_csv(folder / "differences.csv", header, (*comparison.overall, *comparison.sizes))
    classes: list[tuple[CsvValue, ...]] = [(*found, counts[found.name]) for found in comparison.classes]
    write_csv(folder / "classes.csv", (*header, "objects"), classes)
    write_csv(folder / "resamples.csv", METRIC_NAMES, comparison.resampled_RM.tolist())
    names = [f"{letter}_{count}" for letter in "AB" for count in ("right", "false", "missed")]
    image_rows: list[list[CsvValue]] = [[row.image_id, row.name, *row.first, *row.second, row.gain] for row in rows]
    write_csv(folder / "images.csv", ("image_id", "file_name", *names, "errors_fewer_in_B"), image_rows)


def difference_as_dict(found: MetricDifference) -> dict[str, Any]:
    """A difference as plain data; null for NaN and for no verdict."""
    renamed = {"first": "A", "second": "B", "images": "images_with_objects"}
    return {
        renamed.get(key, key): None if value == "" or (isinstance(value, float) and math.isnan(value)) else value
        for key, value in found._asdict().items()
    }


def print_comparison(
    console: Console, inputs: Inputs, comparison: DetectorComparison, notes: Sequence[str], folder: Path
) -> None:
    """Print the comparison."""
    print_plain(console, f"A  {inputs.first}\nB  {inputs.second}")
    console.print(terminal_table(overall_table(comparison)))
    console.print(terminal_table(sizes_table(comparison), leave_out=("p",)))
    print_plain(console, f"\n{READING}")
    classes = largest_differences(split_rare(comparison)[0], TERMINAL_CLASSES)
    if classes:
        console.print(terminal_table(classes_table(comparison, classes), leave_out=("p", "verdict", "objects")))
    if left := len(comparison.classes) - len(classes):
        print_plain(console, f"{left} more classes in report.html and classes.csv differ less or have too few images")
    print_plain(console, "")
    for text in (describe_verdict(comparison), *class_findings(comparison), describe_scope(comparison), *notes):
        print_plain(console, text)
    print_plain(console, f"\nwritten to {folder}/")


def split_rare(comparison: DetectorComparison) -> tuple[list[MetricDifference], list[MetricDifference]]:
    """The classes with a verdict, and those with too few images."""
    judged = [found for found in comparison.classes if found.verdict not in (TOO_FEW, NOT_MEASURED)]
    return judged, [found for found in comparison.classes if found.verdict == TOO_FEW]


def terminal_table(table: Table, leave_out: Sequence[str] = ()) -> rich.table.Table:
    """A document's table for the terminal, without the columns with these headings."""
    shown = rich.table.Table(box=None, padding=(0, 1), pad_edge=False, title=f"\n{table.title}", title_justify="left")
    kept = [column for column, heading in enumerate(table.header) if heading not in leave_out]
    for column in kept:
        justify: Literal["left", "right"] = "left" if column in table.left_columns else "right"
        shown.add_column(table.header[column], justify=justify, no_wrap=True)
    for row in table.rows:
        shown.add_row(*(rich.text.Text(printable(row.cells[column])) for column in kept))
    return shown
