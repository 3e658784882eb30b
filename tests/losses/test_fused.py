"""One-pass losses against 150-digit decimals and against the plain losses that they stand for."""

from collections.abc import Iterator
from decimal import Decimal, localcontext
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from retinanet.build.losses import build_class_loss
from retinanet.compile import can_compile
from retinanet.config.class_losses import CrossEntropyKeys, FocalKeys, GhmKeys, OhemKeys
from retinanet.losses.cross_entropy import balanced_cross_entropy, cross_entropy
from retinanet.losses.focal import focal, focal_star
from retinanet.losses.fused import (
    FUSED_FROM,
    DenseLoss,
    FusedLoss,
    NegativeMargin,
    cross_entropy_negative_margin,
    focal_negative_margin,
    focal_star_negative_margin,
    sigmoid_pass,
    softplus_and_sigmoid,
    value_and_gradient,
)
from retinanet.losses.ghm import harmonised, harmonised_in_one_pass
from retinanet.structures import BACKGROUND, IGNORE, ClassTargets

GRID = (-200.0, -87.0, -30.0, -12.5, -5.0, -1.0, -1e-3, 0.0, 1e-3, 0.25, 1.0, 5.0, 12.5, 30.0, 87.0, 200.0)
PAIRS: dict[str, tuple[DenseLoss, NegativeMargin, float, float]] = {
    "ce": (cross_entropy, cross_entropy_negative_margin, 1.0, 1.0),
    "balanced": (partial(balanced_cross_entropy, alpha=0.75), cross_entropy_negative_margin, 0.75, 0.25),
    "focal2": (partial(focal, alpha=0.25, gamma=2.0), partial(focal_negative_margin, gamma=2.0), 0.25, 0.75),
    "focal0.5": (partial(focal, alpha=0.5, gamma=0.5), partial(focal_negative_margin, gamma=0.5), 0.5, 0.5),
    "focal0": (partial(focal, alpha=0.25, gamma=0.0), partial(focal_negative_margin, gamma=0.0), 0.25, 0.75),
    "focal_star": (
        partial(focal_star, gamma=2.0, beta=1.0, alpha=0.25),
        partial(focal_star_negative_margin, gamma=2.0, beta=1.0),
        0.25,
        0.75,
    ),
}


def fused(name: str) -> FusedLoss:
    plain, margin, positive, negative = PAIRS[name]
    return FusedLoss(plain, sigmoid_pass(margin, positive, negative))


every_pair = pytest.mark.parametrize("name", PAIRS)
needs_compiler = pytest.mark.skipif(not can_compile("cpu"), reason="no C++ compiler here")


def exact(s: float, gamma: Decimal) -> tuple[float, float]:
    """sigmoid(s)^gamma log(1 + e^s), and its derivative by a difference quotient of 60 digits."""

    def value(x: Decimal) -> Decimal:
        sigmoid = 1 / (1 + (-x).exp())
        return (sigmoid**gamma if gamma else Decimal(1)) * (1 + x.exp()).ln()

    with localcontext() as context:
        context.prec = 300
        x, step = Decimal(s), Decimal(10) ** -60
        return float(value(x)), float((value(x + step) - value(x - step)) / (2 * step))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_margins_equal_their_formulas(gamma: float) -> None:
    """Relative 2e-6 in float32; gamma times the rounding of s where the factor is a power of e."""
    value, slope = focal_negative_margin(torch.tensor(GRID), gamma)
    expected = [exact(s, Decimal(gamma)) for s in GRID]
    assert value.tolist() == pytest.approx([v for v, _ in expected], rel=2e-6, abs=1e-37)
    assert slope.tolist() == pytest.approx([d for _, d in expected], rel=2e-6, abs=1e-37)
    if gamma == 0.0:
        assert torch.equal(value, cross_entropy_negative_margin(torch.tensor(GRID))[0])


def test_the_logarithm_loses_nothing_where_it_is_tiny() -> None:
    s = torch.linspace(-80, 80, 20_001, dtype=torch.float64)
    softplus, sigmoid, log_sigmoid = softplus_and_sigmoid(s)
    small = s < -40  # there log(1 + e^s) is e^s to all digits
    torch.testing.assert_close(softplus[small], torch.exp(s[small]), rtol=1e-12, atol=0)
    reference = torch.logaddexp(s, torch.zeros_like(s))
    torch.testing.assert_close(softplus[~small], reference[~small], rtol=1e-7, atol=0)
    torch.testing.assert_close(sigmoid, torch.sigmoid(s), rtol=1e-12, atol=0)
    torch.testing.assert_close(log_sigmoid, torch.nn.functional.logsigmoid(s), rtol=1e-7, atol=0)


def batch(rows: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, rows, classes, generator=generator) * 4 - 3
    labels = torch.randint(-2, classes, (2, rows), generator=generator)
    labels[torch.rand(2, rows, generator=generator) < 0.8] = BACKGROUND
    return logits, labels


def plain_and_gradient(loss: DenseLoss, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, labels)
    (value * torch.linspace(0.5, 2.0, value.numel()).view_as(value).to(value)).sum().backward()
    assert leaf.grad is not None
    return value.detach(), leaf.grad


def assert_same(name: str, logits: Tensor, labels: Tensor, loss: DenseLoss, rtol: float) -> None:
    value, gradient = plain_and_gradient(PAIRS[name][0], logits, labels)
    own_value, own_gradient = plain_and_gradient(loss, logits, labels)
    assert own_gradient.dtype == logits.dtype
    torch.testing.assert_close(own_value, value, rtol=rtol, atol=1e-30)
    torch.testing.assert_close(own_gradient, gradient, rtol=rtol, atol=1e-12)
    assert own_gradient[labels == IGNORE].abs().sum() == 0
    assert own_value[labels == IGNORE].abs().sum() == 0


@every_pair
@pytest.mark.parametrize("classes", [1, 3, 80])
def test_one_pass_equals_autograd(name: str, classes: int) -> None:
    plain, margin, positive, negative = PAIRS[name]
    logits, labels = batch(300, classes, seed=classes)
    logits = logits.double()
    value, gradient = value_and_gradient(logits.flatten(0, 1), labels.flatten().int(), margin, positive, negative)
    leaf = logits.clone().requires_grad_()
    expected = plain(leaf, labels)
    expected.sum().backward()
    torch.testing.assert_close(value.view_as(expected), expected.detach(), rtol=1e-7, atol=1e-30)
    torch.testing.assert_close(gradient.view_as(logits), leaf.grad, rtol=1e-7, atol=1e-15)


def test_ignored_anchors_may_hold_anything() -> None:
    logits = torch.tensor([[float("nan"), float("inf")], [0.0, 1.0]])
    value, gradient = value_and_gradient(
        logits, torch.tensor([IGNORE, 0]).int(), cross_entropy_negative_margin, 1.0, 1.0
    )
    assert value[0] == 0
    assert gradient[0].tolist() == [0.0, 0.0]
    assert torch.isfinite(value).all()


def test_a_half_precision_gradient_is_kept_where_it_does_not_vanish() -> None:
    logits, labels = torch.full((4, 3), -12.0, dtype=torch.float16), torch.full((4,), BACKGROUND).int()
    _, gradient = value_and_gradient(logits, labels, partial(focal_negative_margin, gamma=2.0), 0.25, 0.75)
    assert gradient.dtype == torch.float32
    assert (gradient > 0).all()


@pytest.mark.slow
@needs_compiler
@every_pair
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_large_batch_is_compiled_and_the_same(name: str, dtype: torch.dtype) -> None:
    logits, labels = batch(FUSED_FROM // 160 + 7, 80, seed=1)
    loss = fused(name)
    assert_same(name, logits.to(dtype), labels, loss, rtol=4e-6 if dtype == torch.float32 else 2e-2)
    assert loss.kernel is not None
    assert not loss.refused


def test_a_small_batch_takes_the_plain_loss_to_the_bit() -> None:
    logits, labels = batch(100, 3, seed=2)
    loss = fused("focal2")
    own, plain = (plain_and_gradient(f, logits, labels) for f in (loss, PAIRS["focal2"][0]))
    assert torch.equal(own[0], plain[0])
    assert torch.equal(own[1], plain[1])
    assert loss.kernel is None


@pytest.mark.slow
@needs_compiler
def test_the_value_alone_is_the_same_and_has_no_gradient() -> None:
    logits, labels = batch(FUSED_FROM // 160 + 3, 80, seed=8)
    loss = fused("ce")
    with torch.no_grad():
        alone = loss(logits.requires_grad_(), labels)
    assert not alone.requires_grad
    torch.testing.assert_close(alone, loss(logits, labels).detach(), rtol=1e-6, atol=0)
    assert loss.kernel is not None
    assert not loss.refused
    torch.testing.assert_close(alone, cross_entropy(logits, labels).detach(), rtol=4e-6, atol=1e-30)


@pytest.mark.parametrize("bins", [1, 30])
@pytest.mark.parametrize("classes", [1, 3, 80])
def test_harmonised_in_one_pass_equals_autograd(classes: int, bins: int) -> None:
    logits, labels = batch(300, classes, seed=classes)
    logits = logits.double()
    value, gradient = harmonised_in_one_pass(logits.flatten(0, 1), labels.flatten().int(), bins)
    leaf = logits.clone().requires_grad_()
    expected = harmonised(leaf, labels, bins)
    expected.sum().backward()
    torch.testing.assert_close(value.view_as(expected), expected.detach(), rtol=1e-7, atol=1e-30)
    torch.testing.assert_close(gradient.view_as(logits), leaf.grad, rtol=1e-7, atol=1e-15)


@pytest.mark.slow
@needs_compiler
def test_a_large_batch_of_ghm_is_compiled_and_the_same() -> None:
    """An output on the border of two bins may fall into the other one; a bin has thousands."""
    logits, labels = batch(FUSED_FROM // 160 + 7, 80, seed=1)
    loss = FusedLoss(partial(harmonised, bins=10), partial(harmonised_in_one_pass, bins=10))
    value, gradient = plain_and_gradient(partial(harmonised, bins=10), logits, labels)
    own_value, own_gradient = plain_and_gradient(loss, logits, labels)
    assert loss.kernel is not None
    assert not loss.refused
    torch.testing.assert_close(own_value.sum(), value.sum(), rtol=1e-5, atol=0)
    close = torch.isclose(own_gradient, gradient, rtol=1e-3, atol=1e-12)
    assert close.float().mean() > 0.9999


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("kind", ["ohem", "ghm"])
def test_losses_that_rank_or_weigh_are_the_same_with_and_without_kernels(kind: str) -> None:
    logits, labels = batch(FUSED_FROM // 160 + 7, 80, seed=6)
    generator = torch.Generator().manual_seed(6)
    low_A2 = torch.rand((labels.shape[1], 2), generator=generator) * 400
    positives = int((labels >= 0).sum())
    targets = ClassTargets(
        labels,
        torch.full((2,), 9.0),
        2,
        torch.zeros(2),
        torch.cat([low_A2, low_A2 + 30], dim=1),
        torch.zeros((*labels.shape, 4)),
        torch.zeros((positives, 4)),
        torch.zeros(positives),
    )
    options = OhemKeys(batch=64) if kind == "ohem" else GhmKeys(bins=10)
    value = build_class_loss(options).value
    assert isinstance(value, partial)
    (loss,) = (held for held in value.keywords.values() if isinstance(held, FusedLoss))
    fast, plain = (one(logits, targets) for one in (value, build_class_loss(options, "plain").value))
    assert loss.kernel is not None
    assert not loss.refused
    assert torch.equal(fast > 0, plain > 0), "the same anchors are kept"
    close = torch.isclose(fast, plain, rtol=1e-3, atol=1e-12)
    assert close.float().mean() > 0.999, "except where an output on the border of two bins falls into the other one"


@pytest.mark.slow
@needs_compiler
def test_a_second_backward_is_refused_rather_than_wrong() -> None:
    logits, labels = batch(FUSED_FROM // 160 + 1, 80, seed=3)
    value = fused("ce")(logits.requires_grad_(), labels).sum()
    value.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


@pytest.fixture
def fresh_choice() -> Iterator[None]:
    can_compile.cache_clear()
    yield
    can_compile.cache_clear()


@pytest.mark.usefixtures("fresh_choice")
def test_without_a_compiler_the_plain_loss_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    logits, labels = batch(FUSED_FROM // 160 + 1, 80, seed=4)
    loss = fused("focal2")
    assert torch.equal(loss(logits, labels), PAIRS["focal2"][0](logits, labels))
    assert loss.kernel is None


@pytest.mark.slow
@needs_compiler
@pytest.mark.usefixtures("fresh_choice")
def test_a_broken_compiler_is_reported_once_and_the_plain_loss_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CXX=false, which torch reads when it is imported."""
    import torch._dynamo
    import torch._inductor.config

    monkeypatch.setenv("CXX", "false")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    logits, labels = torch.randn(FUSED_FROM // 64, 64), torch.full((FUSED_FROM // 64,), 3)
    loss = fused("ce")
    torch._dynamo.reset()  # else the kernel of an earlier test would be found
    broken = torch._inductor.config.patch({"cpp.cxx": (None, "false")})
    with broken, pytest.warns(UserWarning, match="runs uncompiled") as warned:
        own = [loss(logits, labels) for _ in range(2)]
    assert all(torch.equal(value, cross_entropy(logits, labels)) for value in own)
    assert len(warned) == 1
    assert loss.refused
    torch._dynamo.reset()


@pytest.mark.parametrize(("kernels", "compiled"), [("auto", True), ("plain", False)])
def test_the_config_chooses(kernels: str, compiled: bool) -> None:
    logits, labels = batch(40, 3, seed=5)
    targets = ClassTargets(
        labels,
        torch.full((2,), 4.0),
        2,
        torch.zeros(2),
        torch.zeros(40, 4),
        torch.zeros(2, 40, 4),
        *[torch.zeros(0)] * 2,
    )
    for options in (FocalKeys(), CrossEntropyKeys()):
        value = build_class_loss(options, "plain" if kernels == "plain" else "auto").value
        holds = [cell.cell_contents for cell in value.__closure__ or ()]
        assert any(isinstance(held, FusedLoss) for held in holds) == compiled
        plain = focal(logits, labels, 0.25, 2.0) if isinstance(options, FocalKeys) else cross_entropy(logits, labels)
        assert torch.equal(value(logits, targets), plain / 4.0)
