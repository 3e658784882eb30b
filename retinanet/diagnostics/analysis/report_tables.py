"""The report's tables. AP is in points from 0 to 100, shares and scores from 0 to 1."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from retinanet.display.document.blocks import Table, TableRow
from retinanet.display.numbers import NOTHING, points
from retinanet.scoring.analysis.analyse import Analysis
from retinanet.scoring.analysis.confusion import most_confused
from retinanet.scoring.analysis.worst_images import ClassImage
from retinanet.scoring.metric_intervals import Interval, MetricIntervals

LONG = 30
"""Maximum number of rows of a table that is not folded."""
MEANINGS = {
    "AP": "mean over IoU 0.50 to 0.95",
    "AP50": "IoU 0.50",
    "AP75": "IoU 0.75",
    "APs": "objects smaller than 32² pixels",
    "APm": "32² to 96²",
    "APl": "over 96²",
    "AR1": "1 detection per image",
    "AR10": "10 detections per image",
    "AR100": "100 detections per image",
    "ARs": "objects smaller than 32² pixels",
    "ARm": "32² to 96²",
    "ARl": "over 96²",
}


def three_decimals(value: float | None) -> str:
    """A number with three decimals; a dash for None and NaN."""
    return NOTHING if value is None or math.isnan(value) else f"{value:.3f}"


def points_interval(interval: Interval) -> str:
    """An interval as points, "35.8 to 37.2"; a dash where there is none."""
    return f"{points(interval.low)} to {points(interval.high)}" if interval.known() else NOTHING


def metrics_table(metrics: Mapping[str, float], intervals: MetricIntervals | None) -> Table:
    """COCO's twelve metrics, with their intervals if they are measured."""
    known = {} if intervals is None else {name: (points_interval(one),) for name, one in intervals.metrics.items()}
    rows = [
        TableRow((name, points(value), *known.get(name, ()), MEANINGS.get(name, ""))) for name, value in metrics.items()
    ]
    columns = ("95 % interval",) if known else ()
    return Table(
        title="COCO's twelve metrics, points",
        header=("metric", "points", *columns, "measured at"),
        rows=tuple(rows),
        left_columns=(0, 2 + len(columns)),
    )


def class_scores_table(analysis: Analysis, links: Sequence[str]) -> Table:
    """AP, counts, best threshold and calibration of every class; links: (K,) anchors that the names lead to."""
    rows, intervals = [], analysis.intervals
    calibrated = analysis.calibration.by_class if analysis.calibration else ()
    for k, (name, row) in enumerate(zip(analysis.scored.names(), analysis.evaluation.per_class)):
        best = analysis.thresholds.by_class[k]
        rows.append(
            TableRow(
                (
                    name,
                    points(row.ap),
                    *(() if intervals is None else (points_interval(intervals.classes[k]),)),
                    *(points(ap) for ap in (row.ap50, row.ap75, row.ap_small, row.ap_medium, row.ap_large)),
                    *(f"{count:,}" for count in (row.objects, row.images, row.detections)),
                    *(three_decimals(value) for value in best),
                    three_decimals(calibrated[k].ece) if calibrated else NOTHING,
                ),
                link=links[k],
            )
        )
    header = (
        "class", "AP", *(() if intervals is None else ("95 % interval",)),
        "AP50", "AP75", "APs", "APm", "APl", "objects", "images", "detections",
        "best threshold", "precision", "recall", "F1", "ECE",
    )  # fmt: skip
    return Table(
        title=f"All {len(rows)} classes" if len(rows) > 1 else "The class",
        header=header,
        rows=tuple(rows),
        left_columns=(0,),
        folded=len(rows) > LONG,
    )


def errors_table(analysis: Analysis) -> Table:
    """Number of errors of each type in every class."""
    kinds = [cost.kind for cost in analysis.errors.main]
    counts = analysis.errors.counts_TK.T.tolist()
    order = sorted(range(len(counts)), key=lambda k: -sum(counts[k]))
    names = analysis.scored.names()
    rows = [TableRow((names[k], *(f"{count:,}" for count in counts[k]))) for k in order]
    return Table(
        title="Errors of each type by class, most first",
        header=("class", *kinds),
        rows=tuple(rows),
        left_columns=(0,),
        folded=True,
    )


def confused_table(analysis: Analysis, most: int = 15) -> Table | None:
    """The pairs of classes that are confused most often; None where none are."""
    names = analysis.scored.names()
    rows = [
        TableRow((names[pair.true_class], names[pair.found_class], f"{pair.objects:,}", f"{pair.share:.1%}"))
        for pair in most_confused(analysis.confusion, most)
    ]
    if not rows:
        return None
    header = ("true class", "detected as", "objects", "share of the class")
    return Table(title="Most confused pairs of classes", header=header, rows=tuple(rows), left_columns=(0, 1))


def class_images_table(
    analysis: Analysis,
    worst: Sequence[Sequence[ClassImage]],
    order: Sequence[int],
    anchors: Mapping[int, str],
) -> Table:
    """The worst images of the classes at the indices `order`; anchors: names of the classes' first rows."""
    names, files = analysis.scored.names(), analysis.scored.objects.image_names_I
    rows = [
        TableRow(
            (names[k] if place == 0 else "", files[image.image], f"{image.false:,}", f"{image.unfound:,}"),
            anchor=anchors.get(k, "") if place == 0 else "",
        )
        for k in order
        for place, image in enumerate(worst[k])
    ]
    header = ("class", "image", "false", "not found")
    return Table(title="Images with most errors of each class", header=header, rows=tuple(rows), left_columns=(0, 1))


def ranked_images_table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Images in the given order, as `Analysis.image_row` returns them."""
    cells = [
        TableRow(
            (
                str(row["file_name"]),
                str(row["image_id"]),
                *(f"{row[key]:,}" for key in ("right", "false", "not_found")),
                three_decimals(row["f1"]),
                three_decimals(row["LRP"]),
            )
        )
        for row in rows
    ]
    return Table(
        title=title,
        header=("file", "image id", "right", "false", "not found", "F1", "LRP"),
        rows=tuple(cells),
        left_columns=(0,),
    )
