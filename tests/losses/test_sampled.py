"""The random minibatch: how many, which, by what seed; its value and gradient against float64 closed forms."""

import math
from typing import Any

import pydantic
import pytest
import torch
from host_reads import HostReads
from torch import Tensor

from retinanet.build.losses import build_sample_rule
from retinanet.config.class_losses import SampledKeys
from retinanet.losses.sampled import SampleRule, draw, minibatch_cross_entropy, random_ranks, sampled
from retinanet.structures import BACKGROUND, IGNORE, ClassTargets

HALF = SampleRule(batch=8, positive_fraction=0.5, normaliser="positives")
QUARTER = HALF._replace(positive_fraction=0.25)


def labels_of(positives: int, negatives: int, ignored: int) -> Tensor:
    """(A,) in a fixed shuffled order."""
    labels = torch.tensor([1] * positives + [BACKGROUND] * negatives + [IGNORE] * ignored)
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(7))]


def targets_of(labels_BA: Tensor, seeds: list[int], images: int = 2, normaliser: float = 3.0) -> ClassTargets:
    batch, count = labels_BA.shape
    positives = int((labels_BA >= 0).sum())
    return ClassTargets(
        labels_BA,
        torch.full((batch,), normaliser),
        images,
        torch.tensor(seeds),
        torch.zeros((count, 4)),
        torch.zeros((batch, count, 4)),
        torch.zeros((positives, 4)),
        torch.zeros(positives),
    )


def drawn_of(labels_A: Tensor, seed: int, rule: SampleRule) -> Tensor:
    """Indices drawn from one image."""
    anchors_1M, is_drawn_1M = draw(labels_A[None], torch.tensor([seed]), rule)
    return anchors_1M[is_drawn_1M]


def random_logits(images: int, count: int, classes: int = 3, seed: int = 0) -> Tensor:
    return torch.randn((images, count, classes), generator=torch.Generator().manual_seed(seed)) * 4


@pytest.mark.parametrize(
    ("rule", "given", "expected"),
    [
        (HALF, (20, 50, 5), (4, 4)),
        (QUARTER, (20, 50, 5), (2, 6)),
        (HALF, (1, 50, 5), (1, 7)),
        (HALF, (0, 50, 5), (0, 8)),
        (HALF, (20, 2, 5), (4, 2)),
        (HALF, (0, 0, 9), (0, 0)),
        (HALF._replace(batch=1), (20, 50, 5), (0, 1)),
        (HALF._replace(positive_fraction=1.0), (20, 50, 5), (8, 0)),
        (HALF._replace(batch=5), (20, 50, 5), (2, 3)),
    ],
)
def test_counts(rule: SampleRule, given: tuple[int, int, int], expected: tuple[int, int]) -> None:
    labels_A = labels_of(*given)
    for seed in range(5):
        drawn = drawn_of(labels_A, seed, rule)
        assert len(set(drawn.tolist())) == len(drawn)
        assert (int((labels_A[drawn] >= 0).sum()), int((labels_A[drawn] == BACKGROUND).sum())) == expected
        assert len(drawn) == sum(expected)


def test_the_seed_alone_decides_which() -> None:
    labels_BA = torch.stack([labels_of(20, 50, 5), labels_of(3, 60, 12)])
    logits = random_logits(2, 75)
    torch.manual_seed(1)
    value = sampled(logits, targets_of(labels_BA, [2**62 + 5, 9]), HALF)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    swapped = sampled(logits.flip(0), targets_of(labels_BA.flip(0), [9, 2**62 + 5]), HALF)
    assert torch.equal(torch.get_rng_state(), before)
    torch.testing.assert_close(value, swapped.flip(0))
    alone = sampled(logits[1:], targets_of(labels_BA[1:], [9]), HALF)
    torch.testing.assert_close(alone[0], value[1])
    other = sampled(logits, targets_of(labels_BA, [2**62 + 6, 9]), HALF)
    assert not torch.equal(other[0] > 0, value[0] > 0)
    torch.testing.assert_close(other[1], value[1])


def test_every_anchor_is_drawn_in_its_turn_and_none_more_often() -> None:
    labels_A = labels_of(10, 40, 10)
    times = torch.zeros(60)
    rounds = 3000
    for seed in range(rounds):
        times[drawn_of(labels_A, seed, HALF)] += 1
    assert not times[labels_A == IGNORE].any()
    for label, share in ((1, 4 / 10), (BACKGROUND, 4 / 40)):
        sigma = math.sqrt(rounds * share * (1 - share))
        assert (times[labels_A == label] - rounds * share).abs().max() < 5 * sigma


def test_random_ranks_are_splitmix64s() -> None:
    """The first numbers of its reference implementation (prng.di.unimi.it) from seed 1234567."""
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    found_BA = random_ranks(torch.tensor([1234567, 2**63 - 1]), 1000)
    assert found_BA[0, :4].tolist() == [number % 2**62 for number in published]
    assert found_BA.unique().numel() == 2000
    assert (found_BA >= 0).all()


def test_images_are_drawn_together_without_a_wait() -> None:
    labels_BA = torch.stack([labels_of(20, 50, 5), labels_of(0, 0, 75), labels_of(60, 3, 12)])
    logits, targets = random_logits(3, 75), targets_of(labels_BA, [1, 2, 3])
    with HostReads() as reads:
        sampled(logits, targets, HALF)
    assert not reads.found


@pytest.mark.parametrize("normaliser", ["positives", "kept"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_value_and_gradient_on_the_drawn_and_zero_elsewhere(normaliser: str, dtype: torch.dtype) -> None:
    labels_BA = torch.stack([labels_of(20, 50, 5), labels_of(0, 5, 70), labels_of(0, 0, 75)])
    rule = build_sample_rule(SampledKeys.model_validate({"batch": 8, "normaliser": normaliser}))
    leaf = random_logits(3, 75).to(dtype).requires_grad_()
    value = sampled(leaf, targets_of(labels_BA, [4, 5, 6], images=7), rule)
    value.sum().backward()
    assert value.dtype == dtype
    assert leaf.grad is not None
    expected, slope = torch.zeros((3, 75), dtype=torch.float64), torch.zeros((3, 75, 3), dtype=torch.float64)
    for image in range(3):
        drawn = drawn_of(labels_BA[image], 4 + image, rule).tolist()
        divisor = 3.0 if normaliser == "positives" else 7.0 * max(len(drawn), 1)
        for anchor in drawn:
            for k, x in enumerate(leaf[image, anchor].tolist()):
                y = k == labels_BA[image, anchor].item()
                expected[image, anchor] += math.log1p(math.exp(-x if y else x)) / divisor
                slope[image, anchor, k] = (1 / (1 + math.exp(-x)) - y) / divisor
    rel = 1e-6 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(value.detach().double(), expected, rtol=rel, atol=1e-12)
    torch.testing.assert_close(leaf.grad.double(), slope, rtol=rel, atol=1e-12)


@pytest.mark.parametrize("normaliser", ["positives", "kept"])
def test_finite_at_large_logits(normaliser: str) -> None:
    labels_BA = torch.tensor([[0, 0, BACKGROUND, BACKGROUND, IGNORE], [IGNORE] * 5])
    rule = build_sample_rule(SampledKeys.model_validate({"normaliser": normaliser}))
    leaf = torch.tensor([100.0, -100.0, 100.0, -100.0, 100.0]).repeat(2, 1)[..., None].requires_grad_()
    value = sampled(leaf, targets_of(labels_BA, [1, 2]), rule)
    value.sum().backward()
    assert leaf.grad is not None
    assert torch.isfinite(value).all()
    assert torch.isfinite(leaf.grad).all()
    assert (value > 1).tolist() == [[False, True, True, False, False], [False] * 5]
    assert not leaf.grad[labels_BA == IGNORE].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    labels_BA = labels_of(20, 50, 5)[None]
    half = random_logits(1, 75).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = sampled(half, targets_of(labels_BA, [3]), HALF)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, sampled(half.float(), targets_of(labels_BA, [3]), HALF))


def test_a_minibatch_of_everything_is_the_mean_over_images_of_means() -> None:
    labels_BA = torch.stack([labels_of(5, 5, 0), labels_of(2, 3, 5)])
    logits, targets = random_logits(2, 10), targets_of(labels_BA, [0, 0])
    rows = (labels_BA != IGNORE).nonzero(as_tuple=True)
    value = minibatch_cross_entropy(logits, rows, labels_BA[rows], targets, "kept")
    y = (labels_BA[..., None] == torch.arange(3)).float()
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, y, reduction="none").sum(dim=-1)
    means = [each[image][labels_BA[image] != IGNORE].mean() for image in range(2)]
    assert value.sum().item() == pytest.approx(torch.stack(means).mean().item(), rel=1e-6)


def test_section() -> None:
    assert build_sample_rule(SampledKeys()) == SampleRule(256, 0.5, "positives")
    changed: dict[str, Any] = {"batch": 64, "positive_fraction": 0.25, "normaliser": "kept"}
    assert build_sample_rule(SampledKeys.model_validate(changed)) == SampleRule(64, 0.25, "kept")
    assert all(field.description for field in SampledKeys.model_fields.values())


@pytest.mark.parametrize("options", [{"batch": 0}, {"positive_fraction": 0.0}, {"positive_fraction": 1.5}])
def test_section_refuses(options: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        SampledKeys.model_validate(options)
