"""pictures/data.png: what the training data hold, in the frame that the network sees."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter
from numpy.typing import NDArray

from retinanet.data.coco import CocoDataset, ImageRecord
from retinanet.data.transforms import ResizeRule
from retinanet.detection.anchors import AnchorSpec, cell_anchors
from retinanet.display.drawing import class_colors
from retinanet.display.figures import COLORS, FONT, INK, MUTED, new_figure, save_figure, shortened, tidy
from retinanet.files import data_title

MOST_IMAGES = 20_000
"""Of a larger data set this many images are shown, evenly spread over it."""
MOST_POINTS = 5_000
"""Boxes in the scatter plot."""
MOST_CLASSES = 20
"""Classes by name, the most frequent ones."""
MOST_OBJECTS = 40
"""Images with more objects share the last bar."""
FAR = 2**0.5
"""A square box whose side differs by this factor from an anchor's has an IoU of 0.5 with it at best."""


class DataColumns(NamedTuple):
    """N boxes and I images of a data set as arrays."""

    classes_N: NDArray[np.int64]
    sizes_N2: NDArray[np.float64]
    """Width and height in pixels of the resized image."""
    centres_N2: NDArray[np.float64]
    """x and y as fractions (0..1) of the image."""
    objects_I: NDArray[np.int64]
    stored_I2: NDArray[np.float64]
    """Width and height of the images as stored."""


def draw_data(path: Path, train_set: CocoDataset, resize_rule: ResizeRule, spec: AnchorSpec) -> None:
    """Write the picture: classes, objects of an image, sizes, shapes and centres of the boxes, sizes of the images."""
    columns, anchors_C2 = data_columns(train_set.images, resize_rule), anchor_shapes(spec)
    figure = new_figure(13, 7.6)
    ((classes, counts, sizes), (shapes, centres, images)) = figure.subplots(2, 3)
    _draw_classes(classes, columns, [category.name for category in train_set.categories])
    _draw_counts(counts, columns)
    _draw_sizes(sizes, columns, anchors_C2)
    _draw_shapes(shapes, columns, anchors_C2)
    _draw_centres(centres, columns)
    _draw_images(images, columns)
    shown = min(len(train_set.images), len(columns.objects_I))
    of = f"{shown:,} of " if shown < len(train_set.images) else ""
    title = f"{shortened(data_title(train_set.annotation_file), 90)}: {of}{len(train_set.images):,} images"
    figure.suptitle(title, fontsize=FONT + 2, color=INK, x=0.01, ha="left")
    save_figure(figure, path)


def anchor_shapes(spec: AnchorSpec) -> NDArray[np.float64]:
    """(C, 2) widths and heights of the anchors of all levels, pixels of the network's input."""
    cells = [cell_anchors(size, stride, spec).numpy() for size, stride in zip(spec.sizes, spec.strides, strict=True)]
    boxes_C4 = np.concatenate(cells).astype(np.float64)
    return boxes_C4[:, 2:] - boxes_C4[:, :2]


def data_columns(records: tuple[ImageRecord, ...], resize_rule: ResizeRule) -> DataColumns:
    """The boxes of at most MOST_IMAGES images, resized as at evaluation; random zoom is not in it."""
    step = max(1, -(-len(records) // MOST_IMAGES))
    chosen = records[::step]
    shorter = resize_rule.shorter_side[-1]
    fitted = [resize_rule.fitted(record.height, record.width, shorter) for record in chosen]
    stored_I2 = np.array([(record.width, record.height) for record in chosen], dtype=np.float64).reshape(-1, 2)
    resized_I2 = np.array([(width, height) for height, width in fitted], dtype=np.float64).reshape(-1, 2)
    objects_I = np.array([len(record.boxes_G4) for record in chosen], dtype=np.int64)
    boxes_N4 = np.concatenate([np.zeros((0, 4)), *(record.boxes_G4 for record in chosen)]).astype(np.float64)
    classes_N = np.concatenate([np.zeros(0, dtype=np.int64), *(record.classes_G for record in chosen)])
    image_N = np.repeat(np.arange(len(chosen)), objects_I)
    stored_N2 = stored_I2[image_N]
    return DataColumns(
        classes_N=classes_N,
        sizes_N2=(boxes_N4[:, 2:] - boxes_N4[:, :2]) / stored_N2 * resized_I2[image_N],
        centres_N2=(boxes_N4[:, 2:] + boxes_N4[:, :2]) / 2 / stored_N2,
        objects_I=objects_I,
        stored_I2=stored_I2,
    )


def _draw_classes(axes: Axes, columns: DataColumns, names: list[str]) -> None:
    counts_K = np.bincount(columns.classes_N, minlength=len(names))
    order = np.argsort(-counts_K, kind="stable")[:MOST_CLASSES]
    colors = class_colors(len(names))
    rows = np.arange(len(order))
    axes.barh(rows, counts_K[order], color=[np.divide(colors[k], 255) for k in order], height=0.75)
    axes.set_yticks(rows, [shortened(names[k], 22) for k in order])
    axes.invert_yaxis()
    most = int(counts_K.max(initial=1))
    for row, count in zip(rows.tolist(), counts_K[order].tolist()):
        axes.annotate(f" {count:,}", (count, row), va="center", fontsize=FONT - 2, color=MUTED if count else "#c00000")
    rest = len(names) - len(order)
    title = f"objects of each class{f' (of {len(names)}, the {len(order)} most frequent)' if rest > 0 else ''}"
    tidy(axes, "objects", "", title)
    axes.set_xlim(0, most * 1.18)
    axes.set_ylim(max(len(order), 4) - 0.4, -0.6)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if len(order) > 12:
        axes.tick_params(axis="y", labelsize=FONT - 3)


def _draw_counts(axes: Axes, columns: DataColumns) -> None:
    counts = columns.objects_I.clip(max=MOST_OBJECTS)
    images_C = np.bincount(counts, minlength=2)
    empty = int(images_C[0])
    colors = [COLORS[1], *[COLORS[0]] * (len(images_C) - 1)]
    axes.bar(np.arange(len(images_C)), images_C, color=colors, width=0.85)
    share = empty / max(len(columns.objects_I), 1)
    mean = columns.objects_I.mean() if len(columns.objects_I) else 0.0
    without = f"{empty:,} images ({share:.1%}) without objects" if empty else "no image without objects"
    tidy(axes, f"objects of an image (mean {mean:.1f})", "images", without)
    axes.xaxis.set_major_locator(MaxNLocator(9, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    if columns.objects_I.max(initial=0) > MOST_OBJECTS:
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0f}+" if x == MOST_OBJECTS else f"{x:.0f}"))


def _draw_sizes(axes: Axes, columns: DataColumns, anchors_C2: NDArray[np.float64]) -> None:
    sides_N = np.sqrt(columns.sizes_N2.prod(axis=1)).clip(min=0.5)
    anchors = np.unique(np.sqrt(anchors_C2.prod(axis=1)).round(1))
    low, high = sides_N.min(initial=anchors[0]), sides_N.max(initial=anchors[-1])
    axes.hist(sides_N, bins=np.geomspace(low * 0.9, high * 1.1, 40).tolist(), color=COLORS[0])
    for side in anchors.tolist():
        axes.axvline(side, color=COLORS[1], linewidth=0.9, linestyle=(0, (4, 2)))
    far_N = (sides_N < anchors[0] / FAR) | (sides_N > anchors[-1] * FAR)
    far = f"; {far_N.mean():.1%} far off" if far_N.any() else ""
    _log_pixels(axes, "x")
    tidy(axes, "side (square root of the area), pixels of the input", "boxes", f"box sizes; dashed: anchors{far}")


def _draw_shapes(axes: Axes, columns: DataColumns, anchors_C2: NDArray[np.float64]) -> None:
    step = max(1, -(-len(columns.classes_N) // MOST_POINTS))
    sizes, classes = columns.sizes_N2[::step].clip(min=0.5), columns.classes_N[::step]
    colors = np.divide(class_colors(int(columns.classes_N.max(initial=0)) + 1), 255)
    axes.scatter(sizes[:, 0], sizes[:, 1], s=7, alpha=0.5, color=colors[classes], linewidths=0, rasterized=True)
    axes.scatter(anchors_C2[:, 0], anchors_C2[:, 1], s=34, marker="+", color=INK, linewidths=1.1, label="anchors")
    _log_pixels(axes, "x")
    _log_pixels(axes, "y")
    axes.legend(loc="upper left", fontsize=FONT - 1, frameon=False, handletextpad=0.2, borderaxespad=0.2)
    tidy(axes, "width, pixels of the input", "height", "shapes of the boxes, by class")


def _draw_centres(axes: Axes, columns: DataColumns) -> None:
    bins = 40 if len(columns.centres_N2) > 2_000 else 20
    counts, _, _ = np.histogram2d(columns.centres_N2[:, 1], columns.centres_N2[:, 0], bins=bins, range=[(0, 1), (0, 1)])
    axes.imshow(counts, extent=(0, 1, 1, 0), cmap="viridis", aspect="auto", interpolation="nearest")
    tidy(axes, "x / width", "y / height", "centres of the boxes in the image")
    axes.grid(visible=False)


def _draw_images(axes: Axes, columns: DataColumns) -> None:
    sizes_S2, counts_S = np.unique(columns.stored_I2, axis=0, return_counts=True)
    area = 12 + 220 * np.sqrt(counts_S / max(counts_S.max(initial=1), 1))
    axes.scatter(sizes_S2[:, 0], sizes_S2[:, 1], s=area, alpha=0.45, color=COLORS[2], linewidths=0)
    same = f"all {sizes_S2[0, 0]:.0f} x {sizes_S2[0, 1]:.0f}" if len(sizes_S2) == 1 else f"{len(sizes_S2):,} sizes"
    tidy(axes, "width, pixels", "height, pixels", f"images as stored: {same}")
    high = float(sizes_S2.max(initial=1)) * 1.12
    axes.set_xlim(0, high)
    axes.set_ylim(high, 0)
    axes.set_aspect("equal")
    axes.xaxis.set_major_locator(MaxNLocator(6))


def _log_pixels(axes: Axes, axis: str) -> None:
    """A logarithmic axis with powers of two as its ticks."""
    scaled = axes.xaxis if axis == "x" else axes.yaxis
    (axes.set_xscale if axis == "x" else axes.set_yscale)("log", base=2)
    scaled.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    scaled.set_minor_formatter(NullFormatter())
