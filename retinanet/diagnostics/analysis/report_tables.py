"""The report's tables. AP is in points from 0 to 100, shares and scores from 0 to 1."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from retinanet.display.document.blocks import Table, TableRow
from retinanet.display.numbers import NOTHING, points
from retinanet.scoring.analysis.analyse import Analysis
from retinanet.scoring.analysis.confusion import most_confused

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


def metrics_table(metrics: Mapping[str, float]) -> Table:
    """COCO's twelve metrics in two columns."""
    names = list(metrics)
    half = -(-len(names) // 2)
    rows = [
        TableRow(tuple(cell for name in pair for cell in (name, points(metrics[name]), MEANINGS.get(name, ""))))
        for pair in zip(names[:half], names[half:])
    ]
    return Table(
        title="COCO's twelve metrics, points",
        header=("precision", "points", "measured at", "recall", "points", "measured at"),
        rows=tuple(rows),
        left_columns=(0, 2, 3, 5),
    )


def class_scores_table(analysis: Analysis) -> Table:
    """Number, AP, counts, best threshold and calibration of every class."""
    rows = []
    calibrated = analysis.calibration.by_class if analysis.calibration else ()
    for k, (name, row) in enumerate(zip(analysis.scored.names(), analysis.evaluation.per_class)):
        best = analysis.thresholds.by_class[k]
        rows.append(
            TableRow(
                (
                    name,
                    str(k + 1),
                    *(points(ap) for ap in (row.ap, row.ap50, row.ap75, row.ap_small, row.ap_medium, row.ap_large)),
                    *(f"{count:,}" for count in (row.objects, row.images, row.detections)),
                    *(three_decimals(value) for value in best),
                    three_decimals(calibrated[k].ece) if calibrated else NOTHING,
                )
            )
        )
    header = (
        "class", "no.", "AP", "AP50", "AP75", "APs", "APm", "APl", "objects", "images", "detections",
        "best threshold", "precision", "recall", "F1", "ECE",
    )  # fmt: skip
    return Table(
        title=f"All {len(rows)} classes", header=header, rows=tuple(rows), left_columns=(0,), folded=len(rows) > LONG
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
