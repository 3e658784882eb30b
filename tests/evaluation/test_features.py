"""Features of a frozen backbone: equal to what the backbone computes, named by all that they depend on, verified."""

import json
import os
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from retinanet.data import feature_cache
from retinanet.data.coco import CocoDataset, load_coco
from retinanet.data.loader import Shard, eval_batches, train_batches
from retinanet.data.transforms import NO_AUGMENT, Augment, Mirroring, PixelRule, ResizeRule, possible_mirrorings
from retinanet.errors import ResourceError
from retinanet.evaluation.features import FeatureRule, open_features
from retinanet.model.backbone import Backbone

RULE = ResizeRule(shorter_side=(48,), longer_side=96, canvas=None, resize="antialias", canvases="groups")
FLIPS = Augment(scale_jitter=(1.0, 1.0), color_jitter=0.0, flip=0.5, vertical_flip=0.5)
PIXELS = PixelRule(order="rgb", mean=(120.0, 110.0, 100.0), std=(60.0, 60.0, 60.0))
SIZES = [(40, 60), (60, 40), (50, 50), (40, 60), (30, 90), (60, 40), (40, 61), (50, 50), (48, 64)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RETINANET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "features"


@pytest.fixture
def mixed(tmp_path: Path) -> CocoDataset:
    """Images of several shapes, so of several canvases, a box in each."""
    rng = np.random.default_rng(0)
    images, annotations = [], []
    for index, (height, width) in enumerate(SIZES, start=1):
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(tmp_path / f"{index}.png")
        images.append({"id": index, "file_name": f"{index}.png", "height": height, "width": width})
        annotations.append({"id": index, "image_id": index, "category_id": 1, "bbox": [5, 5, 20, 15]})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (tmp_path / "all.json").write_text(json.dumps(content), encoding="utf-8")
    return load_coco(tmp_path / "all.json", tmp_path)


def rule_of(precision: torch.dtype = torch.float32, channels_last: bool = True, seed: int = 0) -> FeatureRule:
    """Of a network of one convolution a stage."""
    torch.manual_seed(seed)
    layers = [nn.Conv2d(given, made, 3, stride=2, padding=1) for given, made in pairwise((3, 8, 8, 16, 16, 16))]
    backbone = Backbone([nn.Sequential(layer, nn.ReLU()) for layer in layers], (16, 16, 16), frozen_stages=5).eval()
    if channels_last:
        backbone = backbone.to(memory_format=torch.channels_last)
    return FeatureRule(
        backbone=backbone,
        resize_rule=RULE,
        pixels=PIXELS,
        precision=precision,
        channels_last=channels_last,
        device=torch.device("cpu"),
        batch_size=4,
    )


@pytest.mark.parametrize(("precision", "channels_last"), [(torch.float32, True), (torch.bfloat16, False)])
def test_batches_of_the_cache_equal_those_of_the_backbone(
    mixed: CocoDataset, precision: torch.dtype, channels_last: bool
) -> None:
    rule = rule_of(precision, channels_last)
    features = open_features(mixed, rule, FLIPS)
    options = {"batch_size": 4, "seed": 3, "steps": (0, 12), "shard": Shard(0, 1, 1), "workers": 0, "pin": False}
    plain = train_batches(mixed, RULE, FLIPS, **options)  # type: ignore[arg-type]
    cached = train_batches(mixed, RULE, FLIPS, **options, features=features)  # type: ignore[arg-type]
    for with_pixels, without in zip(plain, cached, strict=True):
        assert without.images.shape == (4, 0, *with_pixels.images.shape[2:])
        for mine, theirs in zip(without.features, rule.extract(with_pixels), strict=True):
            assert mine.dtype == theirs.dtype == precision
            assert mine.stride() == theirs.stride()
            torch.testing.assert_close(mine, theirs, rtol=1e-2 if precision == torch.bfloat16 else 1e-5, atol=1e-5)
        for mine_t, theirs_t in zip(without.targets, with_pixels.targets, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(mine_t, theirs_t, strict=True))


def test_an_evaluation_reads_each_image_unmirrored(mixed: CocoDataset) -> None:
    rule = rule_of()
    features = open_features(mixed, rule, NO_AUGMENT)
    assert features.form.mirrorings == (Mirroring(False, False),)
    for batch in eval_batches(mixed, RULE, batch_size=4, rank=0, world_size=1, workers=0, pin=False, features=features):
        for at, image_id in enumerate(batch.image_ids_B.tolist()):
            for level, entry in zip(batch.features, features.entry(image_id - 1, Mirroring(False, False)), strict=True):
                assert torch.equal(level[at], entry)


def test_mirrorings_are_those_that_can_occur() -> None:
    def of(flip: float, vertical: float) -> set[tuple[bool, bool]]:
        return set(possible_mirrorings(FLIPS._replace(flip=flip, vertical_flip=vertical)))

    assert of(0, 0) == {(False, False)}
    assert of(1, 0) == {(True, False)}
    assert of(0.5, 0) == {(False, False), (True, False)}
    assert len(of(0.5, 0.1)) == 4


def test_features_are_computed_once_and_again_where_something_differs(mixed: CocoDataset, cache: Path) -> None:
    def files() -> set[str]:
        return {path.name for path in cache.glob("*.bin")}

    first = open_features(mixed, rule_of(), NO_AUGMENT).entry(0, Mirroring(False, False))
    (name,) = files()
    written = (cache / name).stat().st_mtime_ns
    open_features(mixed, rule_of(), NO_AUGMENT)
    assert (cache / name).stat().st_mtime_ns == written
    others = [rule_of(seed=1), rule_of(torch.bfloat16), rule_of()._replace(pixels=PIXELS._replace(order="bgr"))]
    for count, rule in enumerate(others, start=2):
        open_features(mixed, rule, NO_AUGMENT)
        assert len(files()) == count
    open_features(mixed, rule_of(), FLIPS)
    os.utime(mixed.images[0].path, ns=(1, 1))
    second = open_features(mixed, rule_of(), NO_AUGMENT).entry(0, Mirroring(False, False))
    assert len(files()) == len(others) + 3
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("damage", ["flipped bit", "cut", "empty"])
def test_a_damaged_file_is_computed_anew(mixed: CocoDataset, cache: Path, damage: str) -> None:
    open_features(mixed, rule_of(), NO_AUGMENT)
    (path,) = cache.glob("*.bin")
    good = path.read_bytes()
    bad = bytearray(good)
    bad[len(bad) // 2] ^= 4
    path.write_bytes({"flipped bit": bytes(bad), "cut": good[:-9], "empty": b""}[damage])
    open_features(mixed, rule_of(), NO_AUGMENT)
    assert path.read_bytes() == good


def test_what_a_killed_process_left_is_deleted(mixed: CocoDataset, cache: Path) -> None:
    open_features(mixed, rule_of(), NO_AUGMENT)
    (path,) = cache.glob("*.bin")
    path.unlink()
    left = path.with_name(f".{path.stem}.1-2.partial.bin")
    left.write_bytes(b"half")
    other = path.with_name(".other.1-2.partial.bin")
    other.write_bytes(b"another split's, which may be being written")
    open_features(mixed, rule_of(), NO_AUGMENT)
    assert path.is_file()
    assert not left.exists()
    assert other.exists()


def test_features_that_do_not_fit_on_the_disk_are_refused_before_they_are_computed(
    mixed: CocoDataset, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = feature_cache.shutil.disk_usage(cache.parent.parent)
    monkeypatch.setattr(feature_cache.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(ResourceError, match=r"needs 0\.0 GiB.*RETINANET_CACHE.*data\.feature_cache=false"):
        open_features(mixed, rule_of(), NO_AUGMENT)
    assert not list(cache.glob("*.bin"))
