"""The pictures of a run: ground truth next to predictions, always on the same images, and curves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.data.coco import CocoDataset, ImageRecord
from retinanet.data.images import decode_image
from retinanet.display.drawing import (
    SOLID,
    Boxes,
    BoxStyle,
    class_colors,
    contact_sheet,
    draw_boxes,
    draw_ground_truth_and_predictions,
    fit,
    save_picture,
)
from retinanet.errors import DataError
from retinanet.run.folder import RunFolder
from retinanet.run.metric_rows import read_rows
from retinanet.run.metrics import RunLog
from retinanet.structures import Category

MOST_WIDTH = 1400
"""Pixels of an image's ground truth and predictions in the overview."""


class PictureOptions(NamedTuple):
    """How many validation images are drawn, and the score from which detections are shown."""

    pictures: int
    shown_score: float


def boxes_of_results(results: Sequence[dict[str, Any]], categories: tuple[Category, ...]) -> Boxes:
    """COCO results of one image as boxes to draw, in the stored image's frame."""
    colors = class_colors(len(categories))
    index = {category.id: k for k, category in enumerate(categories)}
    classes = [index[result["category_id"]] for result in results]
    corners = [(x, y, x + w, y + h) for x, y, w, h in (result["bbox"] for result in results)]
    return Boxes(
        boxes_D4=np.array(corners, dtype=np.float64).reshape(-1, 4),
        colors=[colors[k] for k in classes],
        labels=[categories[k].name for k in classes],
        scores=[result["score"] for result in results],
    )


def draw_results(
    image_HW3: NDArray[np.uint8],
    results: Sequence[dict[str, Any]],
    categories: tuple[Category, ...],
    least_score: float,
    style: BoxStyle = SOLID,
) -> NDArray[np.uint8]:
    """An image with the results that score at least `least_score`."""
    shown = [result for result in results if result["score"] >= least_score]
    return draw_boxes(image_HW3, boxes_of_results(shown, categories), style)


def evenly_spaced(records: Sequence[ImageRecord], count: int) -> list[ImageRecord]:
    """`count` records with objects, evenly spread over the data set; the same at every evaluation."""
    filled = [record for record in records if len(record.boxes_G4)]
    if len(filled) <= count:
        return filled
    return [filled[i * len(filled) // count] for i in range(count)]


def draw_evaluation(
    folder: RunFolder,
    dataset: CocoDataset,
    results: list[dict[str, Any]],
    options: PictureOptions,
    log: RunLog,
    step: int,
) -> None:
    """Write pictures/<image>.jpg and the overview of some validation images, and log them to TensorBoard."""
    records = evenly_spaced(dataset.images, options.pictures)
    by_image = {record.id: [result for result in results if result["image_id"] == record.id] for record in records}
    colors = class_colors(len(dataset.categories))
    panels = []
    for record in records:
        classes = record.classes_G.tolist()
        truth = Boxes(record.boxes_G4, [colors[k] for k in classes], [dataset.categories[k].name for k in classes])
        found = boxes_of_results(by_image[record.id], dataset.categories)
        image = decode_image(record.path, dataset.depth_range, warn=False).permute(1, 2, 0).numpy()
        panel = draw_ground_truth_and_predictions(
            image, truth, found, threshold=options.shown_score, caption=f"{record.path.name}, step {step}"
        )
        save_picture(folder.pictures / f"{record.id:012d}.jpg", panel)
        log.image(step, f"ground_truth_left_predictions_right/{record.path.stem}", panel)
        panels.append(panel)
    if panels:
        # Of images of many sizes, the usual one decides, so that no large one takes the sheet.
        width = min(int(np.median([panel.shape[1] for panel in panels])), MOST_WIDTH)
        shown = [fit(panel, width, width * 3 // 4) for panel in panels]
        save_picture(folder.pictures / "overview.jpg", contact_sheet(shown, columns=2))


def draw_run_curves(folder: RunFolder) -> None:
    """Write pictures/curves.png from the run's metrics."""
    draw_curves(Path(folder.metrics), folder.pictures / "curves.png")


def draw_curves(metrics_jsonl: Path, out: Path) -> None:
    """Losses, learning rate and AP over steps of one run as a PNG or JPEG.

    Raises DataError where the file has no training rows; otherwise as `metric_rows.read_rows` and
    `drawing.save_picture`.
    """
    # Imported here: half a second that only this function needs.
    from retinanet.display.figures import COLORS, FONT, new_figure, save_figure, tidy

    rows = read_rows(metrics_jsonl)
    curves = [
        ("loss", "train", {"loss": "total", "loss_class": "class", "loss_box": "box"}),
        ("learning rate", "train", {"lr": ""}),
        ("AP", "eval", {"AP": "AP", "AP50": "AP50"}),
    ]
    panels = [
        panel for panel in curves if any(row["kind"] == panel[1] and panel[2].keys() & row.keys() for row in rows)
    ]
    if not panels:
        raise DataError(f"{metrics_jsonl}: has no rows to draw; train for at least log.every steps first")
    figure = new_figure(9, 2.6 * len(panels) + 0.4)
    all_axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (name, kind, keys) in zip(all_axes, panels):
        drawn: list[float] = []
        for (key, label), color in zip(keys.items(), COLORS):
            points = [(row["step"], row[key]) for row in rows if row["kind"] == kind and row.get(key, -1) >= 0]
            steps, values = [step for step, _ in points], [value for _, value in points]
            marker = "o" if kind == "eval" or len(points) < 3 else ""
            axes.plot(steps, values, label=label, marker=marker, markersize=4, color=color)
            drawn += values
        tidy(axes, "step" if axes is all_axes[-1] else "", name)
        if kind == "eval":
            axes.set_ylim(0, 1)
        elif name == "loss" and min(drawn, default=0) > 0 and max(drawn) > 30 * float(np.median(drawn)):
            axes.set_yscale("log")
        if len(keys) > 1:
            # Matplotlib's "best" does not see a single point.
            axes.legend(loc="upper left" if kind == "eval" else "best", fontsize=FONT - 1, frameon=False)
    save_figure(figure, out)
