"""The pictures before the first step: the data, and the first batch as the network sees it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from retinanet.data.coco import ImageRecord, load_coco
from retinanet.data.transforms import PixelRule, ResizeRule
from retinanet.detection.anchors import AnchorSpec
from retinanet.detection.assign import AssignRule
from retinanet.run import data_picture
from retinanet.run.batch_picture import SIDE, NetworkView, draw_input, draw_train_batch, seen_images
from retinanet.run.data_picture import anchor_shapes, data_columns, draw_data
from retinanet.structures import Batch, Category, Targets

ANCHORS = AnchorSpec(
    sizes=(16, 32, 64, 128, 256), scales=(1.0,), aspect_ratios=(1.0, 4.0), offset=0.5, rounding="none", spacing="stride"
)
RULE = ResizeRule(shorter_side=(64,), longer_side=200, canvas=None, resize="antialias", canvases="groups")
VIEW = NetworkView(
    pixels=PixelRule("bgr", (100.0, 110.0, 120.0), (50.0, 60.0, 70.0)),
    channels_last=True,
    anchors=ANCHORS,
    rule=AssignRule(
        0.5, 0.4, low_quality=False, low_quality_min_iou=0.0, low_quality_takes="best_box", crowd_overlap=0.5
    ),
    categories=(Category(1, "thing"), Category(2, "猫 $x$ _y")),
)


def record(image_id: int, size: tuple[int, int], boxes: list[list[float]]) -> ImageRecord:
    """size: height and width."""
    return ImageRecord(
        id=image_id,
        path=Path("none.jpg"),
        height=size[0],
        width=size[1],
        boxes_G4=np.array(boxes, dtype=np.float32).reshape(-1, 4),
        classes_G=np.zeros(len(boxes), dtype=np.int64),
        crowd_C4=np.zeros((0, 4), dtype=np.float32),
    )


def batch_of(boxes: list[list[float]], classes: list[int], crowd: list[list[float]]) -> Batch:
    """One image of 48 x 64 pixels on a canvas of 64 x 64."""
    return Batch(
        images=torch.full((1, 3, 64, 64), 200, dtype=torch.uint8),
        sizes_B2=torch.tensor([[48, 64]]),
        original_sizes_B2=torch.tensor([[48, 64]]),
        image_ids_B=torch.tensor([1]),
        targets=[
            Targets(torch.tensor(boxes).reshape(-1, 4), torch.tensor(classes), torch.tensor(crowd).reshape(-1, 4))
        ],
    )


def test_columns_are_in_the_resized_frame() -> None:
    records = (record(1, (128, 256), [[0, 0, 64, 32], [128, 64, 256, 128]]), record(2, (64, 64), []))
    columns = data_columns(records, RULE)
    assert columns.sizes_N2.tolist() == [[32, 16], [64, 32]]
    assert columns.centres_N2.tolist() == [[0.125, 0.125], [0.75, 0.75]]
    assert columns.objects_I.tolist() == [2, 0]
    assert columns.stored_I2.tolist() == [[256, 128], [64, 64]]


def test_anchors_are_compared_by_width_and_height() -> None:
    shapes = anchor_shapes(ANCHORS)
    assert shapes[:2].tolist() == [[16, 16], [8, 32]]
    assert len(shapes) == 10


def test_a_huge_data_set_is_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_picture, "MOST_IMAGES", 10)
    assert 5 <= len(data_columns(tuple(record(i, (64, 64), []) for i in range(95)), RULE).objects_I) <= 10


@pytest.mark.slow
def test_data_is_drawn_with_and_without_objects(shapes: Path, tmp_path: Path) -> None:
    dataset = load_coco(shapes / "annotations/train.json", shapes / "train")
    draw_data(tmp_path / "data.png", dataset, RULE, ANCHORS)
    picture = np.array(Image.open(tmp_path / "data.png"))
    assert picture.shape[1] > picture.shape[0] > 800
    assert picture.std() > 20


def test_the_network_sees_the_mean_colour_as_padding() -> None:
    seen = seen_images(*batch_of([], [], [])[:2], VIEW)
    assert seen.shape == (1, 64, 64, 3)
    assert (seen[0, :48] == 200).all()
    assert seen[0, 60, 30].tolist() == [120, 110, 100], "the mean, whose order is that of the network"


def test_boxes_anchors_and_ignored_regions_are_where_they_belong() -> None:
    plain = np.full((64, 64, 3), 200, dtype=np.uint8)
    drawn = draw_input(plain, batch_of([[12, 12, 28, 28]], [0], [[40, 8, 60, 30]]), 0, VIEW)
    assert drawn.shape == (SIDE, SIDE, 3)
    changed = (drawn != 200).any(axis=2)
    scale = SIDE / 64
    assert changed[int(20 * scale), int(12 * scale)], "the left edge of the box"
    assert changed[int(9 * scale) : int(29 * scale), int(40 * scale)].mean() > 0.3, "dashes of the ignored region"
    assert not changed[int(40 * scale) :, int(40 * scale) :].any(), "nothing is there"
    missed = draw_input(plain, batch_of([[12, 12, 15, 50]], [0], []), 0, VIEW)
    assert (missed[int(30 * scale), int(12 * scale)] == (225, 30, 30)).all(), "no anchor reaches it"


def test_a_batch_becomes_one_sheet(tmp_path: Path) -> None:
    batches = [batch_of([[12, 12, 28, 28]], [1], []), batch_of([], [], [])] * 9
    draw_train_batch(tmp_path / "train_batch.jpg", batches, VIEW)
    with Image.open(tmp_path / "train_batch.jpg") as picture:
        width, height = picture.size
    assert width > 4 * SIDE
    assert 4 * SIDE < height < 5 * SIDE
