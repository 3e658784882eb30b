"""The K+1-output losses against float64 closed forms, and their scores, prior and config keys."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from torch import Tensor

from retinanet.config.class_losses import SoftmaxCrossEntropyKeys, SoftmaxFocalKeys
from retinanet.detection.scores import softmax_scores
from retinanet.errors import ConfigError
from retinanet.losses.softmax import output_weights, softmax_cross_entropy, softmax_focal, softmax_prior_bias
from retinanet.structures import BACKGROUND, IGNORE

ROWS = [*itertools.product((-100.0, -12.5, 0.0, 1.0, 30.0, 100.0), repeat=3)]
"""Outputs of two classes and background that float32 holds and subtracts exactly."""
ALPHAS = {None: [1.0, 1.0, 1.0], 0.25: [0.25, 0.25, 0.75], (0.5, 2.0, 0.125): [0.5, 2.0, 0.125]}


def value_and_gradient(
    logits: Tensor, labels: Tensor, alpha: float | tuple[float, ...] | None, gamma: float
) -> tuple[Tensor, Tensor]:
    leaf = logits.clone().requires_grad_()
    loss = softmax_focal(leaf, labels, alpha, gamma)
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    return loss.detach(), gradient


@pytest.mark.parametrize("alpha", list(ALPHAS))
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_value_and_gradient_equal_the_closed_form(gamma: float, alpha: float | tuple[float, ...] | None) -> None:
    for label, output in ((0, 0), (1, 1), (BACKGROUND, 2)):
        value, gradient = value_and_gradient(torch.tensor(ROWS), torch.full((len(ROWS),), label), alpha, gamma)
        for row, found, slopes in zip(ROWS, value, gradient):
            odds = [0.0 if j == output else math.exp(x - row[output]) for j, x in enumerate(row)]
            u = math.fsum(odds)
            ce, q, p, weight = math.log1p(u), u / (1 + u), 1 / (1 + u), ALPHAS[alpha][output]
            slope = weight * q**gamma * (gamma * p * ce + q)
            expected = [-slope if j == output else slope * odd / u for j, odd in enumerate(odds)]
            assert found.item() == pytest.approx(weight * q**gamma * ce, rel=1e-6, abs=1e-37)
            assert slopes.tolist() == pytest.approx(expected, rel=1e-6, abs=1e-37)


def test_cross_entropy_equals_torchs() -> None:
    logits = torch.randn(2, 50, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.randint(IGNORE, 4, (2, 50), generator=torch.Generator().manual_seed(1))
    target = labels.where(labels >= 0, 4).where(labels != IGNORE, -100)
    for alpha, weight in ((None, None), (0.75, [0.75] * 4 + [0.25]), ((1.0, 2.0, 3.0, 4.0, 0.5),) * 2):
        expected = F.cross_entropy(
            logits.movedim(-1, 1),
            target,
            None if weight is None else torch.tensor(weight, dtype=torch.float64),
            reduction="none",
        )
        found = softmax_cross_entropy(logits, labels, alpha)
        assert found.dtype == torch.float64
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("label", [BACKGROUND, IGNORE])
def test_no_positives_and_all_ignored(label: int, gamma: float) -> None:
    logits = torch.tensor(ROWS)[None]
    value, gradient = value_and_gradient(logits, torch.full((1, len(ROWS)), label), 0.25, gamma)
    assert value.shape == (1, len(ROWS))
    assert value.isfinite().all()
    assert gradient.isfinite().all()
    if label == IGNORE:
        assert not value.any()
        assert not gradient.any()
    else:
        assert (value[0, :-1] > 0).any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    logits, labels = torch.tensor(ROWS).to(dtype), torch.arange(len(ROWS)) % 4 - 2
    expected = value_and_gradient(logits.float(), labels, 0.25, 2.0)
    with torch.autocast("cpu", dtype):
        value, gradient = value_and_gradient(logits, labels, 0.25, 2.0)
        scores = softmax_scores(logits)
    assert value.dtype == scores.dtype == torch.float32
    assert torch.equal(value, expected[0])
    assert torch.equal(gradient, expected[1].to(dtype))
    assert torch.equal(scores, softmax_scores(logits.float()))


def test_scores_are_the_classes_part_of_the_softmax() -> None:
    logits = torch.tensor([[[100.0, -100.0, -100.0], [0.0, math.log(2.0), math.log(5.0)]]])
    torch.testing.assert_close(softmax_scores(logits), torch.tensor([[[1.0, 0.0], [0.125, 0.25]]]))


@pytest.mark.parametrize("classes", [1, 3, 80])
@pytest.mark.parametrize("prior", [0.01, 0.5])
def test_prior_is_the_chance_of_any_class(prior: float, classes: int) -> None:
    bias = softmax_prior_bias(prior, classes)
    assert len(bias) == classes + 1
    scores = softmax_scores(torch.tensor(bias))
    torch.testing.assert_close(scores, torch.full((classes,), prior / classes))


def test_weights_of_a_wrong_length_name_the_right_one() -> None:
    with pytest.raises(ConfigError, match=r"loss\.classification\.alpha has 2 weights.* 2 classes needs 3"):
        softmax_focal(torch.zeros(4, 3), torch.zeros(4).long(), (1.0, 1.0), 2.0)
    assert output_weights(1, 2) == [1.0, 1.0, 0.0]


def test_config_keys() -> None:
    assert SoftmaxCrossEntropyKeys().alpha is None
    assert (SoftmaxFocalKeys().alpha, SoftmaxFocalKeys().gamma) == (0.25, 2.0)
    for section in (SoftmaxCrossEntropyKeys, SoftmaxFocalKeys):
        for alpha in (None, 0.75, (1.0, 2.0, 0.5)):
            assert section.model_validate({"alpha": alpha, "weight": 2.0}).alpha == alpha
        for alpha in (1.5, -0.1, (1.0, -1.0), "0.25"):
            with pytest.raises(ValidationError):
                section.model_validate({"alpha": alpha})
