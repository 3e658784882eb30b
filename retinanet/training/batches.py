"""Data of a training run: both splits, validated, and the batches of each step."""

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import assert_never

import torch
from torch import nn

from retinanet.build.network import build_channels_last, build_precision
from retinanet.build.rules import build_augment, build_depth_range, build_pixel_rule, build_resize_rule, build_view_rule
from retinanet.config.fields import known
from retinanet.config.schema import Config
from retinanet.data.categories import aligned
from retinanet.data.coco import CocoDataset, first_images, load_coco, noted, shared_images_note, with_objects
from retinanet.data.feature_cache import FeatureCache
from retinanet.data.loader import Shard, SkippedImages, train_batches
from retinanet.data.root import check_data_root
from retinanet.data.set_notes import no_box_cause
from retinanet.data.views import tiled
from retinanet.distributed import Ranks
from retinanet.errors import ConfigError, DataError
from retinanet.evaluation.features import FeatureRule, backbone_of, open_features
from retinanet.evaluation.sources import resolve_data
from retinanet.files import data_title
from retinanet.structures import Batch


def load_data(config: Config, ranks: Ranks) -> tuple[CocoDataset, CocoDataset]:
    """Both splits, validated, the training images cut into tiles as `data.tile` says.

    Raises DataError if they do not fit together. Only the main rank opens the images.
    """
    data = resolve_data(config.data)
    root = Path(data.root)
    check_data_root(root)
    check = data.check_images if ranks.is_main else "none"
    load = partial(load_coco, check_images=check, root=root, depth_range=build_depth_range(data))
    train_set = load(root / data.train_annotations, root / data.train_images)
    val_set = load(root / data.val_annotations, root / data.val_images)
    val_set = aligned(val_set, train_set.categories, data_title(train_set.annotation_file))
    if not any(len(record.boxes_G4) for record in train_set.images):
        raise DataError(
            f"{train_set.annotation_file}: no image has a usable box, so there is nothing to learn: "
            f"{no_box_cause(train_set.ground_truth, train_set.dropped)}."
        )
    if train_set.notes == val_set.notes and train_set.annotation_file == val_set.annotation_file:
        val_set = replace(val_set, notes=())  # each is printed once
    val_set = noted(val_set, shared_images_note(train_set, val_set) if ranks.is_main else "")
    if not data.empty_images:
        train_set = with_objects(train_set)
    cut = tiled(first_images(train_set, data.limit), build_view_rule(config), empty=data.empty_images)
    return cut, first_images(val_set, data.limit)


def load_steps(
    config: Config,
    train_set: CocoDataset,
    steps: tuple[int, int],
    ranks: Ranks,
    pin: bool,
    features: FeatureCache | None = None,
    skipped: SkippedImages | None = None,
) -> Generator[list[Batch], None, None]:
    """This rank's micro-batches of each step in range(*steps). features: those of `train_set`, instead of pixels."""
    batches = train_batches(
        train_set,
        build_resize_rule(config),
        build_augment(config),
        batch_size=known(config.schedule.batch_size),
        seed=config.seed,
        steps=steps,
        shard=Shard(ranks.rank, ranks.world_size, config.schedule.accumulation),
        workers=config.data.workers,
        pin=pin,
        cache_mib=config.data.cache_mib,
        features=features,
        repeat_threshold=config.data.repeat_threshold,
        skipped=skipped,
    )
    with closing(batches):
        while group := list(islice(batches, config.schedule.accumulation)):
            yield group


def open_train_features(
    config: Config, train_set: CocoDataset, network: nn.Module, device: torch.device, ranks: Ranks
) -> FeatureCache | None:
    """The features of the training images by the network's frozen backbone; None without `data.feature_cache`."""
    if not config.data.feature_cache:
        return None
    schedule = config.schedule
    rule = FeatureRule(
        backbone=backbone_of(network).eval(),
        resize_rule=build_resize_rule(config),
        pixels=build_pixel_rule(config),
        precision=build_precision(config, device),
        channels_last=build_channels_last(config.model, device, training=True),
        device=device,
        batch_size=known(schedule.batch_size) // (ranks.world_size * schedule.accumulation),
    )
    return open_features(train_set, rule, build_augment(config), shown=ranks.is_main)


def new_skipped(config: Config, train_set: CocoDataset) -> SkippedImages | None:
    """Passes over images as config `data.on_bad_image` says; None: not at all."""
    match config.data.on_bad_image:
        case "stop":
            return None
        case "skip":
            total = len(train_set.images)
            return SkippedImages(int(config.data.bad_images * total), total)
        case _:
            assert_never(config.data.on_bad_image)


def check_batch_divides(config: Config, ranks: Ranks) -> None:
    """ConfigError if the batch cannot be split evenly over ranks and micro-batches."""
    schedule = config.schedule
    size = schedule.reference_batch if schedule.batch_size == "auto" else known(schedule.batch_size)
    parts = ranks.world_size * schedule.accumulation
    if size % parts:
        raise ConfigError(
            f"schedule.batch_size: {size} images do not split into {ranks.world_size} rank(s) x "
            f"{schedule.accumulation} micro-batch(es); use a multiple of {parts}."
        )
