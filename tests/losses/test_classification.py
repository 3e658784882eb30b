"""Classification losses against the paper's own formulas in 150-digit decimals, torchvision and torch."""

import math
from collections.abc import Callable
from decimal import Decimal, localcontext
from functools import partial
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from retinanet.build.losses import build_class_loss
from retinanet.config.class_losses import AnyClassLossKeys
from retinanet.config.schema import LossKeys as LossSection
from retinanet.losses.classification import ClassificationLoss
from retinanet.losses.cross_entropy import balanced_cross_entropy, cross_entropy
from retinanet.losses.focal import focal
from retinanet.structures import BACKGROUND, IGNORE, ClassTargets

GRID = (-100.0, -30.0, -12.5, -5.0, -1.0, -0.25, 0.0, 0.25, 1.0, 5.0, 12.5, 30.0, 100.0)
GAMMAS = (0.0, 0.5, 1.0, 2.0, 5.0)
ALPHAS = (0.0, 0.25, 0.5, 1.0)
Loss = Callable[[Tensor, Tensor], Tensor]
ALL: dict[str, Loss] = {
    "ce": cross_entropy,
    "balanced": partial(balanced_cross_entropy, alpha=0.25),
    **{f"focal{gamma:g}": partial(focal, alpha=0.25, gamma=gamma) for gamma in (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)},
}
every_loss = pytest.mark.parametrize("loss", list(ALL.values()), ids=list(ALL))


def paper_focal(x: float, is_class: bool, alpha: float, gamma: float) -> tuple[float, float]:
    """Equation 5 and the derivative of the paper's appendix B, term by term as printed there."""
    with localcontext() as context:
        context.prec = 150
        y = 1 if is_class else -1
        p_t = 1 / (1 + (-y * Decimal(x)).exp())
        alpha_t = Decimal(alpha) if is_class else 1 - Decimal(alpha)
        modulation = (1 - p_t) ** Decimal(gamma) if gamma else Decimal(1)
        log_p = p_t.ln()
        slope = y * modulation * (Decimal(gamma) * p_t * log_p + p_t - 1)
        return float(-alpha_t * modulation * log_p), float(alpha_t * slope)


def value_and_gradient(loss: Loss, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    leaf = logits.clone().requires_grad_()
    value = loss(leaf, labels)
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), gradient


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("gamma", GAMMAS)
def test_focal_and_its_gradient_equal_the_paper(gamma: float, alpha: float) -> None:
    """Relative 1e-6 in float32; for gamma 5 the rounding of log(1 - p_t) counts five times."""
    logits = torch.tensor(GRID)[:, None]
    for label in (0, BACKGROUND):
        labels = torch.full((len(GRID),), label)
        value, gradient = value_and_gradient(partial(focal, alpha=alpha, gamma=gamma), logits, labels)
        expected = [paper_focal(x, label == 0, alpha, gamma) for x in GRID]
        rel = 1e-6 if gamma <= 2 else 4e-6
        assert value.tolist() == pytest.approx([v for v, _ in expected], rel=rel, abs=1e-30)
        assert gradient[:, 0].tolist() == pytest.approx([g for _, g in expected], rel=rel, abs=1e-30)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_balanced_cross_entropy_equals_the_paper(alpha: float) -> None:
    logits = torch.tensor(GRID)[:, None]
    for label in (0, BACKGROUND):
        labels = torch.full((len(GRID),), label)
        value, gradient = value_and_gradient(partial(balanced_cross_entropy, alpha=alpha), logits, labels)
        expected = [paper_focal(x, label == 0, alpha, 0.0) for x in GRID]
        assert value.tolist() == pytest.approx([v for v, _ in expected], rel=1e-6, abs=1e-37)
        assert gradient[:, 0].tolist() == pytest.approx([g for _, g in expected], rel=1e-6, abs=1e-37)


@pytest.mark.parametrize("classes", [1, 2, 3, 4, 5])
def test_an_anchors_loss_sums_its_outputs(classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    logits = torch.randn((40, classes), generator=generator) * 4
    labels = torch.randint(-1, classes, (40,), generator=generator)
    assert set(labels.tolist()) == set(range(-1, classes))
    for alpha, gamma, scale, loss in (
        (0.25, 2.0, 1.0, partial(focal, alpha=0.25, gamma=2.0)),
        (0.75, 0.0, 1.0, partial(balanced_cross_entropy, alpha=0.75)),
        (0.5, 0.0, 2.0, cross_entropy),
    ):
        value, gradient = value_and_gradient(loss, logits, labels)
        for row, label in enumerate(labels.tolist()):
            terms = [paper_focal(x, k == label, alpha, gamma) for k, x in enumerate(logits[row].tolist())]
            assert value[row].item() == pytest.approx(scale * math.fsum(v for v, _ in terms), rel=1e-6)
            assert gradient[row].tolist() == pytest.approx([scale * g for _, g in terms], rel=2e-6)


def random_case(classes: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn((2, 60, classes), generator=generator) * 5, torch.randint(
        -1, classes, (2, 60), generator=generator
    )


def one_hot(labels: Tensor, classes: int) -> Tensor:
    return F.one_hot(labels.clamp(min=0), classes).float() * (labels >= 0)[..., None]


@pytest.mark.parametrize(("alpha", "gamma"), [(0.25, 2.0), (0.5, 1.0), (0.75, 0.5), (0.25, 0.0)])
def test_focal_equals_torchvision(alpha: float, gamma: float) -> None:
    logits, labels = random_case()
    oracle = sigmoid_focal_loss(logits.double(), one_hot(labels, 4).double(), alpha, gamma).sum(dim=-1)
    torch.testing.assert_close(focal(logits, labels, alpha, gamma).double(), oracle, rtol=2e-6, atol=1e-12)


def test_cross_entropy_equals_torch() -> None:
    logits, labels = random_case()
    oracle = F.binary_cross_entropy_with_logits(logits, one_hot(labels, 4), reduction="none").sum(dim=-1)
    torch.testing.assert_close(cross_entropy(logits, labels), oracle)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_focal_without_focus_is_balanced_cross_entropy(alpha: float) -> None:
    logits, labels = random_case()
    focal_case = value_and_gradient(partial(focal, alpha=alpha, gamma=0.0), logits, labels)
    balanced = value_and_gradient(partial(balanced_cross_entropy, alpha=alpha), logits, labels)
    for ours, other in zip(focal_case, balanced, strict=True):
        assert torch.equal(ours, other)


def test_balanced_with_half_is_half_of_cross_entropy() -> None:
    logits, labels = random_case()
    torch.testing.assert_close(2 * balanced_cross_entropy(logits, labels, 0.5), cross_entropy(logits, labels))


@every_loss
def test_ignored_anchors_give_exact_zeros_and_leave_the_others_alone(loss: Loss) -> None:
    logits, labels = random_case()
    ignored = torch.zeros_like(labels, dtype=torch.bool)
    ignored[:, ::3] = True
    value, gradient = value_and_gradient(loss, logits, torch.where(ignored, IGNORE, labels))
    plain_value, plain_gradient = value_and_gradient(loss, logits, labels)
    assert value[ignored].abs().sum().item() == 0
    assert gradient[ignored].abs().sum().item() == 0
    assert torch.equal(value[~ignored], plain_value[~ignored])
    assert torch.equal(gradient[~ignored], plain_gradient[~ignored])
    assert (plain_value > 0).all()


@every_loss
def test_all_ignored(loss: Loss) -> None:
    value, gradient = value_and_gradient(loss, torch.randn(5, 3) * 1e4, torch.full((5,), IGNORE))
    assert value.tolist() == [0.0] * 5
    assert gradient.abs().sum().item() == 0


@every_loss
def test_a_background_anchor_is_pushed_down_everywhere_a_class_up_only_at_its_own(loss: Loss) -> None:
    _, gradient = value_and_gradient(loss, torch.zeros(2, 3), torch.tensor([BACKGROUND, 1]))
    assert (gradient > 0).tolist() == [[True, True, True], [True, False, True]]
    assert gradient[1, 1].item() < 0


@every_loss
@pytest.mark.parametrize("size", [40.0, 200.0, 1e4])
def test_saturated_logits_stay_finite(loss: Loss, size: float) -> None:
    """The right and the wrong side of both labels, also where (1 - p_t)^(gamma - 1) would be 0^-0.5."""
    logits = torch.tensor([[size, -size], [-size, size], [size, size], [-size, -size]])
    for label in (0, 1, BACKGROUND, IGNORE):
        value, gradient = value_and_gradient(loss, logits, torch.full((4,), label))
        assert torch.isfinite(value).all()
        assert torch.isfinite(gradient).all()
        assert (value >= 0).all()


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(loss: Loss, dtype: torch.dtype) -> None:
    logits, labels = random_case()
    half = logits.to(dtype)
    value, gradient = value_and_gradient(loss, half, labels)
    full_value, full_gradient = value_and_gradient(loss, half.float(), labels)
    assert value.dtype == torch.float32
    assert torch.equal(value, full_value)
    assert torch.equal(gradient, full_gradient.to(dtype))


@every_loss
def test_autocast_changes_nothing(loss: Loss) -> None:
    logits, labels = random_case()
    value, gradient = value_and_gradient(loss, logits, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast_value, cast_gradient = value_and_gradient(loss, logits, labels)
    assert torch.equal(value, cast_value)
    assert torch.equal(gradient, cast_gradient)


def chosen(**keys: object) -> ClassificationLoss:
    """The loss of a config's section."""
    return build_class_loss(LossSection.model_validate({"classification": keys}).classification)


def targets_of(labels_BA: Tensor, normaliser_B: Tensor) -> ClassTargets:
    """Targets of a loss that looks at labels and normaliser alone."""
    images, anchors = labels_BA.shape
    boxes = torch.zeros(0, 4)
    seeds, deltas = torch.zeros(images, dtype=torch.int64), torch.zeros(images, anchors, 4)
    return ClassTargets(
        labels_BA, normaliser_B, images, seeds, torch.zeros(anchors, 4), deltas, boxes, torch.zeros(len(boxes))
    )


@every_loss
def test_gradcheck(loss: Loss) -> None:
    logits = torch.tensor(
        [[-3.0, 0.5, 2.0], [0.0, -0.75, 4.0], [1.0, 1.0, -6.0]], dtype=torch.float64, requires_grad=True
    )
    labels = torch.tensor([1, BACKGROUND, IGNORE])
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), (logits,))


@pytest.mark.parametrize("kind", ["focal", "cross_entropy", "balanced_cross_entropy"])
@pytest.mark.parametrize("prior", [0.001, 0.01, 0.5, 0.9])
def test_the_prior_bias_gives_the_prior_as_score(kind: str, prior: float) -> None:
    loss = chosen(kind=kind)
    scores = loss.scoring.scores(torch.tensor([loss.prior_bias(prior, 5)] * 2))
    assert scores.shape == (2, 5)
    assert scores.dtype == torch.float32
    assert scores.flatten().tolist() == pytest.approx([prior] * 10, rel=1e-6)


def test_scores_of_half_precision_are_float32() -> None:
    loss = chosen()
    scores = loss.scoring.scores(torch.tensor([[-4.6, 0.0, 4.6]], dtype=torch.bfloat16))
    assert scores.dtype == torch.float32
    assert scores[0].tolist() == pytest.approx([1 / (1 + math.exp(4.59375)), 0.5, 1 / (1 + math.exp(-4.59375))])


def test_the_config_chooses_kind_and_parameters() -> None:
    logits, labels = random_case()
    logits, labels = logits.reshape(1, -1, logits.shape[-1]), labels.reshape(1, -1)
    targets = targets_of(labels, torch.tensor([4.0]))
    for loss, expected in (
        (chosen(), focal(logits, labels, 0.25, 2.0)),
        (chosen(kind="focal", alpha=0.3, gamma=1.5), focal(logits, labels, 0.3, 1.5)),
        (chosen(kind="balanced_cross_entropy", alpha=0.3), balanced_cross_entropy(logits, labels, 0.3)),
        (chosen(kind="cross_entropy"), cross_entropy(logits, labels)),
    ):
        assert torch.equal(loss.value(logits, targets), expected / 4)


KINDS = [option.__metadata__[0].tag for option in get_args(get_args(AnyClassLossKeys)[0])]
KINDS.remove("own")  # a file of the user: tests/losses/test_own.py


def crowded_case(images: int = 2, seed: int = 0) -> tuple[Tensor, ClassTargets]:
    """Anchors on a grid, some positive with boxes near them, some ignored; logits for the most outputs of any kind."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.arange(0, 64, 8.0)
    low_A2 = torch.cartesian_prod(corner, corner)
    anchors_A4 = torch.cat([low_A2, low_A2 + 12], dim=1)
    labels_BA = torch.randint(-8, 3, (images, len(anchors_A4)), generator=generator).clamp(min=IGNORE)
    image_P, anchor_P = (labels_BA >= 0).nonzero(as_tuple=True)
    boxes_P4 = anchors_A4[anchor_P] + torch.randn((len(anchor_P), 4), generator=generator)
    deltas_BA4 = torch.randn((*labels_BA.shape, 4), generator=generator) * 0.1
    logits = torch.randn((*labels_BA.shape, 4), generator=generator) * 2 - 1
    seeds_B = torch.arange(images)
    normaliser_B = torch.full((images,), float(max(len(image_P), 1)))
    box_loss_P = torch.rand(len(anchor_P), generator=generator)
    return logits, ClassTargets(labels_BA, normaliser_B, images, seeds_B, anchors_A4, deltas_BA4, boxes_P4, box_loss_P)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_keeps_the_contract(kind: str) -> None:
    """Shapes, float32, nothing at ignored anchors, finite values and gradients at +-100, images without positives."""
    loss = chosen(kind=kind)
    biases = loss.prior_bias(0.01, 3)
    assert len(biases) in (3, 4)
    logits, targets = crowded_case()
    logits = logits[..., : len(biases)]
    assert loss.scoring.scores(logits).shape == (*logits.shape[:2], 3)
    empty = torch.full_like(targets.labels_BA, BACKGROUND)
    nothing = targets._replace(boxes_P4=torch.zeros(0, 4), box_loss_P=torch.zeros(0))
    cases = [
        (logits, targets),
        (logits.sign() * 100, targets),
        (logits.bfloat16(), targets),
        (logits, nothing._replace(labels_BA=empty)),
        (logits, nothing._replace(labels_BA=torch.full_like(empty, IGNORE))),
    ]
    for outputs, given in cases:
        leaf = outputs.detach().requires_grad_()
        value_BA = loss.value(leaf, given)
        assert value_BA.shape == given.labels_BA.shape
        assert value_BA.dtype == torch.float32
        (gradient,) = torch.autograd.grad(value_BA.sum(), leaf)
        assert torch.isfinite(value_BA).all()
        assert torch.isfinite(gradient).all()
        ignored = given.labels_BA == IGNORE
        assert (value_BA[ignored] == 0).all()
        assert (gradient[ignored] == 0).all()
        assert value_BA.sum() > 0 or not (given.labels_BA >= 0).any()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "ghm"])
def test_micro_batches_add_up_for_every_kind(kind: str) -> None:
    """Each image alone, given the effective batch, has its loss in the batch. GHM's histogram is the exception."""
    loss = chosen(kind=kind)
    logits, targets = crowded_case()
    logits = logits[..., : len(loss.prior_bias(0.01, 3))]
    whole_BA = loss.value(logits, targets)
    image_P = (targets.labels_BA >= 0).nonzero()[:, 0]
    for b in range(len(logits)):
        alone = targets._replace(
            labels_BA=targets.labels_BA[b : b + 1],
            normaliser_B=targets.normaliser_B[b : b + 1],
            seeds_B=targets.seeds_B[b : b + 1],
            deltas_BA4=targets.deltas_BA4[b : b + 1],
            boxes_P4=targets.boxes_P4[image_P == b],
            box_loss_P=targets.box_loss_P[image_P == b],
        )
        torch.testing.assert_close(loss.value(logits[b : b + 1], alone)[0], whole_BA[b])
