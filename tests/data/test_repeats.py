"""Repeat factors against the paper's formula in loops, and the order of repeated images."""

import json
import math
import random
from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from retinanet.data.coco import CocoDataset, ImageRecord, load_coco
from retinanet.data.loader import GlobalBatches, Key, MicroBatches, Shard, train_batches
from retinanet.data.repeats import class_factors, epoch_images, repeat_factors, rounded_at_random
from retinanet.data.transforms import Augment, ResizeRule
from retinanet.structures import Batch

RULE = ResizeRule(shorter_side=(32, 48), longer_side=96, canvas=None, resize="antialias", canvases="groups")
JITTER = Augment(scale_jitter=(0.7, 1.4), color_jitter=0.3, flip=0.5, vertical_flip=0.5)
THRESHOLD = 0.9


def record(number: int, classes: Sequence[int], crowds: int = 0) -> ImageRecord:
    boxes = np.tile(np.array([[0, 0, 4, 4]], np.float32), (len(classes), 1))
    labels, crowd = np.array(classes, np.int64), np.zeros((crowds, 4), np.float32)
    return ImageRecord(id=number, path=Path("a"), height=8, width=8, boxes_G4=boxes, classes_G=labels, crowd_C4=crowd)


def slow_factors(images: list[list[int]], threshold: float) -> list[float]:
    """r(c) = max(1, sqrt(t / f(c))) and r_i = max over the classes of image i."""
    share = {c: sum(c in image for image in images) / len(images) for image in images for c in image}
    return [max([1.0, *(max(1.0, math.sqrt(threshold / share[c])) for c in image)]) for image in images]


@pytest.mark.parametrize("seed", range(20))
def test_factors_are_the_papers(seed: int) -> None:
    """Classes of very different frequency, one without objects, images with none and with many objects of a class."""
    draw = random.Random(seed)
    images = [[min(4, int(draw.expovariate(1.5))) for _ in range(draw.choice([0, 1, 3, 9]))] for _ in range(60)]
    records = [record(number, classes) for number, classes in enumerate(images)]
    threshold = draw.choice([0.001, 0.05, 0.3, 1.0])
    expected = slow_factors(images, threshold)
    found = repeat_factors(records, 6, threshold)
    assert found is not None
    assert found.tolist() == pytest.approx(expected, rel=1e-12)
    assert epoch_images(records, 6, threshold) == round(sum(expected))
    assert class_factors(records, 6, threshold)[5] == 1.0


def test_crowds_do_not_count_and_without_a_threshold_nothing_is_repeated() -> None:
    records = [record(0, [0]), record(1, [], crowds=3), record(2, [0, 0]), record(3, [])]
    assert class_factors(records, 1, 1.0).tolist() == pytest.approx([math.sqrt(2)])
    assert repeat_factors(records, 1, None) is None
    assert epoch_images(records, 1, None) == 4


def test_rounding_is_right_on_average_and_depends_on_seed_epoch_and_index_only() -> None:
    factor_I = np.array([1.0, 1.25, 2.5, 3.999])
    rounded = np.stack([rounded_at_random(factor_I, 7, epoch) for epoch in range(4000)])
    assert set(rounded[:, 0]) == {1}
    assert set(rounded[:, 1]) == {1, 2}
    np.testing.assert_allclose(rounded.mean(axis=0), factor_I, atol=0.03)
    assert np.array_equal(rounded_at_random(np.append(factor_I, 1.5), 7, 11)[:4], rounded[11])
    assert not np.array_equal(rounded, [rounded_at_random(factor_I, 8, epoch) for epoch in range(4000)])


def test_each_epoch_has_every_image_as_often_as_its_rounded_factor() -> None:
    factor_I = np.array([1.0, 1.5, 2.3, 1.0, 3.0, 1.1, 1.0])
    seen: Counter[tuple[int, int]] = Counter()
    copies: Counter[Key] = Counter()
    for batch in islice(GlobalBatches([0, 0, 1, 1, 0, 1, 0], 2, (32,), 5, factor_I), 200):
        seen.update((key.epoch, key.image) for key in batch)
        copies.update(batch)
    assert max(copies.values()) == 1, "each copy has a number of its own"
    for epoch in range(20):
        assert [seen[epoch, image] for image in range(7)] == rounded_at_random(factor_I, 5, epoch).tolist()


def test_factors_of_one_change_nothing() -> None:
    plain, ones = (list(islice(GlobalBatches([0, 1] * 6, 4, (32, 48), 3, f), 20)) for f in (None, np.ones(12)))
    assert plain == ones


@pytest.fixture(scope="module")
def rare(tmp_path_factory: pytest.TempPathFactory) -> CocoDataset:
    """Twelve images of two shapes; two of them have the rare class."""
    folder, rng = tmp_path_factory.mktemp("rare"), np.random.default_rng(0)
    images, annotations = [], []
    for number in range(1, 13):
        height, width = (30, 40) if number % 3 else (40, 30)
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": height, "width": width})
        category = 2 if number in (4, 9) else 1
        annotations.append({"id": number, "image_id": number, "category_id": category, "bbox": [5, 5, 20, 15]})
    categories = [{"id": 1, "name": "common"}, {"id": 2, "name": "rare"}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "all.json").write_text(json.dumps(content), encoding="utf-8")
    return load_coco(folder / "all.json", folder)


ALONE = Shard(0, 1, 1)


def load(coco: CocoDataset, steps: tuple[int, int] = (0, 9), shard: Shard = ALONE, workers: int = 0) -> list[Batch]:
    batches = train_batches(
        coco, RULE, JITTER, batch_size=8, seed=11, steps=steps, shard=shard, workers=workers, pin=False,
        repeat_threshold=THRESHOLD,
    )  # fmt: skip
    return list(batches)


def contents(batches: list[Batch]) -> list[bytes]:
    """Pixels, boxes and id of every image, in order; canvases of a batch are alike."""
    return [
        image.numpy().tobytes() + targets.boxes_G4.numpy().tobytes() + bytes([int(image_id)])
        for batch in batches
        for image, targets, image_id in zip(batch.images, batch.targets, batch.image_ids_B, strict=True)
    ]


def test_order_and_pixels_do_not_depend_on_workers_ranks_or_interruptions(rare: CocoDataset) -> None:
    whole = load(rare)
    expected = contents(whole)
    assert contents(load(rare, workers=2)) == expected
    assert contents(load(rare, (0, 4)) + load(rare, (4, 9))) == expected
    shards = [load(rare, shard=Shard(rank, 8, 1)) for rank in range(8)]
    assert contents([shard[step] for step in range(9) for shard in shards]) == expected
    times = Counter(int(image) for batch in whole for image in batch.image_ids_B)
    assert min(times[4], times[9]) > max(times[image] for image in times if image not in (4, 9))
    assert len(set(expected)) == len(expected), "repeats of an image are augmented differently"


def test_repeats_of_an_epoch_are_spread_over_steps_as_the_keys_say() -> None:
    batches = GlobalBatches([0] * 4, 4, (32,), 1, np.array([1.0, 1.0, 1.0, 5.0]))
    keys = [key for micro in MicroBatches(batches, 0, 2, 0, 1, 1) for key in micro]
    assert sorted((key.image, key.repeat) for key in keys) == [(0, 0), (1, 0), (2, 0), *((3, n) for n in range(5))]
    assert len({tuple(key.pixel_seed(1)) for key in keys}) == 8
    assert torch.tensor(Key(0, 3, 0, 32).pixel_seed(1)).tolist() == [1, 0, 3], "as before repeats existed"
