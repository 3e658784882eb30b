"""Which images are kept, up to which bound, and that pixels do not depend on it."""

import threading
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import Tensor

from retinanet.data import loader
from retinanet.data.coco import CocoDataset, load_coco
from retinanet.data.loader import MIB, ImageCache, Shard, train_batches
from retinanet.data.transforms import NO_AUGMENT, Augment, Resize, ResizeRule
from retinanet.structures import Batch


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


JITTER = Augment(scale_jitter=(0.7, 1.4), color_jitter=0.3, flip=0.5, vertical_flip=0.5)
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
    coco, decode = load_coco(shapes / "annotations" / "train.json", shapes / "train"), loader.decode_image
    decoded: Counter[Path] = Counter()

    def counted(path: Path) -> Tensor:
        decoded[path] += 1
        return decode(path)

    resize_rule = ResizeRule(shorter_side=sides, longer_side=96, canvas=None, resize=resize, canvases="groups")
    monkeypatch.setattr(loader, "decode_image", counted)
    without = batches(coco, resize_rule, augment, workers, cache_mib=0)
    assert min(decoded.values()) == 5
    decoded.clear()
    kept = batches(coco, resize_rule, augment, workers, cache_mib=64)
    assert max(decoded.values()) <= max(1, workers)
    assert sum(decoded.values()) <= 20
    assert all(same(a, b) for a, b in zip(without, kept, strict=True))


def batches(coco: CocoDataset, resize_rule: ResizeRule, augment: Augment, workers: int, cache_mib: int) -> list[Batch]:
    return list(
        train_batches(
            coco, resize_rule, augment, batch_size=4, seed=3, steps=(0, 15), shard=Shard(0, 1, 1), workers=workers,
            pin=False, cache_mib=cache_mib,
        )
    )  # fmt: skip


def same(a: Batch, b: Batch) -> bool:
    tensors = zip(
        [*a[:4], *(t for x in a.targets for t in x)], [*b[:4], *(t for x in b.targets for t in x)], strict=True
    )
    return all(torch.equal(x, y) for x, y in tensors)
