"""The numbers behind every plot of the report, as CSV files."""

from pathlib import Path

from retinanet.files import CsvValue, write_csv
from retinanet.scoring.analysis.analyse import Analysis
from retinanet.scoring.matches import RECALLS


def write_plot_data(analysis: Analysis, folder: Path) -> None:
    """Write one CSV file per plot, with the plot's name, into the existing `folder`. All numbers are in 0..1."""
    names = analysis.scored.names()
    precision: list[list[CsvValue]] = []
    for curve in analysis.curves:
        columns = [("mean of classes", curve.mean_Q)] if curve.mean_Q is not None else []
        columns += [(names[k], curve.class_QK[:, k]) for k in range(len(names)) if curve.class_QK[0, k] > -1]
        for name, values in columns:
            precision += [[curve.iou, name, recall, value] for recall, value in zip(RECALLS.tolist(), values.tolist())]
    write_csv(folder / "precision_recall.csv", ("iou", "class", "recall", "precision"), precision)
    class_header = ("id", "class", "AP", "AP50", "AP75", "APs", "APm", "APl", "objects", "images", "detections")
    write_csv(folder / "class_ap.csv", class_header, analysis.evaluation.per_class)
    groups: list[list[CsvValue]] = [
        ["side, pixels", g.name, "", g.objects, g.ap, g.ap50, "", ""] for g in analysis.sizes
    ]
    groups += [["objects in the image", g.name, g.images, g.objects, g.ap, g.ap50, "", ""] for g in analysis.crowding]
    groups += [["IoU with neighbour", g.name, "", g.objects, "", "", g.found, g.found_from] for g in analysis.overlaps]
    group_header = ("by", "group", "images", "objects", "AP", "AP50", "found", "found_from_threshold")
    write_csv(folder / "size_and_crowding.csv", group_header, groups)
    costs = [*analysis.errors.main, *analysis.errors.special]
    write_csv(folder / "errors.csv", ("error", "count", "AP50_cost"), costs)
    labels = [*names, "background"]
    matrix = [[label, *row] for label, row in zip(labels, analysis.confusion.counts.tolist())]
    write_csv(folder / "confusion.csv", ("true class", *labels), matrix)
    if analysis.calibration is not None:
        bins: list[list[CsvValue]] = []
        for name, found in [("all", analysis.calibration.overall), *zip(names, analysis.calibration.by_class)]:
            parts = (found.edges[:-1], found.edges[1:], found.count_B, found.score_B, found.right_B)
            bins += [[name, *values] for values in zip(*(part.tolist() for part in parts))]
        bin_header = ("class", "score from", "score to", "detections", "mean score", "right")
        write_csv(folder / "calibration.csv", bin_header, bins)
    sweep: list[list[CsvValue]] = []
    for name, curve_over_scores in [("all", analysis.thresholds.curve), *zip(names, analysis.thresholds.class_curves)]:
        sweep += [[name, *values] for values in zip(*(part.tolist() for part in curve_over_scores))]
    write_csv(folder / "thresholds.csv", ("class", "threshold", "precision", "recall", "f1"), sweep)
