"""The report's tables. AP is in points from 0 to 100, shares and scores from 0 to 1."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from retinanet.diagnostics.analysis.analyse import Analysis
from retinanet.diagnostics.analysis.columns import Scored
from retinanet.diagnostics.analysis.confusion import most_confused
from retinanet.display.document.blocks import Table, TableRow

NOTHING = "–"
LONG = 30
"""Rows from which a table is folded."""
MEANINGS = {
    "AP": "mean over IoU 0.50 to 0.95",
    "AP50": "IoU 0.50",
    "AP75": "IoU 0.75",
    "APs": "objects under 32² pixels",
    "APm": "32² to 96²",
    "APl": "over 96²",
    "AR1": "1 detection an image",
    "AR10": "10 detections an image",
    "AR100": "100 detections an image",
    "ARs": "objects under 32² pixels",
    "ARm": "32² to 96²",
    "ARl": "over 96²",
}


def points(value: float) -> str:
    """A number from 0 to 1 as points; a dash for COCO's -1."""
    return NOTHING if value < 0 else f"{100 * value:.1f}"


def number(value: float | None, places: int = 3) -> str:
    """A number, or a dash for one that is not known."""
    return NOTHING if value is None or math.isnan(value) else f"{value:.{places}f}"


def metrics_table(metrics: Mapping[str, float]) -> Table:
    """COCO's twelve numbers in two columns."""
    names = list(metrics)
    half = -(-len(names) // 2)
    rows = [
        TableRow(tuple(cell for name in pair for cell in (name, points(metrics[name]), MEANINGS.get(name, ""))))
        for pair in zip(names[:half], names[half:])
    ]
    return Table(
        "COCO's twelve numbers, points",
        ("precision", "points", "measured at", "recall", "points", "measured at"),
        tuple(rows),
        (0, 2, 3, 5),
    )


def class_table(analysis: Analysis, scored: Scored) -> Table:
    """Every class with its number, AP, counts, calibration and best threshold."""
    rows = []
    calibrated = analysis.calibration.by_class if analysis.calibration else ()
    for k, (name, row) in enumerate(zip(scored.names(), analysis.classes)):
        best = analysis.thresholds.by_class[k]
        rows.append(
            TableRow(
                (
                    name,
                    str(k + 1),
                    *(points(ap) for ap in (row.ap, row.ap50, row.ap75, row.ap_small, row.ap_medium, row.ap_large)),
                    *(f"{count:,}" for count in (row.objects, row.images, row.detections)),
                    *(number(value) for value in best),
                    number(calibrated[k].ece) if calibrated else NOTHING,
                )
            )
        )
    header = (
        "class", "no.", "AP", "AP50", "AP75", "APs", "APm", "APl", "objects", "images", "detections",
        "best threshold", "precision", "recall", "F1", "ECE",
    )  # fmt: skip
    return Table(f"All {len(rows)} classes", header, tuple(rows), (0,), folded=len(rows) > LONG)


def errors_table(analysis: Analysis, scored: Scored) -> Table:
    """How many errors of each kind every class has."""
    kinds = [cost.kind for cost in analysis.errors.main]
    counts = analysis.errors.counts_TK.T.tolist()
    order = sorted(range(len(counts)), key=lambda k: -sum(counts[k]))
    names = scored.names()
    rows = [TableRow((names[k], *(f"{count:,}" for count in counts[k]))) for k in order]
    return Table("Errors of each kind by class, most first", ("class", *kinds), tuple(rows), (0,), folded=True)


def confused_table(analysis: Analysis, scored: Scored, most: int = 15) -> Table | None:
    """The pairs of classes most often confused; None where none is."""
    names = scored.names()
    rows = [
        TableRow((names[pair.true_class], names[pair.found_class], f"{pair.objects:,}", f"{pair.share:.1%}"))
        for pair in most_confused(analysis.confusion, most)
    ]
    if not rows:
        return None
    header = ("is", "detected as", "objects", "of that class")
    return Table("Most confused pairs of classes", header, tuple(rows), (0, 1))


def images_table(title: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Images of a list, by file name."""
    cells = [
        TableRow(
            (
                str(row["file_name"]),
                str(row["image_id"]),
                *(f"{row[key]:,}" for key in ("right", "false", "not_found")),
                number(row["f1"]),
                number(row["LRP"]),
            )
        )
        for row in rows
    ]
    return Table(title, ("file", "image id", "right", "false", "not found", "F1", "LRP"), tuple(cells), (0,))
