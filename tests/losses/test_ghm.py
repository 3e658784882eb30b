"""GHM-C against a loop over its definition in float64, and its histogram by hand."""

import math
from functools import partial

import pytest
import torch
from torch import Tensor

from retinanet.config.class_losses import GhmKeys
from retinanet.losses.cross_entropy import cross_entropy
from retinanet.losses.ghm import ghm as ghm_by
from retinanet.losses.ghm import harmonised, harmonising_weights
from retinanet.structures import BACKGROUND, IGNORE, ClassTargets


def ghm(logits: Tensor, targets: ClassTargets, bins: int) -> Tensor:
    return ghm_by(logits, targets, partial(harmonised, bins=bins))


def targets_of(labels_BA: Tensor, images: int | None = None) -> ClassTargets:
    """What GHM looks at; normaliser and boxes are such that using them would show."""
    images_here, anchors = labels_BA.shape
    positives = int((labels_BA >= 0).sum())
    return ClassTargets(
        labels_BA,
        torch.full((images_here,), math.nan),
        images_here if images is None else images,
        torch.zeros(images_here, dtype=torch.int64),
        torch.full((anchors, 4), math.nan),
        torch.full((images_here, anchors, 4), math.nan),
        torch.full((positives, 4), math.nan),
        torch.full((positives,), math.nan),
    )


def value_and_gradient(logits: Tensor, targets: ClassTargets, bins: int = 30) -> tuple[Tensor, Tensor]:
    leaf = logits.clone().requires_grad_()
    value = ghm(leaf, targets, bins)
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), gradient


def random_case(seed: int = 7) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((2, 40, 3), generator=generator) * 3, torch.randint(-2, 3, (2, 40), generator=generator)


def slow_ghm(logits: Tensor, labels: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """Value (B, A) and gradient (B, A, K) in float64: every output alone, densities counted over all the others."""
    value, gradient = torch.zeros(labels.shape, dtype=torch.float64), torch.zeros_like(logits, dtype=torch.float64)
    outputs = []
    for b, a, k in torch.ones_like(logits).nonzero().tolist():
        label = int(labels[b, a])
        if label != IGNORE:
            y = 1 if label == k else -1
            p_t = 1 / (1 + math.exp(-y * logits[b, a, k].item()))
            outputs.append((b, a, k, y, 1 - p_t, -math.log(p_t)))
    occupied = {min(math.floor(g * bins), bins - 1) for *_, g, _ in outputs}
    for b, a, k, y, g, loss in outputs:
        low = min(math.floor(g * bins), bins - 1) / bins
        density = len(occupied) * sum(low <= other < low + 1 / bins for *_, other, _ in outputs)
        value[b, a] += loss / density
        gradient[b, a, k] = -y * g / density
    return value, gradient


@pytest.mark.parametrize("bins", [1, 10, 30])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_value_and_gradient_equal_the_definition(bins: int, seed: int) -> None:
    logits, labels = random_case(seed)
    value, gradient = value_and_gradient(logits, targets_of(labels), bins)
    slow_value, slow_gradient = slow_ghm(logits, labels, bins)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), slow_value, rtol=1e-6, atol=1e-12)
    torch.testing.assert_close(gradient.double(), slow_gradient, rtol=1e-6, atol=1e-12)


def test_the_weights_of_a_histogram_made_by_hand() -> None:
    """Four bins: three norms in [0, .25), one in [.25, .5), none in [.5, .75), two in [.75, 1]; three are in use."""
    norms = torch.tensor([[[0.0, 0.1], [0.2499, 0.25], [0.75, 1.0], [0.6, 0.1]]])
    weights = harmonising_weights(norms, torch.tensor([[True, True, True, False]]), 4)
    ninth, third, sixth = 1 / 9, 1 / 3, 1 / 6
    expected = [ninth, ninth, ninth, third, sixth, sixth, 0.0, 0.0]
    assert weights.flatten().tolist() == pytest.approx(expected, rel=1e-6, abs=0)
    assert weights.sum().item() == pytest.approx(1.0, rel=1e-6)


def test_empty_bins_do_not_matter() -> None:
    """The authors' code against the paper's equation: outputs that are all alike are not weighed down by M."""
    logits, labels = torch.full((1, 6, 2), -2.0), torch.full((1, 6), BACKGROUND)
    mean = math.log1p(math.exp(-2.0))
    for bins in (1, 5, 30, 1000):
        assert ghm(logits, targets_of(labels), bins).sum().item() == pytest.approx(mean, rel=1e-6)


def test_one_bin_is_the_mean_cross_entropy() -> None:
    logits, labels = random_case()
    expected = cross_entropy(logits, labels) / (3 * (labels != IGNORE).sum())
    torch.testing.assert_close(ghm(logits, targets_of(labels), 1), expected, rtol=1e-6, atol=0)


def test_the_scale_at_the_prior_does_not_depend_on_the_numbers_of_anchors() -> None:
    """Two bins in use, the positives' and the background's: the mean of -log .01 and -log .99."""
    for anchors in (10, 5000):
        logits = torch.full((1, anchors, 4), -math.log(99))
        labels = torch.full((1, anchors), BACKGROUND)
        labels[0, :3] = 2
        total = ghm(logits, targets_of(labels), 30).sum().item()
        assert total == pytest.approx(-(math.log(0.01) + math.log(0.99)) / 2, rel=1e-5)


def test_a_micro_batch_counts_by_its_share_of_the_images() -> None:
    logits, labels = random_case()
    whole, gradient = value_and_gradient(logits, targets_of(labels, images=2))
    part, part_gradient = value_and_gradient(logits, targets_of(labels, images=16))
    torch.testing.assert_close(part, whole / 8, rtol=1e-6, atol=0)
    torch.testing.assert_close(part_gradient, gradient / 8, rtol=1e-6, atol=0)


def test_the_density_is_a_constant_to_the_gradient() -> None:
    """Gradient = weight x CE's gradient in float64 as well, and harmonising_weights gives none."""
    logits, labels = random_case()
    assert not harmonising_weights(torch.rand(1, 4, 2, requires_grad=True), torch.ones(1, 4).bool(), 5).requires_grad
    value, gradient = value_and_gradient(logits.double(), targets_of(labels))
    slow_value, slow_gradient = slow_ghm(logits, labels, 30)
    torch.testing.assert_close(value, slow_value, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient, slow_gradient, rtol=1e-12, atol=1e-15)


def test_ignored_anchors_are_not_counted() -> None:
    logits, labels = random_case()
    labels[:, ::2] = IGNORE
    value, gradient = value_and_gradient(logits, targets_of(labels))
    kept, kept_gradient = value_and_gradient(logits[:, 1::2], targets_of(labels[:, 1::2]))
    assert value[:, ::2].abs().sum().item() == 0
    assert gradient[:, ::2].abs().sum().item() == 0
    torch.testing.assert_close(value[:, 1::2], kept, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient[:, 1::2], kept_gradient, rtol=1e-6, atol=1e-12)


def test_all_ignored_and_no_anchors_and_no_positives() -> None:
    for labels in (torch.full((2, 5), IGNORE), torch.full((2, 0), IGNORE)):
        value, gradient = value_and_gradient(torch.randn(*labels.shape, 3), targets_of(labels))
        assert value.shape == labels.shape
        assert value.abs().sum().item() == 0
        assert gradient.abs().sum().item() == 0
    value, _ = value_and_gradient(torch.randn(2, 5, 3), targets_of(torch.full((2, 5), BACKGROUND)))
    assert (value > 0).all()


@pytest.mark.parametrize("size", [100.0, 1e4])
def test_saturated_logits_stay_finite(size: float) -> None:
    """A norm of exactly 1 belongs to the last bin."""
    logits = torch.tensor([[[size, -size], [-size, size], [size, size], [-size, -size]]])
    value, gradient = value_and_gradient(logits, targets_of(torch.tensor([[0, 0, BACKGROUND, IGNORE]])))
    assert torch.isfinite(value).all()
    assert torch.isfinite(gradient).all()
    assert value.tolist()[0] == pytest.approx([0.0, size / 4, size / 4, 0.0], abs=1e-6)


def test_a_nan_logit_affects_only_its_own_image() -> None:
    logits, labels = torch.randn(2, 5, 3), torch.full((2, 5), BACKGROUND)
    logits[0, 2, 1] = math.nan
    value = ghm(logits, targets_of(labels), 30)
    assert value.isnan().nonzero().tolist() == [[0, 2]]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    logits, labels = random_case()
    half = logits.to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value, gradient = value_and_gradient(half, targets_of(labels))
    full_value, full_gradient = value_and_gradient(half.float(), targets_of(labels))
    assert value.dtype == torch.float32
    assert torch.equal(value, full_value)
    assert torch.equal(gradient, full_gradient.to(dtype))


def test_keys() -> None:
    assert GhmKeys().model_dump() == {"weight": 1.0, "kind": "ghm", "bins": 30}
