"""Quality focal loss and varifocal loss against their papers' equations in 150-digit decimals."""

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from functools import partial

import pytest
import torch
from torch import Tensor

from retinanet.config.class_losses import QualityFocalKeys, VarifocalKeys
from retinanet.detection.boxes import decode, encode, iou
from retinanet.losses.focal import focal
from retinanet.losses.quality import paired_iou, predicted_iou, quality_focal, varifocal
from retinanet.structures import BACKGROUND, IGNORE, ClassTargets

GRID = (-100.0, -30.0, -12.5, -5.0, -1.0, -0.25, 0.0, 0.25, 1.0, 5.0, 12.5, 30.0, 100.0)
QUALITIES = (0.0, 0.1, 0.5, 0.75, 1.0)
Loss = Callable[[Tensor, ClassTargets], Tensor]
ALL: dict[str, Loss] = {
    **{f"qfl{beta:g}": partial(quality_focal, beta=beta) for beta in (0.0, 0.5, 1.0, 2.0)},
    **{f"vfl{gamma:g}": partial(varifocal, alpha=0.75, gamma=gamma) for gamma in (0.0, 0.5, 2.0)},
}
every_loss = pytest.mark.parametrize("loss", list(ALL.values()), ids=list(ALL))


def targets_of(labels_BA: Tensor, quality: Tensor, normaliser: Tensor | None = None) -> ClassTargets:
    """Anchors of 100 x 100 pixels that the network leaves alone, and boxes that overlap them by `quality` (P,)."""
    images, anchors = labels_BA.shape
    anchors_A4 = torch.tensor([0.0, 0.0, 100.0, 100.0]).repeat(anchors, 1)
    boxes_P4 = torch.tensor([0.0, 0.0, 100.0, 100.0]).repeat(len(quality), 1)
    boxes_P4[:, 3] = (100 * quality).round()
    boxes_P4[quality == 0] = torch.tensor([200.0, 200.0, 250.0, 250.0])
    return ClassTargets(
        labels_BA,
        torch.ones(images) if normaliser is None else normaliser,
        images,
        torch.zeros(images, dtype=torch.int64),
        anchors_A4,
        torch.zeros(images, anchors, 4),
        boxes_P4,
        torch.full((len(quality),), math.nan),
    )


def value_and_gradient(loss: Loss, logits: Tensor, targets: ClassTargets) -> tuple[Tensor, Tensor]:
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, targets)
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), gradient


def random_case() -> tuple[Tensor, ClassTargets]:
    generator = torch.Generator().manual_seed(11)
    labels = torch.randint(-1, 4, (2, 60), generator=generator)
    quality = torch.rand(int((labels >= 0).sum()), generator=generator)
    return torch.randn((2, 60, 4), generator=generator) * 5, targets_of(labels, quality, torch.tensor([2.0, 5.0]))


def cross_entropy_of(y: Decimal, p: Decimal) -> Decimal:
    return -((1 - y) * (1 - p).ln() + y * p.ln())


def paper_qfl(x: float, quality: float, beta: float) -> tuple[float, float]:
    """QFL and the derivative of the whole of it by x."""
    with localcontext() as context:
        context.prec = 150
        p, y, b = 1 / (1 + (-Decimal(x)).exp()), Decimal(quality), Decimal(beta)
        distance, ce = abs(y - p), cross_entropy_of(y, p)
        if distance == 0:
            return (float(ce), 0.0) if beta == 0 else (0.0, 0.0)
        modulation = distance**b if beta else Decimal(1)
        slope = b * modulation / distance * (1 if p > y else -1) * p * (1 - p)
        return float(modulation * ce), float(modulation * (p - y) + slope * ce)


def paper_vfl(x: float, quality: float, alpha: float, gamma: float) -> tuple[float, float]:
    """Equation 2 and the derivative of the whole of it by x."""
    with localcontext() as context:
        context.prec = 150
        p, q = 1 / (1 + (-Decimal(x)).exp()), Decimal(quality)
        if q > 0:
            return float(q * cross_entropy_of(q, p)), float(q * (p - q))
        weight = Decimal(alpha) * p ** Decimal(gamma) if gamma else Decimal(alpha)
        log = (1 - p).ln()
        return float(-weight * log), float(weight * (p - Decimal(gamma) * (1 - p) * log))


def check(loss: Loss, paper: Callable[[float, float], tuple[float, float]]) -> None:
    """Every logit with every quality at the label's class, and with 0 at a background anchor.

    Relative 1e-6 in float32, but that |y - sigmoid(x)| between 0 and 1 is known only to the rounding of sigmoid(x),
    whatever is left of it; float64 shows that nothing else is lost there.
    """
    for label, quality in [(0, q) for q in QUALITIES] + [(BACKGROUND, 0.0)]:
        labels = torch.full((1, len(GRID)), label)
        targets = targets_of(labels, torch.full((int((labels >= 0).sum()),), quality))
        expected = [paper(x, torch.tensor(quality).item()) for x in GRID]
        rounding = 1e-30 if quality in (0.0, 1.0) else 5e-8
        for dtype, rel, most in ((torch.float32, 1e-6, rounding), (torch.float64, 1e-12, 1e-30)):
            logits = torch.tensor(GRID, dtype=dtype)[None, :, None]
            value, gradient = value_and_gradient(loss, logits, targets)
            assert value.dtype == dtype
            assert value[0].tolist() == pytest.approx([v for v, _ in expected], rel=rel, abs=most)
            assert gradient[0, :, 0].tolist() == pytest.approx([g for _, g in expected], rel=rel, abs=most)


@pytest.mark.parametrize("beta", [0.0, 1.0, 2.0, 2.5])
def test_quality_focal_equals_its_paper(beta: float) -> None:
    check(partial(quality_focal, beta=beta), partial(paper_qfl, beta=beta))


@pytest.mark.parametrize(("alpha", "gamma"), [(0.75, 2.0), (1.25, 1.5), (0.5, 1.0), (1.0, 0.0)])
def test_varifocal_equals_its_paper(alpha: float, gamma: float) -> None:
    check(partial(varifocal, alpha=alpha, gamma=gamma), partial(paper_vfl, alpha=alpha, gamma=gamma))


def test_an_anchor_sums_its_outputs_and_is_divided_by_its_images_normaliser() -> None:
    logits = torch.tensor([[[-1.5, 0.5, 2.0]], [[0.25, -3.0, 1.0]]])
    targets = targets_of(torch.tensor([[1], [BACKGROUND]]), torch.tensor([0.75]), torch.tensor([4.0, 8.0]))
    wanted = [[0.0, 0.75, 0.0], [0.0, 0.0, 0.0]]
    for loss, paper in (
        (partial(quality_focal, beta=2.0), partial(paper_qfl, beta=2.0)),
        (partial(varifocal, alpha=0.75, gamma=2.0), partial(paper_vfl, alpha=0.75, gamma=2.0)),
    ):
        value = loss(logits, targets)
        for image, divisor in enumerate((4.0, 8.0)):
            terms = [paper(x, q)[0] for x, q in zip(logits[image, 0].tolist(), wanted[image], strict=True)]
            assert value[image, 0].item() == pytest.approx(sum(terms) / divisor, rel=1e-6)


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_with_perfect_boxes_quality_focal_is_focal_without_alpha(beta: float) -> None:
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(-2, 3, (2, 50), generator=generator)
    logits = torch.randn((2, 50, 3), generator=generator) * 4
    targets = targets_of(labels, torch.ones(int((labels >= 0).sum())))
    value, gradient = value_and_gradient(partial(quality_focal, beta=beta), logits, targets)
    leaf = logits.clone().requires_grad_()
    expected = 2 * focal(leaf, labels, alpha=0.5, gamma=beta)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), leaf)
    torch.testing.assert_close(value, expected.detach(), rtol=2e-6, atol=1e-12)
    torch.testing.assert_close(gradient, expected_gradient, rtol=2e-6, atol=1e-12)


@every_loss
def test_a_score_at_its_target_is_left_alone(loss: Loss) -> None:
    """The minimum over x lies at sigmoid(x) = IoU, also where the modulating factor is 0 there."""
    targets = targets_of(torch.tensor([[0, 0, 0]]), torch.full((3,), 0.5))
    value, gradient = value_and_gradient(loss, torch.tensor([[[-0.5], [0.0], [0.5]]]), targets)
    assert gradient[0, 1, 0].item() == pytest.approx(0.0, abs=1e-7)
    assert gradient[0, 0, 0].item() < 0 < gradient[0, 2, 0].item()
    assert value[0, 1].item() < min(value[0, 0].item(), value[0, 2].item())


def test_the_target_is_the_iou_of_the_decoded_box() -> None:
    """Against encode, decode and the pairwise IoU, in the order of the positives over several images."""
    generator = torch.Generator().manual_seed(4)
    labels = torch.tensor([[0, BACKGROUND, 2, IGNORE, 1], [BACKGROUND, BACKGROUND, 0, 0, IGNORE]])
    corners = torch.rand((10, 2), generator=generator) * 50
    boxes = torch.cat([corners, corners + 20 + torch.rand((10, 2), generator=generator) * 60], dim=1)
    anchors, truth = boxes[:5], boxes[5:]
    noise = torch.randn((2, 5, 4), generator=generator) * 0.2
    targets = targets_of(labels, torch.ones(5))._replace(anchors_A4=anchors, boxes_P4=truth)
    perfect, expected = torch.zeros(2, 5, 4), torch.zeros(2, 5)
    for p, (b, a) in enumerate((labels >= 0).nonzero().tolist()):
        perfect[b, a] = encode(truth[p : p + 1], anchors[a : a + 1])[0]
        expected[b, a] = iou(decode(noise[b, a : a + 1], anchors[a : a + 1]), truth[p : p + 1])[0, 0]
    assert expected[0, 0] > 0
    torch.testing.assert_close(predicted_iou(targets._replace(deltas_BA4=noise)), expected)
    exact = predicted_iou(targets._replace(deltas_BA4=perfect))
    torch.testing.assert_close(exact, (labels >= 0).float(), rtol=0, atol=1e-5)


def test_the_pairs_of_iou() -> None:
    a = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4], [0, 0, 4, 4], [0, 0, 2, 2], [1, 1, 1, 1]])
    b = torch.tensor([[0.0, 0, 4, 4], [2, 0, 6, 4], [5, 5, 9, 9], [0, 0, 4, 4], [1, 1, 1, 1]])
    assert paired_iou(a, b).tolist() == pytest.approx([1.0, 1 / 3, 0.0, 0.25, 0.0])


@every_loss
def test_the_target_carries_no_gradient(loss: Loss) -> None:
    logits, targets = random_case()
    deltas = targets.deltas_BA4.clone().requires_grad_()
    value = loss(logits.requires_grad_(), targets._replace(deltas_BA4=deltas))
    assert torch.autograd.grad(value.sum(), deltas, allow_unused=True) == (None,)


@every_loss
def test_ignored_anchors_give_exact_zeros_and_leave_the_others_alone(loss: Loss) -> None:
    logits, targets = random_case()
    ignored = torch.zeros_like(targets.labels_BA, dtype=torch.bool)
    ignored[:, ::3] = True
    kept_P = ~ignored[targets.labels_BA >= 0]
    fewer = targets._replace(
        labels_BA=torch.where(ignored, IGNORE, targets.labels_BA), boxes_P4=targets.boxes_P4[kept_P]
    )
    value, gradient = value_and_gradient(loss, logits, fewer)
    plain_value, plain_gradient = value_and_gradient(loss, logits, targets)
    assert value[ignored].abs().sum().item() == 0
    assert gradient[ignored].abs().sum().item() == 0
    assert torch.equal(value[~ignored], plain_value[~ignored])
    assert torch.equal(gradient[~ignored], plain_gradient[~ignored])


@every_loss
def test_no_positives_and_all_ignored_and_no_anchors(loss: Loss) -> None:
    nothing = torch.zeros(0)
    value, gradient = value_and_gradient(
        loss, torch.randn(2, 5, 3), targets_of(torch.full((2, 5), BACKGROUND), nothing)
    )
    assert (value > 0).all()
    assert (gradient > 0).all()
    for labels in (torch.full((2, 5), IGNORE), torch.full((2, 0), IGNORE)):
        value, gradient = value_and_gradient(loss, torch.randn(*labels.shape, 3) * 100, targets_of(labels, nothing))
        assert value.shape == labels.shape
        assert value.abs().sum().item() == 0
        assert gradient.abs().sum().item() == 0


@every_loss
@pytest.mark.parametrize("size", [40.0, 100.0, 200.0, 1e4])
@pytest.mark.parametrize("quality", QUALITIES)
def test_saturated_logits_stay_finite(loss: Loss, size: float, quality: float) -> None:
    """Also where |y - sigmoid(x)| is 0 and beta - 1 is negative."""
    logits = torch.tensor([[[size, -size], [-size, size], [size, size], [-size, -size]]])
    for label in (0, 1, BACKGROUND, IGNORE):
        targets = targets_of(torch.full((1, 4), label), torch.full((4 if label >= 0 else 0,), quality))
        value, gradient = value_and_gradient(loss, logits, targets)
        assert torch.isfinite(value).all()
        assert torch.isfinite(gradient).all()
        assert (value >= 0).all()


def test_a_positive_whose_box_misses_is_a_negative_to_varifocal() -> None:
    logits = torch.tensor([[[0.5], [0.5]]])
    value, gradient = value_and_gradient(
        partial(varifocal, alpha=0.75, gamma=2.0), logits, targets_of(torch.tensor([[0, BACKGROUND]]), torch.zeros(1))
    )
    assert value[0, 0] == value[0, 1] > 0
    assert gradient[0, 0] == gradient[0, 1] > 0


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(loss: Loss, dtype: torch.dtype) -> None:
    logits, targets = random_case()
    half = logits.to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, gradient = value_and_gradient(loss, half, targets._replace(deltas_BA4=targets.deltas_BA4.to(dtype)))
    full_value, full_gradient = value_and_gradient(loss, half.float(), targets)
    assert value.dtype == torch.float32
    assert torch.equal(value, full_value)
    assert torch.equal(gradient, full_gradient.to(dtype))


@every_loss
def test_gradcheck(loss: Loss) -> None:
    """The gradient of the whole formula, modulating factor and all."""
    logits = torch.tensor(
        [[[-3.0, 0.5, 2.0], [0.1, -0.75, 4.0], [1.0, 1.0, -6.0]]], dtype=torch.float64, requires_grad=True
    )
    targets = targets_of(torch.tensor([[1, BACKGROUND, IGNORE]]), torch.tensor([0.25]))
    assert torch.autograd.gradcheck(lambda x: loss(x, targets), (logits,))


def test_keys() -> None:
    assert QualityFocalKeys().model_dump() == {"weight": 1.0, "kind": "quality_focal", "beta": 2.0}
    assert VarifocalKeys().model_dump() == {"weight": 1.0, "kind": "varifocal", "alpha": 0.75, "gamma": 2.0}
