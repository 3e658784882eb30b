"""Two files of detections against one ground truth: the terminal's tables, compare.json, report.html and its plots."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import rich.table
import rich.text
from rich.console import Console

from retinanet.data.ground_truth import load_ground_truth
from retinanet.data.results import read_results
from retinanet.diagnostics.analysis.columns import to_columns
from retinanet.diagnostics.analysis.thumbnails import LEGEND
from retinanet.diagnostics.compare.differences import (
    MAIN_METRIC,
    NOT_MEASURED,
    TOO_FEW,
    Comparison,
    Difference,
    check_resamples,
    compare,
)
from retinanet.diagnostics.compare.images import (
    ImageDifference,
    Used,
    draw_side_by_side,
    find_files,
    image_differences,
    most_different,
    use_best_score,
)
from retinanet.diagnostics.compare.plots import draw_classes, draw_differences, largest
from retinanet.diagnostics.compare.tables import (
    READING,
    class_findings,
    classes_table,
    images_table,
    overall_table,
    scope,
    signed,
    sizes_table,
    verdict,
)
from retinanet.display.document.blocks import Block, Heading, Listing, Paragraph, Picture, Table
from retinanet.display.document.html import render_html
from retinanet.files import CsvValue, make_folder, write_csv, write_json, write_text
from retinanet.scoring.evaluation import METRIC_NAMES
from retinanet.scoring.matches import match_detections

PICTURES_EACH_WAY = 4
ROWS_EACH_WAY = 10
TERMINAL_CLASSES = 20
OFF_CENTRE = 0.5
"""Standard deviations of the resampled differences by which their mean may miss the difference itself."""
COVERED = 0.9
"""Share of the other's images with detections below which a detector may not have been run on all."""


class Inputs(NamedTuple):
    """What was compared."""

    first: Path
    second: Path
    ground_truth: Path


def compare_files(
    inputs: Inputs, *, images: Path | None = None, output: Path | None = None, resamples: int | None = None
) -> None:
    """Print the comparison of two COCO results files and write it into `output` (default: a folder in runs/).

    images: folder of the ground truth's file names; with it the images that differ most are drawn. Raises DataError
    for files that cannot be used, ConfigError for too few resamples, ResourceError where it cannot write. Files of the
    same detections are only said to be that.
    """
    if resamples is not None:
        check_resamples(resamples)
    truth = load_ground_truth(inputs.ground_truth)
    results = [read_results(path, truth) for path in (inputs.first, inputs.second)]
    console = Console()
    folder = output or Path("runs") / f"compare-{'-'.join(labels(inputs))}"
    if results[0] == results[1]:
        report_identical(console, inputs, len(results[0]), folder)
        return
    with console.status("comparing"):
        matched = [match_detections(truth, found) for found in results]
        detectors = [
            use_best_score(letter, to_columns(truth, found, matches))
            for letter, found, matches in zip("AB", results, matched, strict=True)
        ]
        comparison = compare(matched[0], matched[1], detectors[0].scored.names(), resamples)
    pair = (detectors[0], detectors[1])
    rows = image_differences(*pair)
    shown = most_different(rows, PICTURES_EACH_WAY)
    files = find_files(shown, truth, images) if images is not None else []
    make_folder(folder)
    notes = [*remarks(pair, results), *off_centre(comparison)]
    write_numbers(folder, inputs, comparison, rows, pair, notes)
    blocks = [
        *summary_blocks(inputs, comparison, notes),
        *number_blocks(folder, comparison),
        *image_blocks(folder, rows, [(row, file) for row, file in zip(shown, files)], pair),
    ]
    write_text(folder / "report.html", render_html(title_of(inputs), blocks))
    show(console, inputs, comparison, notes, folder)


def report_identical(console: Console, inputs: Inputs, detections: int, folder: Path) -> None:
    """Say that both files hold the same detections, on the terminal, in compare.json and in report.html."""
    what = f"Both files hold the same detections, {detections:,} each" if detections else "Neither file has a detection"
    told = f"{what}: every difference is 0, and there is nothing to compare."
    make_folder(folder)
    named = {"A": str(inputs.first), "B": str(inputs.second), "ground_truth": str(inputs.ground_truth)}
    write_json(folder / "compare.json", {**named, "verdict": told}, indent=1)
    compared = (f"A is {inputs.first}.", f"B is {inputs.second}.")
    write_text(folder / "report.html", render_html(title_of(inputs), [Paragraph(told), Listing(compared)]))
    say(console, f"A  {inputs.first}\nB  {inputs.second}\n\n{told}\n\nwritten to {folder}/")


def title_of(inputs: Inputs) -> str:
    first, second = labels(inputs)
    return f"{second} against {first}"


def labels(inputs: Inputs) -> tuple[str, str]:
    """Short names of both files: what stands before the first dot, or with equal names their folder's."""
    first, second = (path.name.split(".")[0] for path in inputs[:2])
    if first == second:
        first, second = (path.absolute().parent.name or path.name for path in inputs[:2])
    return first, second


def remarks(detectors: tuple[Used, Used], results: Sequence[Sequence[dict[str, Any]]]) -> list[str]:
    """What a reader should know of the two files, a sentence each."""
    notes = [f"{detector.name} has no detections." for detector, found in zip(detectors, results) if not found]
    covered = [len({row["image_id"] for row in found}) for found in results]
    if min(covered) < COVERED * max(covered):
        notes.append(
            f"A has detections on {covered[0]:,} images and B on {covered[1]:,}: make sure that both were run on all "
            f"{len(detectors[0].scored.image_names):,}, since an image without detections counts as nothing found."
        )
    return notes


def off_centre(comparison: Comparison) -> list[str]:
    """A sentence where the resamples centre elsewhere than the data set, so that their interval is a rough one."""
    samples = comparison.resampled_RM[:, METRIC_NAMES.index(MAIN_METRIC)]
    samples = samples[~np.isnan(samples)]
    if comparison.main.verdict in (TOO_FEW, NOT_MEASURED) or len(samples) < 2:
        return []
    shift = float(samples.mean()) - comparison.main.difference
    if abs(shift) <= OFF_CENTRE * float(samples.std()):
        return []
    return [
        f"The resampled differences centre on {signed(comparison.main.difference + shift)} points of {MAIN_METRIC}, "
        f"not on {signed(comparison.main.difference)}: classes with few images fall out of many resamples. Take the "
        "interval as a rough one, and compare on more images."
    ]


def summary_blocks(inputs: Inputs, comparison: Comparison, notes: Sequence[str]) -> list[Block]:
    compared = (
        f"A is {inputs.first}.",
        f"B is {inputs.second}.",
        f"Measured on {comparison.images:,} images with {sum(comparison.objects_K):,} objects of "
        f"{len(comparison.classes)} classes ({inputs.ground_truth}). Metrics are in points from 0 to 100.",
    )
    blocks: list[Block] = [Paragraph(verdict(comparison)), Paragraph(scope(comparison)), Listing(compared)]
    return [*blocks, Heading("To keep in mind", 3), Listing(tuple(notes))] if notes else blocks


def number_blocks(folder: Path, comparison: Comparison) -> list[Block]:
    judged, rare = split_rare(comparison)
    differing = [*largest(judged, len(judged)), *largest(rare, len(rare))]
    blocks: list[Block] = [
        Heading("Differences"),
        Picture(
            draw_differences(folder / "differences.png", comparison),
            "Every metric's difference with its interval, and a histogram of the resampled differences of AP",
            "Left: B minus A with its 95 % interval; where it crosses the line, the sign is open. Right: the same "
            "difference of AP on each resample; grey is the interval, the solid line the images as they are.",
        ),
        overall_table(comparison),
        sizes_table(comparison),
        Paragraph(
            f"Paired bootstrap: {comparison.resamples:,} times as many images are drawn with replacement, the same "
            "for both detectors, and every metric is computed anew; the interval is the middle 95 % of the "
            f"differences, p is two-sided. {READING}",
            quiet=True,
        ),
        Heading("Classes"),
        Listing(tuple(class_findings(comparison)) or ("No class has an object.",)),
    ]
    if differing:
        blocks += [
            Picture(
                draw_classes(folder / "classes.png", differing),
                "The difference in AP of each class with its interval",
                "AP of B minus A by class with its own 95 % interval, which is not widened for the number of classes. "
                "Filled marks are distinguishable after Holm's correction over all classes.",
            ),
            classes_table(comparison, differing),
        ]
    return blocks


def image_blocks(
    folder: Path, rows: list[ImageDifference], shown: list[tuple[ImageDifference, Path]], pair: tuple[Used, Used]
) -> list[Block]:
    """The images on which the two differ most, drawn where there are files."""
    table_rows = most_different(rows, ROWS_EACH_WAY)
    blocks: list[Block] = [
        Heading("Images on which they differ most"),
        Paragraph(
            f"Counted at IoU 0.5, each detector from the score of its best F1 on: A from {pair[0].errors.score:.2f}, B "
            f"from {pair[1].errors.score:.2f}. They are chosen for their difference, so they are not typical."
        ),
    ]
    if not table_rows:
        return [*blocks, Paragraph("Both make equally many errors on every image.")]
    blocks.append(images_table(table_rows))
    if shown:
        make_folder(folder / "images")
        blocks.append(Paragraph(f"Detections: {LEGEND}.", quiet=True))
    for number, (row, file) in enumerate(shown, 1):
        picture = draw_side_by_side(folder / "images" / f"{number:02d}_{row.image_id}.jpg", file, row, pair)
        fewer, more = ("B", "A") if row.gain > 0 else ("A", "B")
        caption = f"{row.name}: {fewer} makes {abs(row.gain)} fewer errors than {more}."
        blocks.append(Picture(picture, f"Ground truth, A and B on {row.name}", caption))
    return blocks


def write_numbers(
    folder: Path,
    inputs: Inputs,
    comparison: Comparison,
    rows: Sequence[ImageDifference],
    pair: tuple[Used, Used],
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
        "verdict": verdict(comparison),
        "scope": scope(comparison),
        "notes": list(notes),
        "scores": {used.name: used.errors.score for used in pair},
        "overall": [plain(found) for found in comparison.overall],
        "sizes": [plain(found) for found in comparison.sizes],
        "classes": [{**plain(found), "objects": counts[found.name]} for found in comparison.classes],
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


def plain(found: Difference) -> dict[str, Any]:
    """A difference as plain data; null for NaN and for no verdict."""
    renamed = {"first": "A", "second": "B", "images": "images_with_objects"}
    return {
        renamed.get(key, key): None if value == "" or (isinstance(value, float) and math.isnan(value)) else value
        for key, value in found._asdict().items()
    }


def show(console: Console, inputs: Inputs, comparison: Comparison, notes: Sequence[str], folder: Path) -> None:
    """The comparison on the terminal."""
    say(console, f"A  {inputs.first}\nB  {inputs.second}")
    console.print(terminal_table(overall_table(comparison)))
    console.print(terminal_table(sizes_table(comparison), leave_out=("p",)))
    say(console, f"\n{READING}")
    classes = largest(split_rare(comparison)[0], TERMINAL_CLASSES)
    if classes:
        console.print(terminal_table(classes_table(comparison, classes), leave_out=("p", "verdict", "objects")))
    if left := len(comparison.classes) - len(classes):
        say(console, f"{left} more classes in report.html and classes.csv: they differ less or have too few images")
    say(console, "")
    for text in (verdict(comparison), *class_findings(comparison), scope(comparison), *notes):
        say(console, text)
    say(console, f"\nwritten to {folder}/")


def split_rare(comparison: Comparison) -> tuple[list[Difference], list[Difference]]:
    """The classes that can be judged, and those with too few images."""
    judged = [found for found in comparison.classes if found.verdict not in (TOO_FEW, NOT_MEASURED)]
    return judged, [found for found in comparison.classes if found.verdict == TOO_FEW]


def terminal_table(table: Table, leave_out: Sequence[str] = ()) -> rich.table.Table:
    """A document's table for the terminal, without the columns of these headings."""
    shown = rich.table.Table(box=None, padding=(0, 1), pad_edge=False, title=f"\n{table.title}", title_justify="left")
    kept = [column for column, heading in enumerate(table.header) if heading not in leave_out]
    for column in kept:
        justify: Literal["left", "right"] = "left" if column in table.left_columns else "right"
        shown.add_column(table.header[column], justify=justify, no_wrap=True)
    for row in table.rows:
        shown.add_row(*(rich.text.Text(row.cells[column]) for column in kept))
    return shown


def say(console: Console, text: str) -> None:
    """Text as it is: no markup, no colours."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)
