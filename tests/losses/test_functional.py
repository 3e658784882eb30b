"""The library losses against float64 closed forms, torch's own losses and torchvision's."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss as torchvision_focal

from retinanet.errors import UserError
from retinanet.losses.functional import LossInputError, binary_focal_loss, sigmoid_focal_loss, softmax_focal_loss

GRID = (-100.0, -30.0, -12.5, -5.0, -1.0, -0.25, 0.0, 0.25, 1.0, 5.0, 12.5, 30.0, 100.0)
GAMMAS = (0.5, 1.0, 2.0, 5.0)
ROWS = [*itertools.product((-100.0, -12.5, -1.0, 0.0, 0.25, 30.0, 100.0), repeat=3)]
"""Logits of three classes that float32 holds and subtracts exactly, so that only the loss can round."""
Closed = tuple[list[float], list[list[float]]]


def closed_softmax(rows: list[tuple[float, ...]], classes: list[int], gamma: float) -> Closed:
    """Value and gradient of -(1 - p_t)^gamma log p_t in double precision, from the odds u = (1 - p_t) / p_t."""
    values, gradients = [], []
    for row, t in zip(rows, classes):
        odds = [0.0 if j == t else math.exp(x - row[t]) for j, x in enumerate(row)]
        u = math.fsum(odds)
        ce, q, p = math.log1p(u), u / (1 + u), 1 / (1 + u)
        slope = q**gamma * (gamma * p * ce + q)
        values.append(q**gamma * ce)
        gradients.append([-slope if j == t else slope * odd / u for j, odd in enumerate(odds)])
    return values, gradients


def closed_binary(log_p: float, log_q: float, y: float, gamma: float) -> tuple[float, float, float]:
    """Equation 5 with alpha 0.25, expected under label 1 with probability y, from log p and log(1 - p).

    Returns the value and the derivative by the logit in its two parts, label 1's (<= 0) and label 0's (>= 0).
    """
    p, q = math.exp(log_p), math.exp(log_q)
    value = -y * 0.25 * q**gamma * log_p - (1 - y) * 0.75 * p**gamma * log_q
    return value, -y * 0.25 * q**gamma * (q - gamma * p * log_p), (1 - y) * 0.75 * p**gamma * (p - gamma * q * log_q)


def value_and_gradient(loss: Callable[[Tensor], Tensor], inputs: Tensor) -> tuple[Tensor, Tensor]:
    leaf = inputs.clone().requires_grad_()
    value = loss(leaf)
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), gradient


def assert_close(found: Tensor, expected: object, rtol: float = 1e-6) -> None:
    """Relative, apart from what is below float32's normal numbers."""
    torch.testing.assert_close(found.double(), torch.as_tensor(expected, dtype=torch.float64), rtol=rtol, atol=1e-37)


def segmentation(channels: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, channels, 4, 3, generator=generator) * 5
    target = torch.randint(channels, (2, 4, 3), generator=generator)
    target[0, :2] = 255
    return logits, target


@pytest.mark.parametrize("gamma", GAMMAS)
def test_softmax_value_and_gradient_equal_the_closed_form(gamma: float) -> None:
    for t in range(3):
        target = torch.full((len(ROWS),), t)
        value, gradient = value_and_gradient(
            lambda x, target=target: softmax_focal_loss(x, target, gamma=gamma, reduction="none"), torch.tensor(ROWS)
        )
        values, gradients = closed_softmax(ROWS, [t] * len(ROWS), gamma)
        assert value.dtype == torch.float32
        assert_close(value, values)
        assert_close(gradient, gradients)


def test_a_clamped_softmax_would_be_noticed() -> None:
    """At p_t = e^-200 the log of a clamped softmax is about 16 with no gradient; here 200 and +-1."""
    logits = torch.tensor([[100.0, -100.0, -100.0]])
    for gamma in (0.0, 0.5, 2.0):
        value, gradient = value_and_gradient(
            lambda x, gamma=gamma: softmax_focal_loss(x, torch.tensor([1]), gamma=gamma), logits
        )
        assert value.item() == pytest.approx(200.0)
        assert gradient.tolist() == [[pytest.approx(1.0), pytest.approx(-1.0), pytest.approx(0.0)]]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 2.0, 3.0, 0.25]])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_gamma_0_is_cross_entropy_to_the_last_bit(
    reduction: str, weights: list[float] | None, smoothing: float
) -> None:
    logits, target = segmentation()
    flat = logits.movedim(1, -1).reshape(-1, 5), target.reshape(-1)
    alpha = None if weights is None else torch.tensor(weights)
    for x, y in ((logits, target), flat, (logits.double(), target)):
        ours = value_and_gradient(
            lambda x, y=y: softmax_focal_loss(
                x, y, gamma=0, alpha=weights, reduction=reduction, ignore_index=255, label_smoothing=smoothing
            ),
            x,
        )
        theirs = value_and_gradient(
            lambda x, y=y: F.cross_entropy(
                x,
                y,
                None if alpha is None else alpha.to(x.dtype),
                ignore_index=255,
                reduction=reduction,
                label_smoothing=smoothing,
            ),
            x,
        )
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])
        assert ours[0].dtype == x.dtype


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("weights", [None, [0.5, 1.0, 2.0, 3.0, 0.25]])
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_small_gamma_meets_cross_entropy(reduction: str, weights: list[float] | None, smoothing: float) -> None:
    """The other branch, gamma > 0, has the same weights, mean and smoothing."""
    logits, target = segmentation()
    options = {"alpha": weights, "reduction": reduction, "ignore_index": 255, "label_smoothing": smoothing}
    none = softmax_focal_loss(logits.double(), target, gamma=0, **options)
    small = softmax_focal_loss(logits.double(), target, gamma=1e-9, **options)
    torch.testing.assert_close(small, none, rtol=1e-7, atol=1e-12)


def test_label_smoothing_is_the_expected_focal_loss() -> None:
    logits, target = segmentation()
    weights, epsilon = [0.5, 1.0, 2.0, 3.0, 0.25], 0.2
    x = logits.double()
    each = torch.stack(
        [softmax_focal_loss(x, torch.full_like(target, c), gamma=2, alpha=weights, reduction="none") for c in range(5)],
        dim=1,
    )
    known = target != 255
    own = each.gather(1, target.where(known, 0)[:, None]).squeeze(1)
    expected = (((1 - epsilon) * own + epsilon * each.mean(dim=1)) * known).float()
    found = softmax_focal_loss(
        logits, target, gamma=2, alpha=weights, reduction="none", ignore_index=255, label_smoothing=epsilon
    )
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_label_smoothing_has_the_right_gradient_and_stays_finite() -> None:
    target = torch.tensor([0, 1, 2, 2])
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    for gamma in (0.5, 2.0):
        torch.autograd.gradcheck(lambda x, g=gamma: softmax_focal_loss(x, target, gamma=g, label_smoothing=0.1), x)
        torch.autograd.gradgradcheck(lambda x, g=gamma: softmax_focal_loss(x, target, gamma=g, label_smoothing=0.1), x)
    rows = torch.tensor(ROWS)
    for gamma in (0.1, 0.5, 2.0):
        pair = value_and_gradient(
            lambda x, g=gamma: softmax_focal_loss(x, torch.zeros(len(x)).long(), gamma=g, label_smoothing=0.1), rows
        )
        assert all(tensor.isfinite().all() for tensor in pair)


def test_mean_is_over_samples_and_pixels_not_classes() -> None:
    logits, target = segmentation()
    each = softmax_focal_loss(logits, target, gamma=2, reduction="none", ignore_index=255)
    known = target != 255
    assert each.shape == target.shape
    assert (each[~known] == 0).all()
    assert (each[known] > 0).all()
    mean = softmax_focal_loss(logits, target, gamma=2, ignore_index=255)
    torch.testing.assert_close(mean, each.sum() / 18)
    by_row = [
        softmax_focal_loss(logits[n, :, i, j][None], target[n, i, j][None], gamma=2, reduction="sum", ignore_index=255)
        for n, i, j in itertools.product(range(2), range(4), range(3))
    ]
    torch.testing.assert_close(each.flatten(), torch.stack(by_row))


@pytest.mark.parametrize("gamma", [0, 2])
def test_mean_positives(gamma: float) -> None:
    logits, target = segmentation()
    total = softmax_focal_loss(logits, target, gamma=gamma, reduction="sum", ignore_index=255)
    for background in (0, 4):
        positives = int(((target != 255) & (target != background)).sum())
        found = softmax_focal_loss(
            logits, target, gamma=gamma, reduction="mean_positives", ignore_index=255, background=background
        )
        assert 0 < positives < 18
        torch.testing.assert_close(found, total / positives)
    nothing = torch.zeros_like(target)
    torch.testing.assert_close(
        softmax_focal_loss(logits, nothing, gamma=gamma, reduction="mean_positives"),
        softmax_focal_loss(logits, nothing, gamma=gamma, reduction="sum"),
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("alpha", [None, [1.0, 2.0, 3.0, 4.0, 5.0]])
@pytest.mark.parametrize("gamma", [0, 0.5, 2])
def test_all_ignored_or_empty_is_zero(gamma: float, alpha: list[float] | None, smoothing: float) -> None:
    logits, target = segmentation()
    ignored = torch.full_like(target, 255)
    for x, y in ((logits, ignored), (logits.flatten(2), ignored.flatten(1)), (logits[:0], target[:0])):
        for reduction in ("none", "mean", "sum", "mean_positives"):
            value, gradient = value_and_gradient(
                lambda x, y=y, r=reduction: softmax_focal_loss(
                    x, y, gamma=gamma, alpha=alpha, reduction=r, ignore_index=255, label_smoothing=smoothing
                ),
                x,
            )
            assert (value == 0).all()
            assert (gradient == 0).all()


@pytest.mark.parametrize("gamma", [0, 2])
def test_alpha_counts_whatever_its_type(gamma: float) -> None:
    """List, tuple, float32 and float64 tensors: the same loss, the weight of each element's own class."""
    logits, target = segmentation()
    weights = [0.5, 1.0, 2.0, 4.0, 0.25]
    options = {"gamma": gamma, "reduction": "none", "ignore_index": 255}
    plain = softmax_focal_loss(logits, target, **options)
    expected = plain * torch.tensor(weights)[target.where(target != 255, 0)]
    kinds = [
        weights,
        tuple(weights),
        torch.tensor(weights),
        torch.tensor(weights).double(),
        torch.tensor(weights).half(),
    ]
    for x, alpha in itertools.product((logits, logits.double()), kinds):
        found = softmax_focal_loss(x, target, alpha=alpha, **options)
        assert found.dtype == x.dtype
        torch.testing.assert_close(found, expected.to(x.dtype), rtol=1e-4, atol=1e-5)
    mean = softmax_focal_loss(logits, target, gamma=gamma, alpha=weights, ignore_index=255)
    known = target[target != 255]
    torch.testing.assert_close(mean, expected.sum() / torch.tensor(weights)[known].sum())


@pytest.mark.parametrize("alpha", [0, 1, 0.25, torch.tensor(0.25)])
def test_number_alpha_is_class_1s(alpha: float) -> None:
    """Also the whole numbers 0 and 1, which `instance(alpha, (float, int))` never reached."""
    logits, target = torch.tensor([[0.5, -1.0], [0.5, -1.0]]), torch.tensor([0, 1])
    found = softmax_focal_loss(logits, target, gamma=2, alpha=alpha, reduction="none")
    pair = softmax_focal_loss(logits, target, gamma=2, alpha=[1 - float(alpha), float(alpha)], reduction="none")
    plain = softmax_focal_loss(logits, target, gamma=2, reduction="none")
    assert torch.equal(found, pair)
    torch.testing.assert_close(found, plain * torch.tensor([1 - float(alpha), float(alpha)]))


def test_two_class_softmax_is_the_sigmoid_of_the_difference() -> None:
    x = torch.tensor(GRID)
    logits, target = torch.stack([torch.zeros_like(x), x], dim=1), torch.arange(len(GRID)) % 2
    softmax = softmax_focal_loss(logits, target, gamma=2, alpha=0.25, reduction="none")
    sigmoid = sigmoid_focal_loss(x, target, gamma=2, alpha=0.25, reduction="none")
    torch.testing.assert_close(softmax, sigmoid, rtol=1e-6, atol=0)


@pytest.mark.parametrize("y", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("gamma", [0.0, *GAMMAS])
def test_sigmoid_value_and_gradient_equal_the_closed_form(gamma: float, y: float) -> None:
    x = torch.tensor(GRID)
    value, gradient = value_and_gradient(
        lambda x: sigmoid_focal_loss(x, torch.full_like(x, y), alpha=0.25, gamma=gamma, reduction="none"), x
    )
    for found, slope, z in zip(value, gradient, GRID):
        expected, up, down = closed_binary(-math.log1p(math.exp(-z)), -math.log1p(math.exp(z)), y, gamma)
        assert_close(found, expected)
        # Where the two parts cancel, the rounding of each counts.
        torch.testing.assert_close(slope.double().item(), up + down, rtol=1e-6, atol=2e-7 * min(-up, down) + 1e-37)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.75, 0.0), (None, 1.0), (0.0, 2.0), (1.0, 0.5)])
def test_sigmoid_equals_torchvisions_at_hard_targets(alpha: float | None, gamma: float, reduction: str) -> None:
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(6, 4, 3, generator=generator, dtype=torch.float64) * 3
    target = torch.randint(2, logits.shape, generator=generator)
    # Torchvision's modulation has no finite slope at gamma below 1 only where p_t rounds to 1: not here.
    theirs = value_and_gradient(
        lambda x: torchvision_focal(x, target.double(), -1 if alpha is None else alpha, gamma, reduction), logits
    )
    for y in (target, target.bool(), target.double()):
        ours = value_and_gradient(
            lambda x, y=y: sigmoid_focal_loss(x, y, alpha=alpha, gamma=gamma, reduction=reduction), logits
        )
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-14)


def test_sigmoid_gamma_0_is_bce_at_soft_targets_too() -> None:
    x, y = torch.tensor(GRID), torch.linspace(0, 1, len(GRID))
    found = sigmoid_focal_loss(x, y, alpha=None, gamma=0)
    torch.testing.assert_close(found, F.binary_cross_entropy_with_logits(x, y))


def test_binary_reductions_count_elements_and_positives() -> None:
    x = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(3))
    hard, soft = (x > 0.5).float(), x.sigmoid()
    for loss, values in ((sigmoid_focal_loss, x), (binary_focal_loss, x.sigmoid())):
        for y, positives in ((hard, hard.sum()), (soft, soft.sum()), (torch.zeros_like(x), 1.0)):
            each = loss(values, y, alpha=0.25, gamma=2, reduction="none")
            assert each.shape == x.shape
            torch.testing.assert_close(loss(values, y, alpha=0.25, gamma=2, reduction="sum"), each.sum())
            torch.testing.assert_close(loss(values, y, alpha=0.25, gamma=2), each.sum() / 24)
            torch.testing.assert_close(
                loss(values, y, alpha=0.25, gamma=2, reduction="mean_positives"), each.sum() / positives
            )
            assert loss(values[:0], y[:0], alpha=0.25, gamma=2).item() == 0


@pytest.mark.parametrize("y", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("gamma", [0.0, *GAMMAS])
def test_probabilities_value_and_gradient_equal_the_closed_form(gamma: float, y: float) -> None:
    p = torch.tensor([2.0**-23, 1e-6, 0.001, 0.25, 0.5, 0.75, 0.999, 1 - 2.0**-20, 1 - 2.0**-23])
    value, gradient = value_and_gradient(
        lambda p: binary_focal_loss(p, torch.full_like(p, y), alpha=0.25, gamma=gamma, reduction="none"), p
    )
    for found, slope, z in zip(value, gradient, p.double().tolist()):
        expected, up, down = closed_binary(math.log(z), math.log1p(-z), y, gamma)
        assert_close(found, expected)
        by_p = 1 / (z * (1 - z))  # derivative of the logit by p
        torch.testing.assert_close(
            slope.double().item(), (up + down) * by_p, rtol=1e-6, atol=2e-7 * min(-up, down) * by_p + 1e-37
        )


@pytest.mark.parametrize("gamma", [0.0, 0.1, 0.5, 1.0, 2.0])
def test_probabilities_of_exactly_0_and_1(gamma: float) -> None:
    """Right: no loss. Wrong: finite, and a finite gradient that still points the right way."""
    y = torch.tensor([0, 1, 1, 0])
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        value, gradient = value_and_gradient(
            lambda p: binary_focal_loss(p, y, alpha=None, gamma=gamma, reduction="none"),
            torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=dtype),
        )
        bits = 53 if dtype == torch.float64 else 24
        assert value[:2].tolist() == [0.0, 0.0]
        assert value[2:].tolist() == [pytest.approx(1 + bits * math.log(2))] * 2
        assert gradient[:2].tolist() == ([1.0, -1.0] if gamma == 0 else [0.0, 0.0])
        assert gradient[2].item() < -1e4
        assert gradient[3].item() > 1e4


def test_probabilities_loss_meets_its_tangent() -> None:
    """No jump and no clamp at 2^-24, nor at 1 - 2^-24: the loss goes on rising towards 0."""
    p = torch.tensor([0.0, 2.0**-30, 2.0**-25, 2.0**-24, 2.0**-23, 2.0**-20])
    value, gradient = value_and_gradient(
        lambda p: binary_focal_loss(p, torch.ones_like(p), alpha=None, gamma=0, reduction="none"), p
    )
    assert (value[1:] < value[:-1]).all()
    assert gradient.tolist() == [-(2.0**24)] * 4 + [-(2.0**23), -(2.0**20)]
    last = torch.tensor([1 - 2.0**-24])
    value, gradient = value_and_gradient(lambda p: binary_focal_loss(p, last * 0, alpha=None, gamma=0), last)
    assert value.item() == pytest.approx(24 * math.log(2))
    assert gradient.item() == 2.0**24


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("gamma", [0, 0.5, 2])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype, gamma: float) -> None:
    logits, target = segmentation()
    hot = F.one_hot(target.where(target != 255, 0), 5).movedim(-1, 1)
    losses: list[Callable[[Tensor], Tensor]] = [
        lambda x: softmax_focal_loss(x, target, gamma=gamma, ignore_index=255, label_smoothing=0.1, reduction="sum"),
        lambda x: softmax_focal_loss(x, target, gamma=gamma, alpha=[1, 2, 3, 4, 5], ignore_index=255),
        lambda x: sigmoid_focal_loss(x, hot, alpha=0.25, gamma=gamma, reduction="sum"),
        lambda x: binary_focal_loss(x.float().sigmoid(), hot, alpha=0.25, gamma=gamma, reduction="sum"),
    ]
    half = (logits * 20).clamp(-100, 100).to(dtype)
    for loss in losses:
        expected, slope = value_and_gradient(loss, half.float())
        for enabled in (False, True):
            with torch.autocast("cpu", dtype, enabled=enabled):
                value, gradient = value_and_gradient(loss, half)
            assert value.dtype == torch.float32
            assert torch.equal(value, expected)
            assert torch.equal(gradient, slope.to(dtype))


def test_double_gradient() -> None:
    x = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(4), requires_grad=True)
    target, hot = torch.tensor([0, 1, 2, 2]), F.one_hot(torch.tensor([0, 1, 2, 2]))
    torch.autograd.gradgradcheck(lambda x: softmax_focal_loss(x, target, gamma=1.5), x)
    torch.autograd.gradgradcheck(lambda x: sigmoid_focal_loss(x, hot, alpha=0.25, gamma=1.5), x)


def test_masked_classes_cost_nothing() -> None:
    """-inf, as some code writes for classes that cannot be."""
    full = torch.tensor([[1.0, 2.0, -math.inf]])
    value, gradient = value_and_gradient(lambda x: softmax_focal_loss(x, torch.tensor([0]), gamma=0.5), full)
    torch.testing.assert_close(value, softmax_focal_loss(full[:, :2], torch.tensor([0]), gamma=0.5))
    assert gradient.isfinite().all()
    assert gradient[0, 2] == 0


X, Y = torch.zeros(2, 3), torch.tensor([0, 1])
SOFTMAX_FAULTS = {
    "gamma must be": {"gamma": -1},
    "not nan": {"gamma": math.nan},
    "did you mean `mean`": {"reduction": "means"},
    "did you mean `mean_positives`": {"reduction": "mean over positives"},
    "alpha has shape (2,); logits have 3 classes: give 3 weights": {"alpha": [0.5, 0.5]},
    "alpha is one number, which needs 2 classes; logits have 3: give 3 weights": {"alpha": 0.25},
    "alpha must be finite and >= 0": {"alpha": [1.0, -1.0, 1.0]},
    "alpha must lie in 0..1": {"alpha": 1.5, "logits": X[:, :2]},
    "label_smoothing must lie in 0..1": {"label_smoothing": 1.5},
    "target holds -1, 3: not a class (0..2": {"target": torch.tensor([3, -1])},
    "target holds 156": {"target": torch.tensor([156, 0], dtype=torch.uint8)},
    "target has shape (3,); logits (2, 3) require (2,)": {"target": torch.zeros(3).long()},
    "argmax(dim=1) for class probabilities": {"target": torch.zeros(2, 3)},
    "not (N, C)": {"logits": torch.zeros(3)},
    "with C >= 2": {"logits": torch.zeros(2, 1)},
    "logits must be floating point": {"logits": X.long()},
    "background must be a class": {"background": 3},
    "(2 errors)": {"gamma": -1, "reduction": "avg"},
}


@pytest.mark.parametrize("text", list(SOFTMAX_FAULTS))
def test_softmax_errors_name_the_remedy(text: str) -> None:
    arguments = {"logits": X, "target": Y, "gamma": 2, **SOFTMAX_FAULTS[text]}
    with pytest.raises(UserError) as caught:
        softmax_focal_loss(arguments.pop("logits"), arguments.pop("target"), **arguments)
    assert isinstance(caught.value, ValueError)
    assert text in str(caught.value)


def test_ignore_index_of_unsigned_targets_does_not_wrap() -> None:
    """-100 is 156 to a uint8 comparison: class 156 must not be ignored."""
    logits, target = torch.randn(1, 200, generator=torch.Generator().manual_seed(5)), torch.tensor([156])
    for gamma in (0, 2):
        expected = softmax_focal_loss(logits, target, gamma=gamma)
        assert expected > 0
        assert torch.equal(softmax_focal_loss(logits, target.to(torch.uint8), gamma=gamma), expected)


BINARY_FAULTS = {
    "gamma must be": {"gamma": -0.5},
    "did you mean `sum`": {"reduction": "Sum"},
    "alpha must be in 0..1": {"alpha": 2.0},
    "label 0 gets 1 - alpha": {"alpha": [0.25, 0.75, 1.5]},
    "alpha has shape (2,): give one number, 3 numbers": {"alpha": [0.25, 0.75]},
    "alpha must be None, a number": {"alpha": "0.25"},
    "weight must be finite": {"weight": -1.0},
    "ignore_index must be a whole number": {"ignore_index": 0.5},
    "target has shape (2,)": {"target": Y},
    "use softmax_focal_loss": {"target": Y},
    "target must lie in 0..1, not 2: ": {"target": torch.full((2, 3), 2)},
    "not 0 to 255": {"target": torch.tensor([[0, 1, 255]] * 2)},
    "not -1 to 0": {"target": torch.tensor([[0, -1, 255]] * 2), "ignore_index": 255},
    "not torch.int64": {"values": torch.zeros(2, 3).long()},
}


@pytest.mark.parametrize("loss", [sigmoid_focal_loss, binary_focal_loss])
@pytest.mark.parametrize("text", list(BINARY_FAULTS))
def test_binary_errors_name_the_remedy(text: str, loss: Callable[..., Tensor]) -> None:
    arguments = {"values": X, "target": torch.zeros(2, 3), "alpha": 0.25, "gamma": 2, **BINARY_FAULTS[text]}
    with pytest.raises(UserError) as caught:
        loss(arguments.pop("values"), arguments.pop("target"), **arguments)
    assert text in str(caught.value)


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan])
def test_probabilities_outside_0_1_are_told_apart_from_logits(bad: float) -> None:
    with pytest.raises(UserError, match="for logits use sigmoid_focal_loss"):
        binary_focal_loss(torch.tensor([0.5, bad]), torch.tensor([0, 1]), alpha=0.25, gamma=2)


@pytest.mark.parametrize("alpha", ["0.25", [1, None, 3], {0: 1.0}, [1, [2], 3]])
def test_an_alpha_of_another_type_is_an_error(alpha: object) -> None:
    with pytest.raises(LossInputError, match="alpha must be None, a number or 3 numbers"):
        softmax_focal_loss(torch.zeros(2, 3), torch.tensor([0, 1]), gamma=2.0, alpha=alpha)  # type: ignore[arg-type]


def test_numpy_numbers_are_numbers() -> None:
    logits, target = torch.tensor([0.5, -1.0]), torch.tensor([1.0, 0.0])
    ours = sigmoid_focal_loss(logits, target, alpha=np.float32(0.25), gamma=np.float32(2))  # type: ignore[arg-type]
    assert torch.equal(ours, sigmoid_focal_loss(logits, target, alpha=0.25, gamma=2.0))
