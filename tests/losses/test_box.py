"""Box losses against closed forms in Python floats, their numerical gradients, and torchvision."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

from retinanet.build.losses import build_box_loss
from retinanet.config.class_losses import BoxLossKeys
from retinanet.detection import boxes
from retinanet.losses.box import BoxRegressionLoss

KINDS = ("l1", "smooth_l1", "giou", "diou", "ciou")
every_kind = pytest.mark.parametrize("kind", KINDS)
Box = list[float]


def build(kind: str, beta: float = 1 / 9) -> BoxRegressionLoss:
    return build_box_loss(BoxLossKeys.model_validate({"kind": kind, "beta": beta}))


def positives() -> tuple[Tensor, Tensor, Tensor]:
    """Deltas, boxes and anchors of 12 positives: overlapping pairs, then two whose prediction is far off."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand((12, 2), generator=generator) * 40
    anchors = torch.cat([corner, corner + 20 + torch.rand((12, 2), generator=generator) * 30], dim=1)
    gt = anchors + torch.randn((12, 4), generator=generator) * 4
    deltas = boxes.encode(gt, anchors) + torch.randn((12, 4), generator=generator) * 0.15
    deltas[-2:, :2] += 5
    return deltas, gt, anchors


def centre_form(box: Box) -> Box:
    return [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2, box[2] - box[0], box[3] - box[1]]


def encode_by_hand(box: Box, anchor: Box) -> Box:
    (bx, by, bw, bh), (ax, ay, aw, ah) = centre_form(box), centre_form(anchor)
    return [(bx - ax) / aw, (by - ay) / ah, math.log(bw / aw), math.log(bh / ah)]


def decode_by_hand(deltas: Box, anchor: Box) -> Box:
    ax, ay, aw, ah = centre_form(anchor)
    x, y, w, h = ax + deltas[0] * aw, ay + deltas[1] * ah, aw * math.exp(deltas[2]), ah * math.exp(deltas[3])
    return [x - w / 2, y - h / 2, x + w / 2, y + h / 2]


def iou_by_hand(a: Box, b: Box) -> tuple[float, float]:
    """IoU and union."""
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / union, union


def hull(a: Box, b: Box) -> tuple[float, float]:
    return max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1])


def giou_by_hand(a: Box, b: Box) -> float:
    (iou, union), (w, h) = iou_by_hand(a, b), hull(a, b)
    return 1 - (iou - (w * h - union) / (w * h))


def diou_by_hand(a: Box, b: Box) -> float:
    (iou, _), (w, h) = iou_by_hand(a, b), hull(a, b)
    (ax, ay, _, _), (bx, by, _, _) = centre_form(a), centre_form(b)
    return 1 - iou + ((ax - bx) ** 2 + (ay - by) ** 2) / (w * w + h * h)


def aspect_term(a: Box, b: Box) -> float:
    (_, _, aw, ah), (_, _, bw, bh) = centre_form(a), centre_form(b)
    return 4 / math.pi**2 * (math.atan(bw / bh) - math.atan(aw / ah)) ** 2


def closed_form(kind: str, deltas: Box, gt: Box, anchor: Box, beta: float) -> Callable[[Box], float]:
    """The loss as a function of the deltas. CIoU's weight alpha is held at `deltas`, as its gradient treats it."""
    target = encode_by_hand(gt, anchor)

    def smooth(d: float) -> float:
        return d * d / (2 * beta) if abs(d) < beta else abs(d) - beta / 2

    start = decode_by_hand(deltas, anchor)
    v = aspect_term(start, gt)
    alpha = v / (1 - iou_by_hand(start, gt)[0] + v)
    return {
        "l1": lambda p: sum(abs(x - t) for x, t in zip(p, target, strict=True)),
        "smooth_l1": lambda p: sum(smooth(x - t) for x, t in zip(p, target, strict=True)),
        "giou": lambda p: giou_by_hand(decode_by_hand(p, anchor), gt),
        "diou": lambda p: diou_by_hand(decode_by_hand(p, anchor), gt),
        "ciou": lambda p: diou_by_hand(b := decode_by_hand(p, anchor), gt) + alpha * aspect_term(b, gt),
    }[kind]


@every_kind
@pytest.mark.parametrize("beta", [1 / 9, 1.0])
def test_value_and_gradient_equal_the_closed_form(kind: str, beta: float) -> None:
    deltas, gt, anchors = positives()
    leaf = deltas.clone().requires_grad_()
    value = build(kind, beta)(leaf, gt, anchors)
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    assert value.shape == (12,)
    assert value.dtype == torch.float32
    for row, (point, box, anchor) in enumerate(zip(deltas.tolist(), gt.tolist(), anchors.tolist(), strict=True)):
        loss = closed_form(kind, point, box, anchor, beta)
        assert value[row].item() == pytest.approx(loss(point), rel=2e-5, abs=2e-6)
        for axis in range(4):
            step = [1e-6 * (i == axis) for i in range(4)]
            high, low = (loss([p + sign * s for p, s in zip(point, step, strict=True)]) for sign in (1, -1))
            assert gradient[row, axis].item() == pytest.approx((high - low) / 2e-6, rel=1e-3, abs=2e-5)


@pytest.mark.parametrize(
    ("kind", "oracle"),
    [("giou", generalized_box_iou_loss), ("diou", distance_box_iou_loss), ("ciou", complete_box_iou_loss)],
)
def test_iou_losses_equal_torchvision(kind: str, oracle: Callable[[Tensor, Tensor], Tensor]) -> None:
    deltas, gt, anchors = positives()
    torch.testing.assert_close(build(kind)(deltas, gt, anchors), oracle(boxes.decode(deltas, anchors), gt))


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_smooth_l1_by_hand_on_both_sides_of_beta(beta: float) -> None:
    anchors = torch.tensor([[0.0, 0.0, 10.0, 10.0]]).repeat(3, 1)
    deltas = torch.zeros(3, 4)
    deltas[:, 0] = torch.tensor([beta / 2, beta, 3 * beta])
    expected = [beta / 8, beta / 2, 2.5 * beta]
    assert build("smooth_l1", beta)(deltas, anchors, anchors).tolist() == pytest.approx(expected)


@every_kind
def test_a_perfect_prediction_costs_nothing(kind: str) -> None:
    _, gt, anchors = positives()
    assert build(kind)(boxes.encode(gt, anchors), gt, anchors).abs().max().item() < 1e-5


@every_kind
def test_without_positives_the_loss_is_empty_and_the_gradient_zero(kind: str) -> None:
    deltas = torch.zeros((0, 4), requires_grad=True)
    value = build(kind)(deltas, torch.zeros(0, 4), torch.zeros(0, 4))
    assert value.shape == (0,)
    value.sum().backward()
    assert deltas.grad is not None
    assert deltas.grad.shape == (0, 4)


@every_kind
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_and_autocast_are_computed_in_float32(kind: str, dtype: torch.dtype) -> None:
    deltas, gt, anchors = positives()
    half = deltas.to(dtype)
    expected = build(kind)(half.float(), gt, anchors)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = build(kind)(half, gt, anchors)
    assert value.dtype == torch.float32
    assert torch.equal(value, expected)


@every_kind
def test_wild_predictions_stay_finite(kind: str) -> None:
    """A diverging network's deltas: scales far over the bound, and so small that the decoded box has no side left."""
    anchors = torch.tensor([[980.0, 580.0, 1012.0, 612.0]])
    for scale in (50.0, -20.0, -500.0):
        deltas = torch.tensor([[3.0, -3.0, scale, scale]], requires_grad=True)
        value = build(kind)(deltas, anchors, anchors)
        value.sum().backward()
        assert torch.isfinite(value).all(), scale
        assert deltas.grad is not None
        assert torch.isfinite(deltas.grad).all(), scale
