"""The order of images and batches, the cache, and that only (seed, epoch, image) determines their pixels."""

import json
import threading
from collections import Counter
from collections.abc import Generator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from retinanet.data import whole_images
from retinanet.data.coco import CocoDataset, load_coco
from retinanet.data.loader import (
    MIB,
    GlobalBatches,
    ImageCache,
    Key,
    MicroBatches,
    Shard,
    SkippedImages,
    eval_batches,
    train_batches,
)
from retinanet.data.transforms import NO_AUGMENT, Augment, Resize, ResizeRule
from retinanet.errors import DataError
from retinanet.structures import Batch

RULE = ResizeRule(shorter_side=(48, 64), longer_side=96, canvas=None, resize="antialias", canvases="groups")
JITTER = Augment(scale_jitter=(0.7, 1.4), color_jitter=0.3, flip=0.5, vertical_flip=0.5)
ALONE = Shard(0, 1, 1)
SIZES = [(40, 60), (60, 40), (50, 50), (40, 60), (30, 90), (60, 40), (40, 61), (50, 50), (48, 64), (41, 60)]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> CocoDataset:
    """Ten images of several shapes, a box in each."""
    folder = tmp_path_factory.mktemp("mixed")
    return write_data_set(folder, SIZES)


def write_data_set(folder: Path, sizes: list[tuple[int, int]]) -> CocoDataset:
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for index, (height, width) in enumerate(sizes, start=1):
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(folder / f"{index}.png")
        images.append({"id": index, "file_name": f"{index}.png", "height": height, "width": width})
        annotations.append({"id": index, "image_id": index, "category_id": 1, "bbox": [5, 5, 20, 15]})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "all.json").write_text(json.dumps(content), encoding="utf-8")
    return load_coco(folder / "all.json", folder)


def batches_of(
    coco: CocoDataset, *, steps: tuple[int, int] = (0, 12), shard: Shard = ALONE, workers: int = 0
) -> Generator[Batch, None, None]:
    return train_batches(
        coco, RULE, JITTER, batch_size=4, seed=11, steps=steps, shard=shard, workers=workers, pin=False
    )


def same(a: Batch, b: Batch) -> bool:
    tensors = zip([*a[:4], *(t for x in a.targets for t in x)], [*b[:4], *(t for x in b.targets for t in x)])
    return len(a.targets) == len(b.targets) and all(x.shape == y.shape and torch.equal(x, y) for x, y in tensors)


def keys_by_epoch(batches: GlobalBatches, count: int) -> dict[int, list[int]]:
    epochs: dict[int, list[int]] = {}
    for key in (key for batch in islice(batches, count) for key in batch):
        epochs.setdefault(key.epoch, []).append(key.image)
    return epochs


def test_every_epoch_is_a_permutation_and_differs_from_the_last() -> None:
    epochs = keys_by_epoch(GlobalBatches([0] * 30, 5, (600,), seed=1), 24)
    assert all(sorted(images) == list(range(30)) for images in list(epochs.values())[:4])
    assert len({tuple(images) for images in epochs.values()}) == len(epochs)
    assert keys_by_epoch(GlobalBatches([0] * 30, 5, (600,), seed=2), 24) != epochs


def test_over_many_epochs_each_image_is_used_equally_often_except_for_queued_ones() -> None:
    buckets = [0] * 37 + [1] * 11 + [2] * 2 + [3] * 1
    seen: Counter[int] = Counter()
    batches = list(islice(GlobalBatches(buckets, 8, (600,), seed=5), 640))
    seen.update((key.epoch, key.image) for batch in batches for key in batch)
    assert max(seen.values()) == 1, "no image comes twice in one epoch"
    last = max(epoch for epoch, _ in seen)
    times = Counter(image for _, image in seen)
    # A queue holds at most 7 images: those of a bucket with one image wait at most 7 epochs.
    assert min(times[image] for image in range(len(buckets))) >= last - 7
    assert max(times.values()) <= last + 1
    assert len({image for batch in batches for image in [key.image for key in batch]}) == len(buckets)


def test_images_queued_at_the_end_of_an_epoch_open_the_next_batch() -> None:
    batches = list(islice(GlobalBatches([0] * 6, 4, (600,), seed=0), 3))
    assert [[key.epoch for key in batch] for batch in batches] == [[0] * 4, [0, 0, 1, 1], [1] * 4]


def test_a_batch_has_one_bucket_and_one_shorter_side() -> None:
    buckets = [0, 1, 2, 0, 1, 2, 0, 1, 1, 1, 2, 0]
    for batch in islice(GlobalBatches(buckets, 3, (400, 500, 600), seed=3), 60):
        assert len({key.bucket for key in batch}) == 1
        assert len({key.shorter_side for key in batch}) == 1
        assert all(buckets[key.image] == key.bucket for key in batch)
    sides = {key.shorter_side for batch in islice(GlobalBatches(buckets, 3, (400, 500, 600), 3), 60) for key in batch}
    assert sides == {400, 500, 600}


@pytest.mark.parametrize(("ranks", "accumulation"), [(1, 1), (2, 1), (1, 4), (2, 2), (4, 1), (4, 2)])
def test_ranks_and_micro_batches_tile_the_global_batch(ranks: int, accumulation: int) -> None:
    batches = GlobalBatches([0, 1] * 20, 8, (600,), seed=4)
    shards = [list(MicroBatches(batches, 0, 10, rank, ranks, accumulation)) for rank in range(ranks)]
    assert [len(shard) for shard in shards] == [10 * accumulation] * ranks
    for step, whole in enumerate(islice(batches, 10)):
        tiles: list[Key] = []
        for micro in range(accumulation):
            for shard in shards:
                tile = shard[step * accumulation + micro]
                assert len(tile) == 8 // (ranks * accumulation)
                tiles += tile
        assert tiles == whole


def test_starting_in_the_middle_is_the_same_as_skipping() -> None:
    batches = GlobalBatches([0, 1, 0] * 7, 4, (500, 600), seed=9)
    whole = list(MicroBatches(batches, 0, 12, 1, 2, 2))
    for first in (1, 5, 11, 12):
        assert list(MicroBatches(batches, first, 12, 1, 2, 2)) == whole[first * 2 :]


def test_loaded_batches_are_of_one_canvas_and_hold_their_images(mixed: CocoDataset) -> None:
    seen = set()
    for batch in batches_of(mixed):
        assert batch.images.shape[0] == 4
        assert batch.images.shape[2] % 32 == batch.images.shape[3] % 32 == 0
        assert (batch.sizes_B2 <= torch.tensor(batch.images.shape[2:])).all()
        originals = [SIZES[i - 1] for i in batch.image_ids_B.tolist()]
        assert batch.original_sizes_B2.tolist() == [list(size) for size in originals]
        seen |= set(batch.image_ids_B.tolist())
    assert {1, 2, 4, 6, 7, 9, 10} <= seen


@pytest.mark.parametrize("workers", [2, 4])
def test_pixels_and_boxes_do_not_depend_on_workers(mixed: CocoDataset, workers: int) -> None:
    alone, together = list(batches_of(mixed)), list(batches_of(mixed, workers=workers))
    assert len(alone) == len(together) == 12
    assert all(same(a, b) for a, b in zip(alone, together))
    assert not same(alone[0], alone[1])


def test_closing_ends_the_workers_at_once(mixed: CocoDataset) -> None:
    before = threading.active_count()
    running = batches_of(mixed, workers=2)
    next(running)
    assert threading.active_count() == before + 2
    running.close()
    assert threading.active_count() == before


def test_pixels_do_not_depend_on_where_loading_starts(mixed: CocoDataset) -> None:
    whole = list(batches_of(mixed))
    assert all(same(a, b) for a, b in zip(whole[7:], batches_of(mixed, steps=(7, 12)), strict=True))


def test_pixels_do_not_depend_on_ranks_and_accumulation(mixed: CocoDataset) -> None:
    whole = list(batches_of(mixed, steps=(0, 6)))
    shards = [list(batches_of(mixed, steps=(0, 6), shard=Shard(rank, 2, 2))) for rank in (0, 1)]
    for step, batch in enumerate(whole):
        tiles = [shards[rank][2 * step + micro] for micro in (0, 1) for rank in (0, 1)]
        assert torch.equal(batch.images, torch.cat([tile.images for tile in tiles]))
        assert batch.image_ids_B.tolist() == [i for tile in tiles for i in tile.image_ids_B.tolist()]


def test_tight_canvases_are_those_of_each_batchs_own_images(mixed: CocoDataset) -> None:
    tight = RULE._replace(resize="float_bilinear", canvases="tight")
    loaded = train_batches(
        mixed, tight, NO_AUGMENT, batch_size=2, seed=1, steps=(0, 9), shard=ALONE, workers=0, pin=False
    )
    canvases = set()
    for batch in [*loaded, *eval_batches(mixed, tight, batch_size=3, rank=0, world_size=1, workers=0, pin=False)]:
        largest = batch.sizes_B2.amax(dim=0)
        assert list(batch.images.shape[2:]) == ((largest + 31) // 32 * 32).tolist()
        assert batch.images.dtype == torch.float32
        for size, image_id in zip(batch.sizes_B2.tolist(), batch.image_ids_B.tolist(), strict=True):
            assert size in [list(tight.fitted(*SIZES[image_id - 1], shorter)) for shorter in tight.shorter_side]
        canvases.add(tuple(batch.images.shape[2:]))
    assert len(canvases) > 2


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_evaluation_sees_every_image_once(mixed: CocoDataset, ranks: int) -> None:
    ids = []
    for rank in range(ranks):
        for batch in eval_batches(mixed, RULE, batch_size=2, rank=rank, world_size=ranks, workers=0, pin=False):
            assert len(batch.targets) <= 2
            ids += batch.image_ids_B.tolist()
    assert sorted(ids) == list(range(1, 11))


def test_evaluation_takes_the_last_shorter_side_and_changes_no_pixel(tmp_path: Path) -> None:
    coco = write_data_set(tmp_path, [(64, 80)])
    (batch,) = eval_batches(coco, RULE, batch_size=4, rank=0, world_size=1, workers=0, pin=False)
    stored = torch.from_numpy(np.array(Image.open(tmp_path / "1.png"))).permute(2, 0, 1)
    assert batch.sizes_B2.tolist() == [[64, 80]]
    assert torch.equal(batch.images[0, :, :64, :80], stored)
    assert batch.targets[0].boxes_G4.tolist() == [[5, 5, 25, 20]]


@pytest.mark.parametrize("workers", [0, 2])
def test_files_that_cannot_be_read_are_named_together(tmp_path: Path, workers: int) -> None:
    coco = write_data_set(tmp_path, [(40, 60)] * 4)
    whole = (tmp_path / "2.png").read_bytes()
    (tmp_path / "2.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "3.png").unlink()
    with pytest.raises(DataError) as caught:
        list(batches_of(coco, workers=workers))
    assert str(tmp_path / "2.png") in str(caught.value)
    assert str(tmp_path / "3.png") in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_another_image_takes_the_place_of_one_that_cannot_be_read(
    mixed: CocoDataset, workers: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the same shape, the same on any number of ranks; the file is named once."""
    bad = mixed.images[3]
    records = tuple(r._replace(path=tmp_path / "gone.jpg") if r.id == bad.id else r for r in mixed.images)
    damaged = replace(mixed, images=records)
    skipped = [SkippedImages(1, len(records)) for _ in range(2)]

    def ids(shard: Shard, skips: SkippedImages) -> list[int]:
        batches = train_batches(
            *(damaged, RULE, NO_AUGMENT),
            batch_size=2,
            seed=0,
            steps=(0, 12),
            shard=shard,
            workers=workers,
            pin=False,
            skipped=skips,
        )
        return [int(number) for batch in batches for number in batch.image_ids_B]

    alone = ids(Shard(0, 1, 1), skipped[0])
    assert bad.id not in alone
    assert alone[::2] == ids(Shard(0, 2, 1), skipped[1])
    assert [*skipped[0].errors] == [3]
    assert sum("gone.jpg: no such image file" in record.getMessage() for record in caplog.records) <= 2
    with pytest.raises(DataError, match=r"more than 0 of 10 images cannot be read .*bad_images.*\n.*gone\.jpg"):
        ids(Shard(0, 1, 1), SkippedImages(0, len(records)))


def test_an_image_that_changed_its_size_is_named_with_both_sizes(tmp_path: Path) -> None:
    coco = write_data_set(tmp_path, [(40, 60)] * 4)
    Image.new("RGB", (30, 20)).save(tmp_path / "4.png")
    with pytest.raises(DataError, match=r"4\.png: is 20x30 \(height x width\).*all\.json says 40x60.*image id 4"):
        list(batches_of(coco))


def image_of(value: int, mib: float) -> Tensor:
    return torch.full((int(mib * MIB),), value, dtype=torch.uint8)


def test_an_image_is_made_once() -> None:
    cache, made = ImageCache(2), Counter[str]()

    def make(key: str) -> Tensor:
        made[key] += 1
        return image_of(len(made), 0.5)

    first = {key: cache.get(key, lambda key=key: make(key)) for key in "abc"}
    assert all(cache.get(key, lambda: pytest.fail("kept already")) is first[key] for key in "abc")
    assert set(made.values()) == {1}


def test_a_full_cache_keeps_what_it_has_and_takes_what_still_fits() -> None:
    cache = ImageCache(2)
    for key, mib in (("a", 1.0), ("large", 1.5), ("b", 0.75), ("c", 0.5), ("d", 0.25)):
        cache.get(key, lambda mib=mib: image_of(1, mib))
    again = {key: int(cache.get(key, lambda: image_of(2, 2.0))[0]) for key in ("a", "large", "b", "c", "d")}
    assert again == {"a": 1, "large": 2, "b": 1, "c": 2, "d": 1}


def test_nothing_is_kept_with_a_bound_of_zero() -> None:
    cache = ImageCache(0)
    cache.get("a", lambda: image_of(1, 0.1))
    assert int(cache.get("a", lambda: image_of(2, 0.1))[0]) == 2


def test_threads_that_make_one_image_together_count_it_once() -> None:
    cache, both = ImageCache(2), threading.Barrier(2)

    def make() -> Tensor:
        both.wait(10)
        return image_of(1, 1.0)

    threads = [threading.Thread(target=cache.get, args=("a", make)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    cache.get("b", lambda: image_of(1, 1.0))
    assert int(cache.get("b", lambda: image_of(2, 1.0))[0]) == 1, "there is room for the second image"


RECOLOUR = NO_AUGMENT._replace(color_jitter=0.3, flip=0.5, vertical_flip=0.5)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("augment", [JITTER, RECOLOUR], ids=["jitter", "recolour"])
@pytest.mark.parametrize(
    ("resize", "sides"), [("antialias", (48, 40)), ("antialias", (64,)), ("float_bilinear", (48,))]
)
def test_pixels_and_boxes_do_not_depend_on_the_cache(
    resize: Resize,
    sides: tuple[int, ...],
    augment: Augment,
    workers: int,
    shapes: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Five epochs, so that every image comes from the cache. Two threads may decode one image at the same time."""
    coco, decode = load_coco(shapes / "annotations" / "train.json", shapes / "train"), whole_images.decode_image
    decoded: Counter[Path] = Counter()

    def counted(path: Path, *given: Any, **options: Any) -> Tensor:
        decoded[path] += 1
        return decode(path, *given, **options)

    resize_rule = ResizeRule(shorter_side=sides, longer_side=96, canvas=None, resize=resize, canvases="groups")
    monkeypatch.setattr(whole_images, "decode_image", counted)
    without = cached_batches(coco, resize_rule, augment, workers, cache_mib=0)
    assert min(decoded.values()) == 5
    decoded.clear()
    kept = cached_batches(coco, resize_rule, augment, workers, cache_mib=64)
    assert max(decoded.values()) <= max(1, workers)
    assert sum(decoded.values()) <= 20
    assert all(same(a, b) for a, b in zip(without, kept, strict=True))


def cached_batches(
    coco: CocoDataset, resize_rule: ResizeRule, augment: Augment, workers: int, cache_mib: int
) -> list[Batch]:
    return list(
        train_batches(
            coco, resize_rule, augment, batch_size=4, seed=3, steps=(0, 15), shard=Shard(0, 1, 1), workers=workers,
            pin=False, cache_mib=cache_mib,
        )
    )  # fmt: skip
