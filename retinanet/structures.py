"""Data structures shared by several packages.

Legend of shape suffixes, used throughout the package:
  B images in a batch, A anchors of a canvas, K classes, G ground-truth boxes of an image,
  L pyramid levels, D detections of an image, 4 box coordinates or deltas.

Frames: "canvas" is pixels of the padded network input; "original" is pixels of the image as stored
(after its EXIF rotation). Boxes are (x1, y1, x2, y2) with x2 and y2 exclusive, float32.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

BACKGROUND = -1
"""Label of an anchor that should score low for every class."""

IGNORE = -2
"""Label of an anchor that contributes to no loss."""


class Category(NamedTuple):
    """One class of a data set: its id in the annotation file and its name."""

    id: int
    name: str


class Targets(NamedTuple):
    """Ground truth of one image, in the canvas frame."""

    boxes_G4: Tensor
    """(G, 4) float32, objects that can become positives."""
    classes_G: Tensor
    """(G,) int64, class index 0..K-1 (not the category id)."""
    crowd_C4: Tensor
    """(C, 4) float32, crowd regions: anchors inside are neither positives nor plain negatives."""


class Sample(NamedTuple):
    """One decoded, resized and augmented image with its ground truth, not yet padded."""

    image: Tensor
    """(3, h, w) RGB in 0..255: uint8, or float32 (config `data.resize`: `float_bilinear`)."""
    targets: Targets
    """In pixels of `image`; the canvas frame has the same origin."""
    image_id: int
    original_size: tuple[int, int]
    """(height, width) of the stored image after EXIF rotation."""


class Batch(NamedTuple):
    """Images padded at the right and bottom to one canvas. A NamedTuple, because pin_memory recurses into those."""

    images: Tensor
    """(B, 3, H, W) RGB in 0..255: uint8, or float32 (config `data.resize`: `float_bilinear`). With `features` there are
    no pixels: (B, 0, H, W)."""
    sizes_B2: Tensor
    """(B, 2) int64 (height, width) of each image within the canvas."""
    original_sizes_B2: Tensor
    """(B, 2) int64 (height, width) of each image as stored."""
    image_ids_B: Tensor
    """(B,) int64, ids in the annotation file."""
    targets: list[Targets]
    """B entries."""
    features: Sequence[Tensor] = ()
    """The backbone's outputs for the images (see `model.backbone`) where they are read from a cache; else empty."""


class HeadOutputs(NamedTuple):
    """Raw outputs of the network over all levels, finest level first."""

    logits_BAK: Tensor
    deltas_BA4: Tensor


class Assignment(NamedTuple):
    """Training target of each anchor of one image."""

    labels_A: Tensor
    """(A,) int64, class index, BACKGROUND or IGNORE."""
    matched_A: Tensor
    """(A,) int64, index into the image's boxes_G4; meaningful where labels_A >= 0, else 0."""


class ClassTargets(NamedTuple):
    """Everything that a class loss may use besides the head's outputs. Nothing in it carries a gradient."""

    labels_BA: Tensor
    """(B, A) int64: class index, BACKGROUND or IGNORE."""
    normaliser_B: Tensor
    """(B,) float32 > 0: divisor of a sum over an image's anchors (paper section 4.1: the positives)."""
    images: int
    """Number of images in the whole effective batch: a loss with its own normaliser gives each image 1 / images."""
    seeds_B: Tensor
    """(B,) int64 on the CPU: seed of any random choice for this image in this step."""
    anchors_A4: Tensor
    """(A, 4) float32, canvas frame."""
    deltas_BA4: Tensor
    """(B, A, 4) predicted deltas, detached."""
    boxes_P4: Tensor
    """(P, 4) float32, ground truth of the positives, in the order of nonzero(labels_BA >= 0)."""
    box_loss_P: Tensor
    """(P,) float32, the positives' box loss, weighted but not normalised, detached."""


class Scoring(NamedTuple):
    """How a head's outputs become scores."""

    scores: Callable[[Tensor], Tensor]
    """Head outputs (..., O) -> class scores (..., K) in 0..1, float32."""
    prefilter: Callable[[Tensor, float], Tensor]
    """Head outputs (..., O), threshold -> (...) bool: True wherever some class scores above the threshold, and rarely
    elsewhere. Cheap to compute before the scores."""


class Detections(NamedTuple):
    """Detections of one image, best first."""

    boxes_D4: Tensor
    """(D, 4) float32; the function that returns it documents the frame."""
    scores_D: Tensor
    """(D,) float32 in 0..1."""
    classes_D: Tensor
    """(D,) int64 class index."""
