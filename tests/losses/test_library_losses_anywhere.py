"""The library losses where values cannot be read, next to rounded inputs, and with weights and unknown labels."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from retinanet.errors import UserError
from retinanet.losses.functional import binary_focal_loss, sigmoid_focal_loss, softmax_focal_loss
from retinanet.losses.modules import FocalLoss, SigmoidFocalLoss


def random_logits(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


LOGITS, CLASSES = random_logits(5, 3), torch.tensor([0, 1, 2, 2, -100])
HOT = (random_logits(5, 3, seed=1) > 0).float()
LOSSES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], Tensor]] = {
    "softmax": (lambda x, y: softmax_focal_loss(x, y, gamma=2.0, alpha=[1.0, 2.0, 3.0], reduction="sum"), CLASSES),
    "gamma 0": (lambda x, y: softmax_focal_loss(x, y, gamma=0.0, reduction="sum"), CLASSES),
    "smoothed": (lambda x, y: softmax_focal_loss(x, y, gamma=2.0, label_smoothing=0.1, reduction="sum"), CLASSES),
    "sigmoid": (
        lambda x, y: sigmoid_focal_loss(x, y, alpha=[0.1, 0.2, 0.7], gamma=2.0, reduction="sum", ignore_index=255),
        HOT.masked_fill(HOT.cumsum(dim=1) == 2, 255),
    ),
    "probabilities": (lambda x, y: binary_focal_loss(x.sigmoid(), y, alpha=0.25, gamma=2.0, reduction="sum"), HOT),
}


@pytest.mark.parametrize("name", list(LOSSES))
def test_vmap_gives_the_loss_and_gradient_of_each_sample(name: str) -> None:
    loss, target = LOSSES[name]

    def one(row: Tensor, label: Tensor) -> Tensor:
        return loss(row[None], label[None])

    each = torch.stack([one(row, label) for row, label in zip(LOGITS, target)])
    torch.testing.assert_close(torch.vmap(one)(LOGITS, target), each)
    leaf = LOGITS.clone().requires_grad_()
    (expected,) = torch.autograd.grad(loss(leaf, target), leaf)
    torch.testing.assert_close(torch.vmap(torch.func.grad(one))(LOGITS, target), expected)


@pytest.mark.parametrize("name", list(LOSSES))
def test_meta_tensors_have_a_loss(name: str) -> None:
    loss, target = LOSSES[name]
    found = loss(LOGITS.to("meta"), target.to("meta"))
    assert (found.shape, found.dtype, found.is_meta) == ((), torch.float32, True)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(LOSSES))
def test_compiles_without_a_graph_break(name: str) -> None:
    loss, target = LOSSES[name]
    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(LOGITS, target), loss(LOGITS, target))


@pytest.mark.slow
def test_modules_compile_without_a_graph_break() -> None:
    torch._dynamo.reset()
    for module, target in ((FocalLoss(alpha=[1.0, 2.0, 3.0]), CLASSES), (SigmoidFocalLoss(weight=[1, 2, 3]), HOT)):
        compiled = torch.compile(module, fullgraph=True, backend="eager")
        torch.testing.assert_close(compiled(LOGITS, target), module(LOGITS, target))


def test_values_are_still_validated_under_grad() -> None:
    with pytest.raises(UserError, match="target holds 3"):
        torch.func.grad(lambda x: softmax_focal_loss(x, torch.tensor([3]), gamma=2.0))(LOGITS[:1])


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_float16_probabilities_have_a_finite_gradient(gamma: float) -> None:
    """-2^24, the slope at 0 in float32, is infinite in float16, and infinity times sigmoid's slope of 0 is NaN."""
    logits = torch.tensor([-60.0, -12.0, -1.0, 1.0, 9.0, 60.0], dtype=torch.float16, requires_grad=True)
    for y in (0.0, 1.0):
        p = logits.sigmoid()
        p.retain_grad()
        loss = binary_focal_loss(p, torch.full_like(p, y), alpha=None, gamma=gamma, reduction="none")
        assert loss.isfinite().all()
        (gradient,) = torch.autograd.grad(loss.sum(), logits, retain_graph=True)
        (slope,) = torch.autograd.grad(loss.sum(), p)
        assert gradient.isfinite().all()
        assert slope.isfinite().all()
        worst = 0 if y else -1
        assert abs(slope[worst].item()) == pytest.approx(2**15, rel=0.01)
        assert (slope[worst] < 0) == bool(y)


def test_probabilities_one_rounding_outside_0_1_are_0_or_1() -> None:
    above, below = 1 + 2.0**-23, -1e-8
    for p, exact in ((above, 1.0), (below, 0.0)):
        for y, gamma in itertools.product((0.0, 1.0), (0.0, 0.5, 2.0)):
            leaf = torch.tensor([p], requires_grad=True)
            twin = torch.tensor([exact], requires_grad=True)
            pair = [binary_focal_loss(x, torch.tensor([y]), alpha=None, gamma=gamma) for x in (leaf, twin)]
            assert torch.equal(*pair)
            slopes = [torch.autograd.grad(value, x)[0] for value, x in zip(pair, (leaf, twin))]
            assert torch.equal(*slopes)
            assert slopes[0].isfinite().all()
    half = torch.tensor([1 + 2.0**-7], dtype=torch.bfloat16)
    assert binary_focal_loss(half, half, alpha=None, gamma=2.0) == 0


def test_soft_targets_one_rounding_outside_0_1_are_0_or_1() -> None:
    x = torch.tensor([0.5, -1.0])
    found = sigmoid_focal_loss(x, torch.tensor([1.0000001, -1e-8]), alpha=0.25, gamma=2.0)
    assert torch.equal(found, sigmoid_focal_loss(x, torch.tensor([1.0, 0.0]), alpha=0.25, gamma=2.0))


def test_what_is_more_than_a_rounding_outside_is_refused_with_what_was_found() -> None:
    with pytest.raises(UserError, match=r"probabilities must lie in 0\.\.1, not 0\.5 to 1\.00001;"):
        binary_focal_loss(torch.tensor([0.5, 1.00001]), torch.tensor([0, 1]), alpha=None, gamma=2.0)
    with pytest.raises(UserError, match=r"target must lie in 0\.\.1, not -0\.1 to 1"):
        sigmoid_focal_loss(torch.zeros(2), torch.tensor([-0.1, 1.0]), alpha=None, gamma=2.0)
    with pytest.raises(UserError, match="not nan"):
        sigmoid_focal_loss(torch.zeros(2), torch.tensor([math.nan, 1.0]), alpha=None, gamma=2.0)


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (4, 3, 5, 2)])
def test_sigmoid_alpha_and_weight_of_each_class(shape: tuple[int, ...]) -> None:
    x, y = random_logits(*shape), (random_logits(*shape, seed=2) > 0).float()
    alphas, weights = [0.1, 0.2, 0.7], [2.0, 0.5, 30.0]
    parts = [
        weights[c] * sigmoid_focal_loss(x[:, c], y[:, c], alpha=alphas[c], gamma=2.0, reduction="none")
        for c in range(3)
    ]
    expected = torch.stack(parts, dim=1)
    for kind in (list, tuple, torch.tensor, lambda values: torch.tensor(values).double()):
        found = sigmoid_focal_loss(x, y, alpha=kind(alphas), weight=kind(weights), gamma=2.0, reduction="none")
        torch.testing.assert_close(found, expected)
    mean = sigmoid_focal_loss(x, y, alpha=alphas, weight=weights, gamma=2.0)
    torch.testing.assert_close(mean, expected.sum() / x.numel())
    each = torch.rand(shape[0], *[1] * (len(shape) - 1), generator=torch.Generator().manual_seed(3))
    found = sigmoid_focal_loss(x, y, alpha=alphas, weight=each, gamma=2.0, reduction="none")
    plain = sigmoid_focal_loss(x, y, alpha=alphas, gamma=2.0, reduction="none")
    torch.testing.assert_close(found, each * plain)


@pytest.mark.parametrize(("dtype", "ignored"), [(torch.int64, -1), (torch.uint8, 255), (torch.float32, 255)])
@pytest.mark.parametrize("loss", [sigmoid_focal_loss, binary_focal_loss])
def test_ignored_labels_count_nowhere(loss: Callable[..., Tensor], dtype: torch.dtype, ignored: int) -> None:
    x = random_logits(4, 3).sigmoid()
    y = torch.tensor([[0, 1, ignored]] * 4).to(dtype)
    leaf = x.clone().requires_grad_()
    options = {"alpha": 0.25, "gamma": 2.0, "ignore_index": ignored}
    each = loss(leaf, y, reduction="none", **options)
    known = loss(x[:, :2], y[:, :2], alpha=0.25, gamma=2.0, reduction="none")
    assert torch.equal(each, torch.cat([known, torch.zeros(4, 1)], dim=1))
    (gradient,) = torch.autograd.grad(each.sum(), leaf)
    assert (gradient[:, 2] == 0).all()
    for reduction, divisor in (("sum", 1), ("mean", 8), ("mean_elements", 8), ("mean_positives", 4)):
        torch.testing.assert_close(loss(x, y, reduction=reduction, **options), known.sum() / divisor)
    nothing = torch.full_like(y, ignored)
    for reduction in ("sum", "mean", "mean_positives"):
        assert loss(x, nothing, reduction=reduction, **options) == 0


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_both_meanings_of_a_mean(gamma: float) -> None:
    weights = torch.tensor([1.0, 2.0, 3.0])
    each = softmax_focal_loss(LOGITS, CLASSES, gamma=gamma, alpha=weights, reduction="none")
    options = {"gamma": gamma, "alpha": weights}
    found = softmax_focal_loss(LOGITS, CLASSES, reduction="mean_elements", **options)
    torch.testing.assert_close(found, each.sum() / 4)
    torch.testing.assert_close(softmax_focal_loss(LOGITS, CLASSES, **options), each.sum() / weights[CLASSES[:4]].sum())
    nothing = torch.full_like(CLASSES, -100)
    assert softmax_focal_loss(LOGITS, nothing, reduction="mean_elements", **options) == 0
