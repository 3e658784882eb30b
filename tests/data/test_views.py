"""Tiles of images, their objects and pixels, and what the network sees of an image."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from retinanet.data.coco import CocoDataset, load_coco
from retinanet.data.loader import Shard, eval_batches, train_batches
from retinanet.data.transforms import NO_AUGMENT, ResizeRule
from retinanet.data.views import ViewRule, count_views, image_views, tile_starts, tile_windows, tiled
from retinanet.data.whole_images import RecentImages
from retinanet.errors import DataError

TILES = ViewRule(tile=64, overlap=0.25, flip=False, scales=(1.0,))
SCALE_1 = ResizeRule(
    shorter_side=(600,), longer_side=1000, canvas=(64, 64), resize="antialias", canvases="groups", max_factor=1.0
)


@pytest.mark.parametrize("tile", [64, 100, 333])
@pytest.mark.parametrize("overlap", [0.0, 0.2, 0.75])
def test_tiles_cover_the_axis_evenly_and_stay_inside(tile: int, overlap: float) -> None:
    for extent in range(1, 1200, 7):
        starts = tile_starts(extent, tile, overlap)
        assert starts[0] == 0
        assert starts[-1] == max(0, extent - tile), "the last one ends at the end, and never past it"
        steps = np.diff(starts)
        assert not len(steps) or steps.max() <= max(1, tile * (1 - overlap)), "neighbours share enough"
        assert not len(steps) or steps.max() - steps.min() <= 1


def test_an_image_smaller_than_a_tile_is_one_window() -> None:
    assert tile_windows(50, 64, 64, 0.2) == [(0, 0, 50, 64)]
    assert tile_windows(50, 65, 64, 0.2) == [(0, 0, 50, 64), (0, 1, 50, 64)]


@pytest.fixture
def large(tmp_path: Path) -> CocoDataset:
    """An image of 150 x 110 pixels with three objects and a crowd region, and one smaller than a tile."""
    rng = np.random.default_rng(0)
    sizes = [(110, 150), (40, 30)]
    for number, (height, width) in enumerate(sizes, start=1):
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    boxes = [[2, 2, 10, 10], [60, 20, 10, 10], [70, 90, 40, 20]]
    rows = [
        {"id": n, "image_id": 1, "category_id": 1, "bbox": box, "area": 100, "iscrowd": 0}
        for n, box in enumerate(boxes, 1)
    ]
    rows.append({"id": 9, "image_id": 1, "category_id": 1, "bbox": [0, 100, 150, 10], "area": 1500, "iscrowd": 1})
    content = {
        "images": [
            {"id": number, "file_name": f"{number}.png", "height": height, "width": width}
            for number, (height, width) in enumerate(sizes, start=1)
        ],
        "annotations": rows,
        "categories": [{"id": 1, "name": "thing"}],
    }
    (tmp_path / "all.json").write_text(json.dumps(content), encoding="utf-8")
    return load_coco(tmp_path / "all.json", tmp_path)


def test_tiles_have_the_objects_that_are_visible_in_them(large: CocoDataset) -> None:
    cut = tiled(large, TILES)
    assert [(r.id, r.height, r.width, r.tile and (r.tile.top, r.tile.left)) for r in cut.images] == [
        *((1, 64, 64, (top, left)) for top in (0, 46) for left in (0, 43, 86)),
        (2, 40, 30, (0, 0)),
    ]
    first, second, third, fourth, fifth, sixth, small = cut.images
    assert first.boxes_G4.tolist() == [[2, 2, 12, 12], [60, 20, 64, 30]], "40 % of the second is visible"
    assert second.boxes_G4.tolist() == [[17, 20, 27, 30]]
    assert third.boxes_G4.tolist() == []
    assert fifth.boxes_G4.tolist() == [[27, 44, 64, 64]]
    assert fourth.crowd_C4.tolist() == [[0, 54, 64, 64]], "and the corner of the third object is outside it"
    assert sixth.boxes_G4.tolist() == [[0, 44, 24, 64]], "60 % of the third"
    assert len(small.boxes_G4) == 0
    assert cut.ground_truth == large.ground_truth
    assert "cut into 7 tiles" in cut.notes[-1]
    assert len(tiled(large, TILES, empty=False).images) == 4
    assert tiled(large, TILES._replace(tile=None)) is large


def test_what_is_left_of_an_object_in_a_tile_is_ignored_there_where_it_is_little(large: CocoDataset) -> None:
    (tile,) = [r for r in tiled(large, TILES._replace(overlap=0.0)).images if r.tile and r.tile[:2] == (46, 43)]
    assert tile.boxes_G4.tolist() == [[27, 44, 64, 64]]
    little = tiled(large, TILES._replace(tile=72, overlap=0.0)).images[4]
    assert little.tile is not None
    assert little.tile.left == 39
    assert little.boxes_G4.tolist() == [[31, 52, 71, 72]]


def test_training_and_evaluation_see_the_pixels_of_the_tiles(large: CocoDataset) -> None:
    whole = torch.from_numpy(np.asarray(Image.open(large.images[0].path)).copy()).permute(2, 0, 1)
    cut = tiled(large, TILES)
    (batch,) = eval_batches(cut, SCALE_1, batch_size=7, rank=0, world_size=1, workers=2, pin=False)
    assert batch.sizes_B2.tolist() == batch.original_sizes_B2.tolist() == [[64, 64]] * 6 + [[40, 30]]
    for image, record in zip(batch.images[:6], cut.images, strict=False):
        assert record.tile is not None
        top, left = record.tile.top, record.tile.left
        assert torch.equal(image, whole[:, top : top + 64, left : left + 64])
    assert not batch.images[6, :, 40:].any(), "a small image is padded, not enlarged"
    batches = train_batches(
        cut,
        SCALE_1,
        NO_AUGMENT,
        batch_size=7,
        seed=0,
        steps=(0, 1),
        shard=Shard(0, 1, 1),
        workers=0,
        pin=False,
        cache_mib=1,
    )
    (trained,) = batches
    objects = sorted(box for targets in trained.targets for box in targets.boxes_G4.tolist())
    assert objects == sorted(box for record in cut.images for box in record.boxes_G4.tolist())
    assert sorted(image.sum().item() for image in trained.images) == sorted(i.sum().item() for i in batch.images)


def test_an_image_of_another_size_than_its_annotation_is_refused(large: CocoDataset) -> None:
    Image.new("RGB", (151, 110)).save(large.images[0].path)
    with pytest.raises(DataError, match=r"1\.png: is 110x151 .*says 110x150; correct the entry of image id 1"):
        next(eval_batches(tiled(large, TILES), SCALE_1, batch_size=1, rank=0, world_size=1, workers=0, pin=False))


def test_views_are_windows_scales_and_mirror_images() -> None:
    image = torch.arange(3 * 80 * 100, dtype=torch.int64).remainder(251).to(torch.uint8).reshape(3, 80, 100)
    rule = TILES._replace(flip=True, scales=(1.0, 0.5))
    views = list(image_views(image, 7, SCALE_1, rule))
    assert len(views) == 4 * 4
    assert [(view.mirrored, view.batch.images.shape[-1]) for view in views[::4]] == [
        (False, 64), (False, 32), (True, 64), (True, 32)
    ]  # fmt: skip
    for view, mirror in zip(views[:4], views[8:12], strict=True):
        x1, y1, x2, y2 = view.window.corners
        assert torch.equal(view.batch.images[0], image[:, y1:y2, x1:x2])
        assert torch.equal(mirror.batch.images[0], image[:, y1:y2, x1:x2].flip(2))
        assert view.batch.image_ids_B.tolist() == [7]
        assert view.batch.original_sizes_B2.tolist() == [[64, 64]]


def test_rules_of_other_scales() -> None:
    rule = ResizeRule(shorter_side=(480, 600), longer_side=1000, canvas=None, resize="antialias", canvases="groups")
    assert rule.scaled(1.0) is rule
    assert rule.scaled(0.5)[:2] == ((240, 300), 500)
    assert SCALE_1.fitted(64, 64, 600) == (64, 64)
    assert SCALE_1.fitted(40, 30, 600) == (40, 30), "never enlarged"
    assert SCALE_1.scaled(1.5).fitted(40, 30, 600) == (60, 45), "but where asked for"
    assert SCALE_1.scaled(1.5).canvas == (96, 96)


def test_the_number_of_views(large: CocoDataset) -> None:
    assert count_views(large.images, TILES) == 7
    assert count_views(large.images, TILES._replace(flip=True, scales=(1.0, 2.0, 0.5))) == 7 * 6


def test_recent_images_are_decoded_once_and_forgotten() -> None:
    made: list[str] = []

    def make(name: str) -> torch.Tensor:
        made.append(name)
        return torch.zeros(1)

    recent = RecentImages(most=2)
    for name in ("a", "a", "b", "a", "c", "a", "b"):
        recent.get(Path(name), lambda name=name: make(name))  # type: ignore[misc]
    assert made == ["a", "b", "c", "b"]

    def broken() -> torch.Tensor:
        raise DataError("broken")

    for _ in range(2):
        with pytest.raises(DataError, match="broken"):
            recent.get(Path("d"), broken)
