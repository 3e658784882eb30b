"""FL* against the paper's appendix in 150-digit decimals, and its identities with cross entropy."""

from decimal import Decimal, localcontext
from functools import partial

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from retinanet.config.class_losses import FocalStarKeys
from retinanet.losses.cross_entropy import balanced_cross_entropy
from retinanet.losses.focal import focal_star
from retinanet.structures import BACKGROUND, IGNORE

GRID = (-100.0, -30.0, -12.5, -5.0, -1.0, -0.25, 0.0, 0.25, 1.0, 5.0, 12.5, 30.0, 100.0)
PAIRS = [(2.0, 1.0), (4.0, 0.0), (1.0, 0.0), (0.5, -1.0), (3.0, 2.5)]
every_pair = pytest.mark.parametrize(("gamma", "beta"), PAIRS)


def paper(x: float, is_class: bool, gamma: float, beta: float, alpha: float) -> tuple[float, float]:
    """FL* and its derivative by x, y (p*_t - 1), as the appendix prints them, times alpha_t."""
    with localcontext() as context:
        context.prec = 150
        y = 1 if is_class else -1
        alpha_t = Decimal(alpha) if is_class else 1 - Decimal(alpha)
        p_star = 1 / (1 + (-(Decimal(gamma) * y * Decimal(x) + Decimal(beta))).exp())
        return float(-alpha_t * p_star.ln() / Decimal(gamma)), float(alpha_t * y * (p_star - 1))


def value_and_gradient(
    logits: Tensor, labels: Tensor, gamma: float = 2.0, beta: float = 1.0, alpha: float = 0.25
) -> tuple[Tensor, Tensor]:
    leaf = logits.clone().requires_grad_()
    value = focal_star(leaf, labels, gamma, beta, alpha)
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), gradient


def random_case() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    return torch.randn((2, 60, 4), generator=generator) * 5, torch.randint(-1, 4, (2, 60), generator=generator)


@every_pair
@pytest.mark.parametrize("alpha", [0.0, 0.25, 0.75, 1.0])
def test_value_and_gradient_equal_the_appendix(gamma: float, beta: float, alpha: float) -> None:
    logits = torch.tensor(GRID)[:, None]
    for label in (0, BACKGROUND):
        value, gradient = value_and_gradient(logits, torch.full((len(GRID),), label), gamma, beta, alpha)
        expected = [paper(x, label == 0, gamma, beta, alpha) for x in GRID]
        assert value.tolist() == pytest.approx([v for v, _ in expected], rel=1e-6, abs=1e-37)
        assert gradient[:, 0].tolist() == pytest.approx([g for _, g in expected], rel=1e-6, abs=1e-37)


def test_an_anchor_sums_its_outputs() -> None:
    logits = torch.tensor([[-1.5, 0.5, 2.0]])
    value, gradient = value_and_gradient(logits, torch.tensor([1]))
    terms = [paper(x, k == 1, 2.0, 1.0, 0.25) for k, x in enumerate(logits[0].tolist())]
    assert value.item() == pytest.approx(sum(v for v, _ in terms), rel=1e-6)
    assert gradient[0].tolist() == pytest.approx([g for _, g in terms], rel=1e-6)


@pytest.mark.parametrize("alpha", [0.25, 0.5, 0.75])
def test_gamma_one_without_beta_is_balanced_cross_entropy(alpha: float) -> None:
    logits, labels = random_case()
    expected = balanced_cross_entropy(logits, labels, alpha)
    torch.testing.assert_close(focal_star(logits, labels, 1.0, 0.0, alpha), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("gamma", [0.5, 2.0, 4.0])
def test_without_beta_it_is_cross_entropy_of_stretched_logits(gamma: float) -> None:
    logits, labels = random_case()
    expected = balanced_cross_entropy(gamma * logits, labels, 0.25) / gamma
    torch.testing.assert_close(focal_star(logits, labels, gamma, 0.0, 0.25), expected, rtol=1e-6, atol=0)


@every_pair
def test_beta_moves_the_curve_by_beta_over_gamma(gamma: float, beta: float) -> None:
    """x_t + beta / gamma in place of x_t; for background x_t = -x."""
    logits = torch.linspace(-4, 4, 33, dtype=torch.float64)[:, None]
    labels = torch.full((33,), BACKGROUND)
    moved = focal_star(logits - beta / gamma, labels, gamma, 0.0, 0.25)
    torch.testing.assert_close(focal_star(logits, labels, gamma, beta, 0.25), moved)


@every_pair
def test_ignored_anchors_give_exact_zeros_and_leave_the_others_alone(gamma: float, beta: float) -> None:
    logits, labels = random_case()
    ignored = torch.zeros_like(labels, dtype=torch.bool)
    ignored[:, ::3] = True
    value, gradient = value_and_gradient(logits, torch.where(ignored, IGNORE, labels), gamma, beta)
    plain_value, plain_gradient = value_and_gradient(logits, labels, gamma, beta)
    assert value[ignored].abs().sum().item() == 0
    assert gradient[ignored].abs().sum().item() == 0
    assert torch.equal(value[~ignored], plain_value[~ignored])
    assert torch.equal(gradient[~ignored], plain_gradient[~ignored])


def test_all_ignored() -> None:
    value, gradient = value_and_gradient(torch.randn(5, 3) * 100, torch.full((5,), IGNORE))
    assert value.tolist() == [0.0] * 5
    assert gradient.abs().sum().item() == 0


@every_pair
@pytest.mark.parametrize("size", [100.0, 1e4])
def test_saturated_logits_stay_finite(gamma: float, beta: float, size: float) -> None:
    logits = torch.tensor([[size, -size], [-size, size], [size, size], [-size, -size]])
    for label in (0, 1, BACKGROUND, IGNORE):
        value, gradient = value_and_gradient(logits, torch.full((4,), label), gamma, beta)
        assert torch.isfinite(value).all()
        assert torch.isfinite(gradient).all()
        assert (value >= 0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    logits, labels = random_case()
    half = logits.to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, gradient = value_and_gradient(half, labels)
    full_value, full_gradient = value_and_gradient(half.float(), labels)
    assert value.dtype == torch.float32
    assert torch.equal(value, full_value)
    assert torch.equal(gradient, full_gradient.to(dtype))


def test_gradcheck() -> None:
    logits = torch.tensor([[-3.0, 0.5], [0.0, -0.75], [1.0, 1.0]], dtype=torch.float64, requires_grad=True)
    loss = partial(focal_star, gamma=2.0, beta=1.0, alpha=0.25)
    assert torch.autograd.gradcheck(lambda x: loss(x, torch.tensor([1, BACKGROUND, IGNORE])), (logits,))


def test_keys() -> None:
    assert FocalStarKeys().model_dump() == {
        "weight": 1.0,
        "kind": "focal_star",
        "gamma": 2.0,
        "beta": 1.0,
        "alpha": 0.25,
    }
    with pytest.raises(ValidationError, match="greater than 0"):
        FocalStarKeys(gamma=0.0)
