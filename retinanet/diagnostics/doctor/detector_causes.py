"""Causes of a low AP that detections or the detector itself prove."""

import math

import numpy as np
from numpy.typing import NDArray

from retinanet.diagnostics.doctor.facts import Evidence, FoundFacts, SampleScore, SplitFacts
from retinanet.training.causes import Finding, starts_from_weights

OFTEN = 0.6
"""Part of a class's found objects that are detected as one other class from which its id is taken for that class's."""
RARELY = 0.1
FEWEST_FOUND = 5
"""Found objects of a class from which its detections are judged."""
WORKS = 0.3
"""AP50 on training images from which a detector has learned them."""
FAILS = 0.3
"""Part of the training images' AP50 below which val fails."""
HIDDEN = 0.25
"""Part of the AP50 with every detection below which the score threshold hides them."""
LEAST_AP50, MEASURABLE_AP50 = 0.05, 0.01
USUAL_THRESHOLD = 0.05
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
FAR_MEAN, FAR_FACTOR = 30.0, 2.0
"""Distance in levels, and factor, from which a mean or a deviation is not ImageNet's."""
WIDE_INPUT = 10.0
"""Deviation of normalised pixels above which they are not normalised."""
OTHER_SIZE, OTHER_LEVELS = 2.0, 20.0
"""Factor of sizes, and difference of mean pixels, from which images are of another kind."""
BRIGHTNESS_DEVIATIONS = 2.0


def foreign_detections(evidence: Evidence) -> Finding | None:
    """The detections have ids that the ground truth does not have."""
    found = evidence.found
    if found is None or found.problem is None:
        return None
    return Finding(
        title="the run's detections do not belong to this ground truth",
        proof=found.problem,
        remedy="data.val_annotations=FILE",
        advice="give the val annotations of the training:",
    )


def permuted_classes(evidence: Evidence) -> Finding | None:
    """Objects are found, each class under the id of another."""
    found = evidence.found
    if found is None or found.problem is not None:
        return None
    mapping = permutation(found)
    if not mapping:
        return None
    by_class = ", ".join(
        f"{found.names[k]} as {found.names[j]} ({found.found_KK[k, j]:,} of {found.found_KK[k].sum():,})"
        for k, j in list(mapping.items())[:4]
    )
    objects = int(found.objects_K.sum())
    return Finding(
        title="the class ids of val are not those of train",
        proof=f"{int(found.found_KK.sum()):,} of {objects:,} val objects are found, but under another class: "
        f"{by_class}.",
        remedy="data.val_annotations=FILE",
        advice="give every class the same category_id in train and val:",
    )


def permutation(found: FoundFacts) -> dict[int, int]:
    """Class -> the other class that its objects are detected as, where at least two classes are exchanged.

    Empty where a class that is detected rightly takes in others: that is confusion, not an exchange.
    """
    mapping: dict[int, int] = {}
    for k in range(len(found.objects_K)):
        row_K: NDArray[np.int64] = found.found_KK[k]
        total = int(row_K.sum())
        if total >= FEWEST_FOUND and row_K[k] < RARELY * total and row_K.max() >= OFTEN * total:
            mapping[k] = int(row_K.argmax())
    right = {k for k in range(len(found.objects_K)) if found.found_KK[k, k] > 0 and k not in mapping}
    targets = set(mapping.values())
    return mapping if len(mapping) >= 2 and len(targets) == len(mapping) and not targets & right else {}


def threshold_hides(evidence: Evidence) -> Finding | None:
    """The score threshold drops the detections that AP is made of."""
    trial, threshold = evidence.trial, evidence.run.config.eval.score_threshold
    if trial is None:
        return None
    val = trial.val
    above = val.best_score < threshold
    if val.ap50 < (MEASURABLE_AP50 if above else LEAST_AP50) or val.ap50_kept >= HIDDEN * val.ap50:
        return None
    return Finding(
        title=f"eval.score_threshold is above {'every score' if above else 'most scores'}",
        proof=f"On {val.images} val images the best score is {val.best_score:.3f}, the threshold is {threshold:g}: "
        f"AP50 is {max(val.ap50_kept, 0):.3f} with it and {val.ap50:.3f} with every detection.",
        remedy=f"eval.score_threshold={USUAL_THRESHOLD if val.best_score >= 2 * USUAL_THRESHOLD else 0.001:g}",
    )


def wrong_pixels(evidence: Evidence) -> Finding | None:
    """The input is not normalised as the backbone's weights need it."""
    config = evidence.run.config
    pixels, weights = config.model.pixels, config.model.backbone.weights
    if not starts_from_weights(config):
        return None
    right = (
        f"model.pixels.order=rgb 'model.pixels.mean={listed(IMAGENET_MEAN)}' 'model.pixels.std={listed(IMAGENET_STD)}'"
    )
    found = f"order {pixels.order}, mean {listed(pixels.mean)}, std {listed(pixels.std)}"
    if evidence.trial is not None:
        trial = evidence.trial
        found += f"; the network's input has mean {trial.input_mean:.3g} and deviation {trial.input_deviation:.3g}"
    if weights == "imagenet":
        shifted = any(abs(a - b) > FAR_MEAN for a, b in zip(pixels.mean, IMAGENET_MEAN))
        scaled = any(not 1 / FAR_FACTOR <= a / b <= FAR_FACTOR for a, b in zip(pixels.std, IMAGENET_STD))
        if not (shifted or scaled or pixels.order == "bgr"):
            return None
        return Finding(
            title="pixels are not normalised as the backbone's weights need it",
            proof=f"torchvision's ImageNet weights are for RGB with mean {listed(IMAGENET_MEAN)} and std "
            f"{listed(IMAGENET_STD)}, but model.pixels has {found}.",
            remedy=right,
        )
    # Published weights for inputs of 0..255 (Caffe's) take BGR.
    if evidence.trial is None or evidence.trial.input_deviation < WIDE_INPUT or pixels.order == "bgr":
        return None
    return Finding(
        title="pixels are not normalised as the backbone's weights need it",
        proof=f"RGB inputs of published weights have mean 0 and deviation 1, but model.pixels has {found}.",
        remedy=right,
    )


def slow_average(evidence: Evidence) -> Finding | None:
    """The moving average is worse than the weights that it averages."""
    trial = evidence.trial
    if trial is None or trial.plain_ap50 is None or trial.average_ap50 is None:
        return None
    plain, average = trial.plain_ap50, trial.average_ap50
    if plain < 2 * LEAST_AP50 or average >= 0.5 * plain:
        return None
    ema, steps = evidence.run.config.schedule.ema, evidence.run.steps()
    return Finding(
        title="the moving average lags behind the weights",
        proof=f"On {trial.val.images} val images the last weights have AP50 {plain:.3f}, their moving average (decay "
        f"{ema:g}, {steps} steps) {max(average, 0):.3f}.",
        remedy="schedule.ema=0",
        advice="train longer, or switch the average off:",
    )


def val_differs(evidence: Evidence) -> Finding | None:
    """Training images are found, val images are not, and they are of another kind."""
    differences = fails_on_val(evidence) and differences_of(evidence)
    if not differences or evidence.trial is None:
        return None
    return Finding(
        title="val images are of another kind than the training images",
        proof=f"{describe_gap(evidence.trial.train, evidence.trial.val)} {'; '.join(differences)}.",
        remedy="",
        advice="train on images like those of val, or split one set of images at random.",
    )


def overfits(evidence: Evidence) -> Finding | None:
    """Training images are found, val images of the same kind are not."""
    trial, run = evidence.trial, evidence.run
    if trial is None or not fails_on_val(evidence) or differences_of(evidence):
        return None
    images = evidence.train.images if evidence.train is not None else 0
    times = f" Each of {images:,} training images was seen {run.images_seen() / images:.0f} times." if images else ""
    return Finding(
        title="the detector knows its training images and not val: it has overfitted",
        proof=f"{describe_gap(trial.train, trial.val)}{times}",
        remedy="data.color_jitter=0.2 'data.scale_jitter=[0.8, 1.25]'",
        advice="add images, start from weights, or augment more:",
    )


def fails_on_val(evidence: Evidence) -> bool:
    """Whether the detector has learned the training images and not val, for another reason than class ids."""
    trial = evidence.trial
    if trial is None or not trial.train.images or not trial.val.images or permuted_classes(evidence):
        return False
    return trial.train.ap50 >= WORKS and trial.val.ap50 < FAILS * trial.train.ap50


def differences_of(evidence: Evidence) -> list[str]:
    """In what train and val images differ, with numbers."""
    trial, train, val = evidence.trial, evidence.train, evidence.val
    found = []
    if trial is not None:
        gap = abs(trial.train.brightness - trial.val.brightness)
        if gap > max(OTHER_LEVELS, BRIGHTNESS_DEVIATIONS * trial.train.brightness_deviation):
            found.append(f"mean pixel {trial.train.brightness:.0f} in train, {trial.val.brightness:.0f} in val")
    if train is not None and val is not None:
        found += size_differences(train, val)
    return found


def size_differences(train: SplitFacts, val: SplitFacts) -> list[str]:
    """Sizes of images and of objects that differ by OTHER_SIZE or more."""
    pairs = (
        ("side of an image", train.image_side, val.image_side, "{:.0f} pixels"),
        ("side of an object over that of its image", train.object_share, val.object_share, "{:.2f}"),
    )
    return [
        f"median {what} {how.format(one)} in train, {how.format(other)} in val"
        for what, one, other, how in pairs
        if not (math.isnan(one) or math.isnan(other)) and max(one, other) >= OTHER_SIZE * min(one, other)
    ]


def describe_gap(train: SampleScore, val: SampleScore) -> str:
    """AP50 on both samples."""
    return (
        f"AP50 is {train.ap50:.3f} on {train.images} training images and {max(val.ap50, 0):.3f} on {val.images} val "
        "images."
    )


def listed(values: tuple[float, ...]) -> str:
    """Numbers as a config has them."""
    return f"[{', '.join(f'{value:g}' for value in values)}]"
