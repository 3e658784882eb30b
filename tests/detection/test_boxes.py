"""Box maths against torchvision, hand cases and the inverse laws."""

import math

import pytest
import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder
from torchvision.ops import box_area, box_iou, clip_boxes_to_image

from retinanet.detection import boxes


def random_boxes(count: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand((count, 2), generator=generator, dtype=dtype) * 100
    side = torch.rand((count, 2), generator=generator, dtype=dtype) * 60 + 0.5
    return torch.cat([corner, corner + side], dim=1)


def test_area_and_iou_equal_torchvision() -> None:
    a, b = random_boxes(40, 0), random_boxes(30, 1)
    torch.testing.assert_close(boxes.area(a), box_area(a))
    torch.testing.assert_close(boxes.iou(a, b), box_iou(a, b))
    assert (boxes.iou(a, b) > 0).any()


@pytest.mark.parametrize(
    ("other", "shared", "iou"),
    [
        ([0, 0, 10, 10], 100, 1.0),
        ([0, 0, 10, 5], 50, 0.5),
        ([5, 5, 15, 15], 25, 25 / 175),
        ([2, 2, 4, 4], 4, 0.04),
        ([10, 0, 20, 10], 0, 0.0),
        ([30, 30, 40, 40], 0, 0.0),
        ([3, 0, 3, 10], 0, 0.0),
        ([8, 8, 2, 2], 0, 0.0),
    ],
    ids=["same", "half", "corner", "inside", "touching", "apart", "zero width", "reversed"],
)
def test_iou_by_hand(other: list[float], shared: float, iou: float) -> None:
    a, b = torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([other], dtype=torch.float32)
    assert boxes.intersection(a, b).item() == shared
    assert boxes.iou(a, b).item() == pytest.approx(iou, rel=1e-6)
    assert boxes.iou(b, a).item() == boxes.iou(a, b).item()


def test_two_empty_boxes_have_iou_zero_not_nan() -> None:
    empty = torch.tensor([[5.0, 5.0, 5.0, 5.0]])
    assert boxes.area(empty).item() == 0
    assert boxes.iou(empty, empty).item() == 0
    assert boxes.ioa(empty, empty).item() == 0


def test_overlap_is_the_share_of_the_first_box() -> None:
    small, large = torch.tensor([[0.0, 0.0, 10.0, 10.0]]), torch.tensor([[5.0, -50.0, 100.0, 50.0]])
    assert boxes.ioa(small, large).item() == pytest.approx(0.5)
    assert boxes.ioa(large, small).item() == pytest.approx(50 / 9500)


def test_without_boxes_the_shapes_hold() -> None:
    none, some = torch.zeros((0, 4)), random_boxes(3, 0)
    assert boxes.iou(none, some).shape == (0, 3)
    assert boxes.ioa(some, none).shape == (3, 0)
    assert boxes.encode(none, none).shape == boxes.decode(none, none).shape == (0, 4)
    assert boxes.clip(none, 5.0, 5.0).shape == (0, 4)


def test_encode_by_hand() -> None:
    anchor, box = torch.tensor([[0.0, 0.0, 10.0, 20.0]]), torch.tensor([[5.0, 10.0, 25.0, 20.0]])
    expected = [(15 - 5) / 10, (15 - 10) / 20, math.log(20 / 10), math.log(10 / 20)]
    assert boxes.encode(box, anchor)[0].tolist() == pytest.approx(expected)


def test_encode_and_decode_equal_torchvision() -> None:
    coder = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))
    gt, anchors = random_boxes(50, 2), random_boxes(50, 3)
    deltas = boxes.encode(gt, anchors)
    torch.testing.assert_close(deltas, coder.encode_single(gt, anchors), rtol=1e-5, atol=1e-6)
    wild = deltas * 3
    torch.testing.assert_close(boxes.decode(wild, anchors), coder.decode_single(wild, anchors), rtol=1e-5, atol=1e-3)


def test_decode_inverts_encode_and_encode_inverts_decode() -> None:
    gt, anchors = random_boxes(200, 4, torch.float64), random_boxes(200, 5, torch.float64)
    torch.testing.assert_close(boxes.decode(boxes.encode(gt, anchors), anchors), gt, rtol=0, atol=1e-10)
    deltas = torch.randn((200, 4), generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    torch.testing.assert_close(boxes.encode(boxes.decode(deltas, anchors), anchors), deltas, rtol=0, atol=1e-10)


def test_decode_of_zero_deltas_is_the_anchor() -> None:
    anchors = random_boxes(20, 7)
    torch.testing.assert_close(boxes.decode(torch.zeros(20, 4), anchors), anchors)


def test_decode_cuts_large_scales_at_the_bound_and_leaves_smaller_ones() -> None:
    anchor = torch.tensor([[-8.0, -8.0, 8.0, 8.0]])
    huge = boxes.decode(torch.tensor([[0.0, 0.0, 500.0, boxes.MAX_LOG_SCALE]]), anchor)
    assert huge[0].tolist() == pytest.approx([-500, -500, 500, 500], rel=1e-5)
    below = boxes.decode(torch.tensor([[0.0, 0.0, boxes.MAX_LOG_SCALE - 0.1, -3.0]]), anchor)
    assert below[0, 2].item() == pytest.approx(500 * math.exp(-0.1), rel=1e-5)
    assert below[0, 3].item() == pytest.approx(8 * math.exp(-3), rel=1e-5)


@pytest.mark.parametrize("as_tensor", [False, True])
def test_clip_equals_torchvision(as_tensor: bool) -> None:
    wild = random_boxes(60, 8) * 2 - 60
    height, width = 70, 90
    limits = (torch.tensor(height), torch.tensor(width)) if as_tensor else (float(height), float(width))
    clipped = boxes.clip(wild, *limits)
    torch.testing.assert_close(clipped, clip_boxes_to_image(wild, (height, width)), rtol=0, atol=0)
    assert clipped.dtype == torch.float32
    assert clipped[:, 2].max().item() == width
    assert clipped[:, 3].max().item() == height
