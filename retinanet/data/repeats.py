"""Repeat factors: images of rare classes occur several times in an epoch (LVIS: Gupta et al., arXiv 1908.03195).

Legend: I images, K classes, N objects.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from retinanet.data.coco import ImageRecord


def class_factors(images: Sequence[ImageRecord], classes: int, threshold: float) -> NDArray[np.float64]:
    """(K,) r(c) = max(1, sqrt(t / f(c))); f: share of the images with an object of the class; 1 where none has one.

    Crowd regions do not count.
    """
    _, class_M = _occurrences(images, classes)
    share_K = np.bincount(class_M, minlength=classes) / max(len(images), 1)
    wanted_K = np.sqrt(threshold / np.maximum(share_K, np.finfo(np.float64).tiny))
    return np.where(share_K > 0, np.maximum(1.0, wanted_K), 1.0)


def repeat_factors(images: Sequence[ImageRecord], classes: int, threshold: float | None) -> NDArray[np.float64] | None:
    """(I,) times that each image occurs in an epoch on average: the largest factor of its classes, 1 without objects.

    threshold: t of the paper; None: no image is repeated, and so is the result.
    """
    if threshold is None:
        return None
    image_M, class_M = _occurrences(images, classes)
    factor_I = np.ones(len(images))
    np.maximum.at(factor_I, image_M, class_factors(images, classes, threshold)[class_M])
    return factor_I


def epoch_images(images: Sequence[ImageRecord], classes: int, threshold: float | None) -> int:
    """Images of an epoch, repeated ones counted each time, on average over epochs."""
    factor_I = repeat_factors(images, classes, threshold)
    return len(images) if factor_I is None else round(float(factor_I.sum()))


def rounded_at_random(factor_I: NDArray[np.float64], seed: int, epoch: int) -> NDArray[np.int64]:
    """(I,) times that each image occurs in this epoch: its factor rounded up with the probability of its fraction.

    An image's number depends on its factor, the seed, the epoch and its index only.
    """
    whole_I = np.floor(factor_I)
    draw_I = np.random.default_rng([seed, epoch, 0, 0, 1]).random(len(factor_I))
    return (whole_I + (draw_I < factor_I - whole_I)).astype(np.int64)


def _occurrences(images: Sequence[ImageRecord], classes: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(M,) image and class indices: each pair of an image and a class in it once."""
    counts_I = np.array([len(image.classes_G) for image in images], dtype=np.int64)
    class_N = np.concatenate([np.zeros(0, np.int64), *(image.classes_G for image in images)])
    image_N = np.repeat(np.arange(len(images)), counts_I)
    pairs_M = np.unique(image_N * classes + class_N)
    return pairs_M // classes, pairs_M % classes
