"""Weights of classes against their formulas in loops, and what they do to the criterion."""

import random
from fractions import Fraction

import pytest
import torch

from retinanet.build.losses import build_box_loss, build_class_loss
from retinanet.config.class_losses import AnyClassLossKeys, BoxLossKeys, CrossEntropyKeys, OhemKeys
from retinanet.detection.anchors import AnchorSpec, pyramid_anchors
from retinanet.detection.assign import AssignRule, assign_batch
from retinanet.losses.class_weights import inverse_effective_number, inverse_frequency, weights_of_labels
from retinanet.losses.criterion import Criterion, Divisor, Losses, criterion
from retinanet.structures import BACKGROUND, IGNORE, HeadOutputs, Targets


@pytest.mark.parametrize("seed", range(10))
def test_weights_are_those_of_the_formulas(seed: int) -> None:
    draw = random.Random(seed)
    objects = [draw.choice([0, 1, 7, 200, 3000]) for _ in range(5)] + [4]
    total, present = sum(objects), sum(n > 0 for n in objects)
    balanced = [total / (present * n) if n else 1.0 for n in objects]  # scikit-learn's class_weight="balanced"
    assert inverse_frequency(objects) == pytest.approx(balanced)
    beta = draw.choice([0.0, 0.9, 0.999])
    effective = [sum(beta**power for power in range(n)) for n in objects]  # E_n = 1 + beta + ... + beta^(n - 1)
    scale = total / sum(n / e for n, e in zip(objects, effective, strict=True) if n)
    assert inverse_effective_number(objects, beta) == pytest.approx([scale / e if e else 1.0 for e in effective])


def test_extremes_of_beta_and_data_without_objects() -> None:
    assert inverse_effective_number([3, 50, 7], 0.0) == pytest.approx((1.0, 1.0, 1.0))
    assert inverse_effective_number([3, 50, 7], 1 - 1e-9) == pytest.approx(inverse_frequency([3, 50, 7]), rel=1e-6)
    assert inverse_frequency([0, 0]) == (1.0, 1.0)


def test_labels_without_a_class_weigh_one() -> None:
    labels = torch.tensor([[0, 2, BACKGROUND], [IGNORE, 1, 1]])
    assert weights_of_labels(labels, (0.5, 2.0, 3.0)).tolist() == [[0.5, 3.0, 1.0], [1.0, 2.0, 2.0]]


SPEC = AnchorSpec((16.0, 32.0, 64.0, 128.0, 256.0), (1.0,), (0.5, 1.0, 2.0), 0.5, "none", "stride")
PYRAMID = pyramid_anchors((64, 80), SPEC, torch.device("cpu"))
OBJECTS = [(4.0, 6.0, 22.0, 25.0), (30.0, 8.0, 62.0, 36.0), (10.0, 20.0, 40.0, 60.0)]


@pytest.mark.parametrize("keys", [CrossEntropyKeys(), OhemKeys(batch=150, nms_iou=1.0)], ids=["dense", "mined"])
def test_positives_weigh_by_class_and_everything_else_stays(keys: AnyClassLossKeys) -> None:
    boxes_G4, labels_G = torch.tensor(OBJECTS), torch.tensor([0, 2, 1])
    targets = [Targets(boxes_G4, labels_G, torch.zeros(0, 4))]
    rule = AssignRule(0.4, 0.3, True, low_quality_min_iou=0.0, low_quality_takes="best_box", crowd_overlap=0.5)
    assignment = assign_batch(PYRAMID, targets, rule)
    generator = torch.Generator().manual_seed(0)
    anchors = len(PYRAMID.boxes_A4)
    logits = (torch.randn((1, anchors, 3), generator=generator) - 2).requires_grad_()
    deltas = (0.3 * torch.randn((1, anchors, 4), generator=generator)).requires_grad_()

    def losses(weights: tuple[float, ...] | None) -> Losses:
        parts = Criterion(build_class_loss(keys), 1.5, build_box_loss(BoxLossKeys()), 1.0, weights)
        seeds = torch.zeros(1, dtype=torch.int64)
        outputs = HeadOutputs(logits, deltas)
        return criterion(outputs, assignment, PYRAMID.boxes_A4, parts, Divisor(torch.tensor([3.0]), 1), seeds)

    plain, weighted = losses(None), losses((2.0, 0.25, 5.0))
    gradients = [torch.autograd.grad(found.class_B.sum(), logits)[0][0] for found in (plain, weighted)]
    factors = []
    for label, before, after in zip(assignment.labels_BA[0].tolist(), *gradients, strict=True):
        factor = Fraction(1) if label < 0 else (2, Fraction(1, 4), 5)[label]
        torch.testing.assert_close(after, before * float(factor))
        factors += [factor] * bool(before.any())
    assert set(factors) == {1, 2, Fraction(1, 4), 5}
    assert torch.equal(plain.box_B, weighted.box_B)
    assert weighted.foreground != plain.foreground
    torch.testing.assert_close(weighted.class_B.sum() - weighted.foreground, plain.class_B.sum() - plain.foreground)
