"""Dimension clusters: k-means over box shapes with the distance 1 - IoU (YOLO9000, arXiv 1612.08242, section 2).

Legend: N shapes, K clusters, 2 = (width, height) in any unit.
"""

import numpy as np
from numpy.typing import NDArray

MOST_ROUNDS = 100

Floats = NDArray[np.float64]


def shape_iou(a_N2: Floats, b_K2: Floats) -> Floats:
    """(N, K) IoU of boxes that share one centre; sides must be above 0."""
    shared_NK = np.minimum(a_N2[:, None], b_K2[None]).prod(axis=2)
    return shared_NK / (a_N2.prod(axis=1)[:, None] + b_K2.prod(axis=1) - shared_NK)


def cluster_shapes(shapes_N2: Floats, clusters: int, seed: int) -> Floats:
    """(K, 2) mean width and height of each cluster, in rising area; at least one shape is needed.

    Starts as k-means++ does, from draws that depend on `seed` alone. A cluster that loses all its shapes stays where
    it was, so with fewer distinct shapes than clusters some coincide.
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
