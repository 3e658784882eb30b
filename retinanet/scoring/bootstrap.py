"""The bootstrap over images: AP of resampled data sets, from matches and without matching again.

A resample draws as many images as the data set has, with replacement; all sets of detections get the same resamples,
so differences between them are paired. An image drawn m times counts as m separate images with the same objects and
detections, adjacent in the order of image ids. The result equals pycocotools on such a data set, ties included:
images and copies are ordered by image id; detections of one image, class and score keep their order within each copy.
They are listed copy by copy (`_list_copies`) only where both true and false positives are among them, since the order
matters nowhere else.

Why true positives suffice: interpolated precision is a maximum over the detections ahead, precision falls at a false
positive and rises through the copies of a true positive, so the maximum is at the last copy of some true positive. A
true positive of an image that was not drawn repeats the hits of the one before it at no higher precision, which does
not change the maximum.

Legend: as in `retinanet.scoring.matches`, and R resamples, B resamples of a block, S detections that count at an
area, P true positives, E detections that count at other thresholds but not at the current one, M metrics (AP_NAMES).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from retinanet.errors import ConfigError, DataError
from retinanet.scoring.matches import (
    AP_CELLS,
    AP_NAMES,
    AREAS,
    FALSE_POSITIVE,
    IGNORED,
    IOUS,
    RECALLS,
    TRUE_POSITIVE,
    ClassMatches,
    Matches,
)

BLOCK = 1 << 19
"""Detections x resamples per block: a few MB, so that a block stays in the CPU's cache."""

EVERY_COPY = -1

Ints = NDArray[np.int32]
Floats = NDArray[np.float64]


class _Rows(NamedTuple):
    """Detections of a class in the order of the resampled data set."""

    image_D: Ints
    copy_D: Ints
    """(D,) EVERY_COPY, or the one copy of the image (0, 1, ...) that this row represents."""
    outcome_ATD: NDArray[np.uint8]


class _Curve(NamedTuple):
    """Rows that matter at one area and IoU threshold."""

    hits_P: NDArray[np.intp]
    """Rows of the true positives."""
    counted_P: NDArray[np.intp]
    """Their indices among the rows that count at this area."""
    ignored_E: NDArray[np.intp]
    """Rows that count at this area but not at this threshold."""
    ignored_before_P: NDArray[np.intp]
    """Number of rows of ignored_E above each true positive."""


def draw_multiplicities(images: int, resamples: int, seed: int) -> Ints:
    """(R, I) int32: number of times each image is drawn; every row sums to I. The same arguments give the same draws.

    Raises ConfigError for no images or no resamples.
    """
    if images < 1 or resamples < 1:
        raise ConfigError(f"a bootstrap needs at least one image and one resample, not {images} and {resamples}")
    generator = np.random.default_rng(seed)
    rows = (np.bincount(generator.integers(0, images, images), minlength=images) for _ in range(resamples))
    return np.stack([row.astype(np.int32) for row in rows])


def resample(sets: Sequence[Matches], resamples: int = 1000, seed: int = 0) -> Floats:
    """(sets, R, M) AP_NAMES of each set of detections (arm and seed) on the same resamples; -1 as in pycocotools.

    Raises DataError where the sets do not have the same images and classes.
    """
    if not sets:
        return np.zeros((0, resamples, len(AP_NAMES)))
    categories = [found.category_id for found in sets[0].classes]
    for n, matches in enumerate(sets):
        same_images = np.array_equal(matches.image_ids_I, sets[0].image_ids_I)
        if not same_images or [found.category_id for found in matches.classes] != categories:
            what = "classes" if same_images else "images"
            raise DataError(
                f"detections 0 and {n} were matched against different {what}: "
                "evaluate every arm and seed on the same annotation file"
            )
    multiplicity_RI = draw_multiplicities(len(sets[0].image_ids_I), resamples, seed)
    return np.stack([weighted_metrics(matches, multiplicity_RI) for matches in sets])


def weighted_metrics(matches: Matches, multiplicity_RI: Ints) -> Floats:
    """(R, M) AP_NAMES with image i counted multiplicity[r, i] times; -1 where no class has an object that counts.

    multiplicity_RI: (R, I) int32 >= 0. One thread: about 11 s for 1000 resamples of 5000 images, 400,000 detections.
    """
    total_RM = np.zeros((len(multiplicity_RI), len(AP_NAMES)))
    classes_RM = np.zeros_like(total_RM)
    for found in matches.classes:
        value_RM = _class_metrics(found, multiplicity_RI)
        present_RM = ~np.isnan(value_RM)
        total_RM += np.where(present_RM, value_RM, 0.0)
        classes_RM += present_RM
    return np.where(classes_RM > 0, total_RM / np.maximum(classes_RM, 1), -1.0)


def _class_metrics(found: ClassMatches, multiplicity_RI: Ints) -> Floats:
    """(R, M) AP_NAMES of one class; NaN where the resample has no object that counts."""
    metrics_RM = np.full((len(multiplicity_RI), len(AP_NAMES)), np.nan)
    if found.objects_AN.size == 0:
        return metrics_RM
    objects_RA = multiplicity_RI[:, found.object_image_N].astype(np.float64) @ found.objects_AN.T.astype(np.float64)
    rows = _list_copies(found, int(multiplicity_RI.max(initial=0)))
    areas = [_area_curves(rows.outcome_ATD[a]) for a in range(len(AREAS))]
    block = max(1, BLOCK // max(1, len(rows.image_D)))
    for first in range(0, len(multiplicity_RI), block):
        part = slice(first, first + block)
        weight_BD = _row_weights(rows, multiplicity_RI[part])
        for a, (counted_S, curves) in enumerate(areas):
            ap_BT = _area_metrics(weight_BD, counted_S, curves, objects_RA[part, a])
            for m, (area, thresholds) in enumerate(AP_CELLS):
                if area == a:
                    metrics_RM[part, m] = ap_BT[:, thresholds].mean(axis=1)
    return metrics_RM


def _list_copies(found: ClassMatches, most_copies: int) -> _Rows:
    """The rows; ties within an image that include both true and false positives are listed copy by copy."""
    count = len(found.score_D)
    if count == 0:
        return _Rows(found.image_D, found.image_D, found.outcome_ATD)
    starts = np.r_[True, (np.diff(found.score_D) != 0) | (np.diff(found.image_D) != 0)]
    tie_D = np.cumsum(starts) - 1
    of_tie = np.flatnonzero(starts)
    hits_tie = np.logical_or.reduceat(found.outcome_ATD == TRUE_POSITIVE, of_tie, axis=2)
    misses_tie = np.logical_or.reduceat(found.outcome_ATD == FALSE_POSITIVE, of_tie, axis=2)
    mixed_tie: NDArray[np.bool_] = np.any(hits_tie & misses_tie, axis=(0, 1))
    mixed_D = mixed_tie[tie_D]
    times_D = np.where(mixed_D, max(1, most_copies), 1)
    row = np.repeat(np.arange(count), times_D)
    first = np.repeat(np.cumsum(times_D) - times_D, times_D)
    copy = np.where(mixed_D[row], np.arange(len(row)) - first, EVERY_COPY).astype(np.int32)
    order = np.lexsort((row, copy, tie_D[row]))
    row, copy = row[order], copy[order]
    return _Rows(found.image_D[row], copy, found.outcome_ATD[:, :, row])


def _row_weights(rows: _Rows, multiplicity_BI: Ints) -> Ints:
    """(B, D) int32: number of detections of the resampled data set that each row represents."""
    weight_BD = np.take(multiplicity_BI, rows.image_D, axis=1)
    single = np.flatnonzero(rows.copy_D != EVERY_COPY)
    if len(single):
        weight_BD[:, single] = weight_BD[:, single] > rows.copy_D[single]
    return weight_BD


def _area_curves(outcome_TD: NDArray[np.uint8]) -> tuple[NDArray[np.intp], list[_Curve]]:
    """(S,) rows that count at any threshold of an area, and the curve of each threshold."""
    counted_S = np.flatnonzero((outcome_TD != IGNORED).any(axis=0))
    curves = []
    for outcome_S in outcome_TD[:, counted_S]:
        counted_P = np.flatnonzero(outcome_S == TRUE_POSITIVE)
        ignored = np.flatnonzero(outcome_S == IGNORED)
        before_P = np.searchsorted(ignored, counted_P)
        curves.append(
            _Curve(
                hits_P=counted_S[counted_P],
                counted_P=counted_P,
                ignored_E=counted_S[ignored],
                ignored_before_P=before_P,
            )
        )
    return counted_S, curves


def _area_metrics(weight_BD: Ints, counted_S: NDArray[np.intp], curves: list[_Curve], objects_B: Floats) -> Floats:
    """(B, T) AP of one class at one area; NaN where objects_B is 0."""
    ap_BT = np.zeros((len(weight_BD), len(IOUS)))
    known_B = objects_B > 0
    if any(len(curve.hits_P) for curve in curves) and known_B.any():
        all_count = len(counted_S) == weight_BD.shape[1]
        weight_BS = weight_BD if all_count else np.take(weight_BD, counted_S, axis=1)
        above_BS = np.cumsum(weight_BS, axis=1, dtype=np.int32)
        for t, curve in enumerate(curves):
            if len(curve.hits_P) == 0:
                continue
            counted_BP = np.take(above_BS, curve.counted_P, axis=1)
            if len(curve.ignored_E):
                ignored_BE = np.zeros((len(weight_BD), len(curve.ignored_E) + 1), dtype=np.int32)
                np.cumsum(np.take(weight_BD, curve.ignored_E, axis=1), axis=1, out=ignored_BE[:, 1:])
                counted_BP -= np.take(ignored_BE, curve.ignored_before_P, axis=1)
            hits_BP = np.cumsum(np.take(weight_BD, curve.hits_P, axis=1), axis=1, dtype=np.int32)
            ap_BT[:, t] = _interpolated_ap(hits_BP, counted_BP, objects_B)
    ap_BT[~known_B] = np.nan
    return ap_BT


def _interpolated_ap(hits_BP: Ints, counted_BP: Ints, objects_B: Floats) -> Floats:
    """(B,) mean of interpolated precision over RECALLS, from hits and counted detections up to each true positive."""
    precision_BP = hits_BP / (counted_BP + np.spacing(1))
    best_ahead_BP = np.maximum.accumulate(precision_BP[:, ::-1], axis=1)[:, ::-1]
    recall_BP = hits_BP / np.maximum(objects_B, 1.0)[:, None]
    # RECALLS[q] is q / 100 up to rounding: an estimate at most one too high, then pycocotools' own comparison.
    last_reached_BP = (recall_BP * (len(RECALLS) - 1) + 1e-9).astype(np.int32)
    last_reached_BP -= np.take(RECALLS, last_reached_BP) > recall_BP
    newly_reached_BP = np.diff(last_reached_BP, axis=1, prepend=np.int32(-1))
    total_B: Floats = np.einsum("bp,bp->b", best_ahead_BP, newly_reached_BP)
    return total_B / len(RECALLS)
