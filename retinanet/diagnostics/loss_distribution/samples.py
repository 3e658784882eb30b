"""A trained network's class losses, anchor by anchor, over images drawn at random.

A sample is an anchor (the paper's "window") with its loss summed over its classes: this is what the losses of this
project return, and the only unit that softmax and hard mining have as well. Network, padding and assignment are those
of training, images are not augmented, ignored anchors are in no sample, and anchors that a loss leaves out (hard
mining, random minibatches) count with loss 0.

Legend: S losses, B images of a batch, A anchors, L levels, K classes, P positives and N negatives of a batch.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from retinanet.data.coco import CocoDataset
from retinanet.data.loader import eval_batches
from retinanet.data.transforms import ResizeRule, normalise
from retinanet.data.upload import to_device
from retinanet.detection.anchors import Pyramid, pyramid_anchors
from retinanet.detection.assign import AnyAssignRule, BatchAssignment, assign_batch
from retinanet.diagnostics.loss_distribution.curves import Breakdown
from retinanet.errors import NumericalError
from retinanet.evaluation.detector import Detector
from retinanet.losses.box import BoxRegressionLoss
from retinanet.losses.classification import ClassificationLoss
from retinanet.losses.criterion import image_seeds
from retinanet.scoring.matches import AREA_RANGES, AREAS
from retinanet.structures import BACKGROUND, Batch, ClassTargets

MOST_POSITIVES = 100_000
MOST_NEGATIVES = 10_000_000
"""About the numbers of the paper's Figure 4; images are read until both are reached."""
ROUND_IMAGES = 256
"""Images between two checks of the counts. Batches of a round share canvases, rounds are drawn at random."""


class Measure(NamedTuple):
    """The detector and the losses to measure, and how."""

    detector: Detector
    losses: tuple[ClassificationLoss, ...]
    names: tuple[str, ...]
    """Names of the losses, for messages."""
    box_loss: BoxRegressionLoss
    """Weighted as in training; a hard-mining loss may rank by it."""
    rule: AnyAssignRule
    resize_rule: ResizeRule
    batch_size: int
    workers: int
    seed: int
    """Determines the order of images and every other random choice."""


class LossSamples(NamedTuple):
    """Losses of anchors; each loss has its own scale."""

    images: int
    positives_SP: NDArray[np.float32]
    """Uniform sample of all positives of the images; negatives_SN likewise."""
    negatives_SN: NDArray[np.float32]
    breakdowns: tuple[Breakdown, ...]
    """Sums over all anchors of the images, not only over the samples."""


class ThinnedLosses:
    """A uniform sample of columns (S, n) in bounded memory: beyond 1.5 * `most`, half are dropped at random."""

    def __init__(self, most: int, seed: Sequence[int]) -> None:
        self.most, self.seen = most, 0
        self._chance, self._held = 1.0, 0
        self._random = np.random.default_rng(list(seed))
        self._parts: list[NDArray[np.float32]] = []

    def add(self, losses_SN: NDArray[np.float32]) -> None:
        """Add columns; each stays with the same probability as those before."""
        self.seen += losses_SN.shape[1]
        self._keep(losses_SN, self._chance)
        while self._held > 1.5 * self.most:
            self._chance /= 2
            parts, self._parts, self._held = self._parts, [], 0
            for part in parts:
                self._keep(part, 0.5)

    def _keep(self, losses_SN: NDArray[np.float32], chance: float) -> None:
        kept = losses_SN if chance == 1 else losses_SN[:, self._random.random(losses_SN.shape[1]) < chance]
        self._parts.append(kept)
        self._held += kept.shape[1]

    def columns(self, losses: int) -> NDArray[np.float32]:
        """The columns that were kept, (S, n)."""
        return np.concatenate([np.zeros((losses, 0), dtype=np.float32), *self._parts], axis=1)


class Tally:
    """Samples and breakdowns of the batches so far."""

    def __init__(self, losses: int, classes: tuple[str, ...], levels: tuple[str, ...], seed: int) -> None:
        self.losses, self.images = losses, 0
        self.positives = ThinnedLosses(MOST_POSITIVES, (seed, 1))
        self.negatives = ThinnedLosses(MOST_NEGATIVES, (seed, 2))
        groups = (
            ("all", "label", ("positives", "negatives")),
            ("all", "level", levels),
            ("positives", "level", levels),
            ("negatives", "level", levels),
            ("positives", "size", AREAS[1:]),
            ("positives", "class", classes),
        )
        self.breakdowns = tuple(Breakdown.empty(of, by, names, losses) for of, by, names in groups)

    def full(self) -> bool:
        """Whether the images so far have as many anchors of both kinds as the figure needs."""
        return self.positives.seen >= self.positives.most and self.negatives.seen >= self.negatives.most

    def add(self, batch: Batch, assignment: BatchAssignment, pyramid: Pyramid, losses_SBA: Tensor) -> None:
        """Add one batch; every tensor except the batch's may be on any device."""
        self.images += len(batch.targets)
        labels_BA, losses = assignment.labels_BA.cpu(), losses_SBA.cpu()
        level_A = torch.repeat_interleave(torch.arange(len(pyramid.level_sizes)), torch.tensor(pyramid.level_sizes))
        label, level, *of_levels, sizes, classes = self.breakdowns
        positive_BA = labels_BA >= 0
        for kind, chosen_BA in enumerate((positive_BA, labels_BA == BACKGROUND)):
            losses_SN = losses[:, chosen_BA].numpy()
            level_N = level_A.expand(labels_BA.shape)[chosen_BA].numpy()
            (self.positives, self.negatives)[kind].add(losses_SN)
            label.add(losses_SN, np.full(len(level_N), kind))
            level.add(losses_SN, level_N)
            of_levels[kind].add(losses_SN, level_N)
        image_P, losses_SP = assignment.image_P.cpu(), losses[:, positive_BA].numpy()
        areas_P = original_areas(assignment.boxes_P4.cpu(), batch.sizes_B2[image_P], batch.original_sizes_B2[image_P])
        sizes.add(losses_SP, np.digitize(areas_P.numpy(), [least for least, _ in AREA_RANGES[2:]]))
        classes.add(losses_SP, labels_BA[positive_BA].numpy())

    def samples(self) -> LossSamples:
        """The samples and breakdowns of all batches."""
        return LossSamples(
            images=self.images,
            positives_SP=self.positives.columns(self.losses),
            negatives_SN=self.negatives.columns(self.losses),
            breakdowns=self.breakdowns,
        )


def original_areas(boxes_P4: Tensor, sizes_P2: Tensor, original_sizes_P2: Tensor) -> Tensor:
    """(P,) areas, in pixels of the stored image, of boxes in the canvas frame; sizes are (height, width)."""
    scale_P2 = original_sizes_P2.double() / sizes_P2.double()
    width_P, height_P = (boxes_P4[:, 2:] - boxes_P4[:, :2]).double().unbind(dim=1)
    return width_P * scale_P2[:, 1] * height_P * scale_P2[:, 0]


@torch.no_grad()
def batch_losses(measure: Measure, batch: Batch) -> tuple[BatchAssignment, Pyramid, Tensor]:
    """The assignment, the anchors and every loss of every anchor, (S, B, A) float32, with normaliser 1.

    A loss with its own normaliser keeps it, and every image has weight 1. Raises NumericalError where the loss of an
    anchor is not finite.
    """
    detector = measure.detector
    moved = to_device(batch, detector.device)
    images = normalise(moved.images, moved.sizes_B2, detector.pixels, detector.channels_last)
    with torch.autocast(detector.device.type, detector.precision, enabled=detector.precision != torch.float32):
        outputs = detector.model(images)
    pyramid = pyramid_anchors((images.shape[2], images.shape[3]), detector.anchors, detector.device)
    anchors_A4 = pyramid.boxes_A4
    assignment = assign_batch(pyramid, moved.targets, measure.rule)
    image_P, anchor_P = assignment.image_P, assignment.anchor_P
    box_P = measure.box_loss(outputs.deltas_BA4[image_P, anchor_P], assignment.boxes_P4, anchors_A4[anchor_P])
    targets = ClassTargets(
        labels_BA=assignment.labels_BA,
        normaliser_B=torch.ones(len(images), device=detector.device),
        images=1,
        seeds_B=image_seeds(measure.seed, 0, batch.image_ids_B.tolist()),
        anchors_A4=anchors_A4,
        deltas_BA4=outputs.deltas_BA4,
        boxes_P4=assignment.boxes_P4,
        box_loss_P=box_P,
    )
    losses_SBA = torch.stack([loss.value(outputs.logits_BAK, targets) for loss in measure.losses])
    finite_SB = torch.isfinite(losses_SBA).all(dim=2).cpu()
    if not finite_SB.all():
        names = [name for name, finite_B in zip(measure.names, finite_SB, strict=True) if not finite_B.all()]
        ids = batch.image_ids_B[~finite_SB.all(dim=0)].tolist()
        raise NumericalError(
            f"the loss {', '.join(names)} is not finite on image ids {ids}: the network has diverged, or its precision "
            "is too low (try precision=float32)"
        )
    return assignment, pyramid, losses_SBA


def sample_losses(
    measure: Measure, dataset: CocoDataset, most_images: int | None, on_batch: Callable[[int], None]
) -> LossSamples:
    """Losses over images of the data set in random order, until MOST_POSITIVES and MOST_NEGATIVES are reached.

    most_images: use at most this number of images; None: all. on_batch is called with the number of images of a batch.
    """
    order = np.random.default_rng([measure.seed, 0]).permutation(len(dataset.images))[:most_images].tolist()
    classes = tuple(category.name for category in dataset.categories)
    tally = Tally(len(measure.losses), classes, measure.detector.anchors.levels, measure.seed)
    for start in range(0, len(order), ROUND_IMAGES):
        drawn = replace(dataset, images=tuple(dataset.images[index] for index in order[start : start + ROUND_IMAGES]))
        batches = eval_batches(
            drawn,
            measure.resize_rule,
            batch_size=measure.batch_size,
            rank=0,
            world_size=1,
            workers=measure.workers,
            pin=measure.detector.device.type == "cuda",
        )
        with contextlib.closing(batches):
            for batch in batches:
                tally.add(batch, *batch_losses(measure, batch))
                on_batch(len(batch.targets))
        if tally.full():
            break
    return tally.samples()
