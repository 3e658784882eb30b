"""Anchors that fit a data set better, in terms of a config: one size a level, and scales and ratios for all levels.

The numbers of scales and aspect ratios stay the same, and with them the size of the network. The search maximises the
number of boxes that reach the positive threshold, then the mean best IoU, on the actual grid of cells (`recall`): a
size that suits the boxes but not the stride of its level gains nothing. It starts from the config's own anchors and
from dimension clusters, and climbs one number at a time.

Legend: N boxes, 2 = (width, height) in canvas pixels.
"""

import shlex
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from retinanet.detection.anchors import AnchorSpec
from retinanet.diagnostics.anchors.recall import AnchorRecall, PlacedBoxes, anchor_recall, best_shapes, nearest_cells

MOST_ROUNDS = 100

SAMPLE = 4000
"""Boxes that the search uses, drawn at random; its result is judged on all boxes."""
STEPS = (0.3, 0.1, 0.03, 0.01)
"""Relative changes that the search tries, each until none improves the fit."""
LEAST_GAIN = 0.002
"""Minimum gain in mean best IoU that justifies training another network."""
LOST_BOX = 5.0
"""Weight of a box at the positive threshold against the mean best IoU: far more than a better fit is worth."""

Floats = NDArray[np.float64]


def suggest_anchors(
    placed: PlacedBoxes, spec: AnchorSpec, now: AnchorRecall, seed: int
) -> tuple[AnchorSpec, AnchorRecall] | None:
    """Anchors with a higher mean best IoU than `spec`, and their recall; None where none are found.

    now: the recall of `spec`. The suggestion is rounded as it is written, measured on all boxes, gains at least
    LEAST_GAIN and leaves no more boxes below the positive threshold. The same arguments give the same anchors.
    """
    negative, positive = now.thresholds
    usable = np.flatnonzero((placed.sides_N2 > 0).all(axis=1))
    if len(usable) == 0:
        return None
    sample = np.sort(np.random.default_rng(seed).permutation(usable)[:SAMPLE])
    shown = placed.chosen(sample)
    distances_LN2 = nearest_cells(shown, spec)
    sides_N2 = shown.sides_N2

    def value(candidate: AnchorSpec) -> float:
        iou_N = best_shapes(sides_N2, distances_LN2, candidate).iou_N
        return float(iou_N.mean() + LOST_BOX * (iou_N >= positive).mean())

    best: tuple[AnchorSpec, AnchorRecall] | None = None
    reached = now.overall.mean_iou + LEAST_GAIN
    for start in (spec, from_clusters(sides_N2, spec, seed)):
        found = written(climb(within_bounds(start), value))
        recall = anchor_recall(placed, found, positive_iou=positive, negative_iou=negative)
        if recall.overall.mean_iou >= reached and recall.overall.positive >= now.overall.positive:
            best, reached = (found, recall), recall.overall.mean_iou
    return best


def from_clusters(sides_N2: Floats, spec: AnchorSpec, seed: int) -> AnchorSpec:
    """Anchors with the numbers of sizes, scales and ratios of `spec`, from clusters of the boxes' areas and shapes."""
    areas_N = sides_N2.prod(axis=1)
    shapes_K2 = cluster_shapes(sides_N2 / np.sqrt(areas_N)[:, None], len(spec.aspect_ratios), seed)
    squares_N2 = np.sqrt(areas_N)[:, None].repeat(2, axis=1)
    ladder = cluster_shapes(squares_N2, len(spec.sizes) * len(spec.scales), seed)[:, 0]
    steps = ladder.reshape(len(spec.sizes), len(spec.scales))
    scales = np.exp(np.log(steps / steps[:, :1]).mean(axis=0))
    ratios = np.sort(shapes_K2[:, 1] / shapes_K2[:, 0])
    return spec._replace(
        sizes=tuple(steps[:, 0].tolist()), scales=tuple(scales.tolist()), aspect_ratios=tuple(ratios.tolist())
    )


def within_bounds(spec: AnchorSpec) -> AnchorSpec:
    """Sizes that rise from level to level and are at least the stride, below which cells leave gaps."""
    sizes = [max(size, float(stride)) for size, stride in zip(sorted(spec.sizes), spec.strides, strict=True)]
    return spec._replace(sizes=tuple(sizes))


def climb(start: AnchorSpec, value: Callable[[AnchorSpec], float]) -> AnchorSpec:
    """The local maximum that a coordinate search by factors reaches from `start`, within the bounds."""
    lengths = (len(start.sizes), len(start.scales), len(start.aspect_ratios))
    numbers = [*start.sizes, *start.scales, *start.aspect_ratios]
    # The first scale stays fixed: scaling all sizes has the same effect.
    free = [place for place in range(len(numbers)) if place != lengths[0]]

    def spec_of(values: list[float]) -> AnchorSpec:
        a, b = lengths[0], lengths[0] + lengths[1]
        return start._replace(sizes=tuple(values[:a]), scales=tuple(values[a:b]), aspect_ratios=tuple(values[b:]))

    reached = value(start)
    for step in STEPS:
        moved = True
        while moved:
            moved = False
            for place in free:
                for factor in (1 + step, 1 / (1 + step)):
                    tried = numbers.copy()
                    tried[place] *= factor
                    candidate = spec_of(tried)
                    if candidate == within_bounds(candidate) and (now := value(candidate)) > reached + 1e-6:
                        numbers, reached, moved = tried, now, True
                        break
    return spec_of(numbers)


def written(spec: AnchorSpec) -> AnchorSpec:
    """The same anchors with scales rising from 1 and rising aspect ratios, every number rounded to three digits."""
    base = min(spec.scales)
    sizes = tuple(_digits(size * base) for size in spec.sizes)
    scales = tuple(sorted(_digits(scale / base) for scale in spec.scales))
    return spec._replace(
        sizes=sizes, scales=scales, aspect_ratios=tuple(sorted(_digits(ratio) for ratio in spec.aspect_ratios))
    )


def as_arguments(spec: AnchorSpec) -> str:
    """`key=value` words that set these anchors, quoted for a shell, on one line."""
    return " ".join(shlex.quote(f"model.anchors.{key}={values}") for key, values in _named(spec))


def as_yaml(spec: AnchorSpec) -> str:
    """The `anchors:` lines that set these anchors, indented as they stand under a config's `model:`."""
    return "\n".join(["  anchors:", *(f"    {key}: {values}" for key, values in _named(spec))])


def _named(spec: AnchorSpec) -> tuple[tuple[str, str], ...]:
    """Keys of `model.anchors` and their values as YAML has them."""
    named = (("sizes", spec.sizes), ("scales", spec.scales), ("aspect_ratios", spec.aspect_ratios))
    return tuple((key, f"[{', '.join(f'{value:g}' for value in values)}]") for key, values in named)


def _digits(value: float) -> float:
    return float(f"{value:.3g}")


def shape_iou(a_N2: Floats, b_K2: Floats) -> Floats:
    """(N, K) IoU of boxes with a common centre; sides must be above 0."""
    shared_NK = np.minimum(a_N2[:, None], b_K2[None]).prod(axis=2)
    iou_NK: Floats = shared_NK / (a_N2.prod(axis=1)[:, None] + b_K2.prod(axis=1) - shared_NK)
    return iou_NK


def cluster_shapes(shapes_N2: Floats, clusters: int, seed: int) -> Floats:
    """(K, 2) mean width and height of each cluster, in rising area; at least one shape is needed.

    k-means by IoU with the initialisation of k-means++, whose draws depend on `seed` only. A cluster that loses all its
    shapes stays where it was, so with fewer distinct shapes than clusters some coincide.
    """
    centres_K2 = _spread_start(shapes_N2, clusters, np.random.default_rng(seed))
    nearest_N = np.full(len(shapes_N2), -1)
    for _ in range(MOST_ROUNDS):
        now_N = shape_iou(shapes_N2, centres_K2).argmax(axis=1)
        if np.array_equal(now_N, nearest_N):
            break
        nearest_N = now_N
        counts_K = np.bincount(nearest_N, minlength=clusters)
        for axis in range(2):
            sums_K = np.bincount(nearest_N, shapes_N2[:, axis], minlength=clusters)
            centres_K2[:, axis] = np.where(counts_K > 0, sums_K / np.maximum(counts_K, 1), centres_K2[:, axis])
    return centres_K2[np.argsort(centres_K2.prod(axis=1), kind="stable")]


def _spread_start(shapes_N2: Floats, clusters: int, rng: np.random.Generator) -> Floats:
    """K of the shapes, each next one drawn in proportion to its squared distance from those before (k-means++)."""
    chosen = [int(rng.integers(len(shapes_N2)))]
    distance_N = np.ones(len(shapes_N2))
    for _ in range(clusters - 1):
        distance_N = np.minimum(distance_N, 1 - shape_iou(shapes_N2, shapes_N2[chosen[-1:]])[:, 0])
        weight_N = distance_N.clip(0) ** 2
        total = weight_N.sum()
        chosen.append(int(rng.choice(len(shapes_N2), p=weight_N / total)) if total > 0 else chosen[0])
    return shapes_N2[chosen].copy()
