"""The run's weights on a few training and validation images."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from torch import Tensor

from retinanet import distributed
from retinanet.build.network import build_loss_and_model
from retinanet.build.rules import build_pixel_rule, build_resize_rule, build_view_rule
from retinanet.config.schema import Config
from retinanet.data.coco import CocoDataset, ImageRecord, only_images
from retinanet.data.images import decode_image
from retinanet.data.transforms import PixelRule
from retinanet.diagnostics.doctor.facts import SampleScore, TrialFacts
from retinanet.distributed import Ranks
from retinanet.evaluation.detector import Detector, build_detector
from retinanet.evaluation.evaluate import evaluate_dataset
from retinanet.run.checkpoint import Checkpoint, load_checkpoint, load_weights
from retinanet.run.folder import RunFolder
from retinanet.run.pictures import evenly_spaced
from retinanet.scoring.evaluation import coco_evaluation
from retinanet.structures import Category

ALONE = Ranks(rank=0, local_rank=0, world_size=1)


class Samples(NamedTuple):
    """Images of both splits, each with an object."""

    train: CocoDataset
    val: CocoDataset

    @property
    def images(self) -> int:
        """Of both splits."""
        return len(self.train.images) + len(self.val.images)


def draw_samples(train: CocoDataset, val: CocoDataset, images: int) -> Samples:
    """Up to `images` images of each split that have objects, evenly spread over it."""
    return Samples(
        train=only_images(train, evenly_spaced(train.images, images)),
        val=only_images(val, evenly_spaced(val.images, images)),
    )


def try_detector(
    folder: RunFolder, checkpoint: Checkpoint, config: Config, samples: Samples, on_batch: Callable[[int], None]
) -> TrialFacts:
    """Detect on both samples with the weights of a checkpoint, and on val's with and without the moving average.

    config: the run's, after overrides. Raises a UserError for weights or images that cannot be used.
    """
    rule, known = build_pixel_rule(config), checkpoint.categories
    pixels = {name: pixel_means(split.images) for name, split in samples._asdict().items()}
    detector = detector_with(config, checkpoint.weights(), known, str(folder.path))
    train = score_sample(detector, samples.train, config, known, pixels["train"], on_batch)
    val = score_sample(detector, samples.val, config, known, pixels["val"], on_batch)
    plain_ap50 = average_ap50 = None
    last = load_checkpoint(folder.last) if config.schedule.ema and folder.last.is_file() else None
    if last is not None and last.average and samples.val.images:
        plain, average = (
            score_sample(
                detector_with(config, state, known, str(folder.last)),
                samples.val,
                config,
                known,
                pixels["val"],
                lambda _: None,
            )
            for state in (last.model, last.weights())
        )
        plain_ap50, average_ap50 = plain.ap50, average.ap50
    mean, deviation = input_statistics(samples.train.images or samples.val.images, rule)
    return TrialFacts(
        train=train,
        val=val,
        input_mean=mean,
        input_deviation=deviation,
        plain_ap50=plain_ap50,
        average_ap50=average_ap50,
    )


def detector_with(config: Config, state: dict[str, Tensor], known: tuple[Category, ...], source: str) -> Detector:
    """A detector with these weights that keeps detections of every score."""
    device = distributed.choose_device(config.device, ALONE)
    _, model = build_loss_and_model(config, len(known))
    load_weights(model, state, source)
    every = config.model_copy(
        update={
            "eval": config.eval.model_copy(update={"score_threshold": 0.0}),
            "data": config.data.model_copy(update={"feature_cache": False}),
        }
    )
    return build_detector(every, model.to(device).eval(), device)


def score_sample(
    detector: Detector,
    sample: CocoDataset,
    config: Config,
    known: tuple[Category, ...],
    means_I: np.ndarray,
    on_batch: Callable[[int], None],
) -> SampleScore:
    """AP50 with every detection and with those from the config's score threshold. means_I: `pixel_means`."""
    if not sample.images:
        return SampleScore(
            images=0, ap50=-1.0, ap50_kept=-1.0, best_score=0.0, brightness=0.0, brightness_deviation=0.0
        )
    evaluation, results = evaluate_dataset(
        detector,
        sample,
        build_resize_rule(config),
        (config.eval.batch_size, config.data.workers),
        ALONE,
        on_batch,
        config.eval,
        known,
        build_view_rule(config),
    )
    kept = [result for result in results if result["score"] >= config.eval.score_threshold]
    return SampleScore(
        images=len(sample.images),
        ap50=evaluation.metrics["AP50"],
        ap50_kept=coco_evaluation(sample.ground_truth, kept, config.eval.engine).metrics["AP50"],
        best_score=max((float(result["score"]) for result in results), default=0.0),
        brightness=float(means_I.mean()),
        brightness_deviation=float(means_I.std()),
    )


def pixel_means(images: tuple[ImageRecord, ...]) -> np.ndarray:
    """(I,) mean pixel of each image, 0..255."""
    return np.array([float(decode_image(record.path).float().mean()) for record in images])


def input_statistics(images: tuple[ImageRecord, ...], rule: PixelRule) -> tuple[float, float]:
    """Mean and standard deviation of the normalised pixels of some images: the extreme of the three channels each."""
    if not images:
        return 0.0, 1.0
    pixels = [decode_image(record.path).float().flatten(1) for record in images]
    order = [0, 1, 2] if rule.order == "rgb" else [2, 1, 0]
    means = np.mean([image.mean(dim=1).numpy() for image in pixels], axis=0)[order]
    squares = np.mean([image.square().mean(dim=1).numpy() for image in pixels], axis=0)[order]
    deviations = np.sqrt((squares - means**2).clip(0)) / np.array(rule.std)
    normalised = (means - np.array(rule.mean)) / np.array(rule.std)
    return float(normalised[np.abs(normalised).argmax()]), float(deviations.max())
