"""A class loss of the user's own: its value in a step, and what is refused."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import retinanet
from retinanet.errors import ConfigError
from retinanet.losses.classification import over_positives
from retinanet.losses.cross_entropy import cross_entropy
from retinanet.losses.own import OwnLoss, own_loss
from retinanet.structures import BACKGROUND, IGNORE, ClassTargets


def bce(logits: Tensor, targets: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none")


def poly(logits: Tensor, targets: Tensor, epsilon: float = 1.0) -> Tensor:
    return bce(logits, targets) + epsilon * (targets - logits.sigmoid()).abs()


def targets_of(labels_BA: Tensor) -> ClassTargets:
    images, anchors = labels_BA.shape
    positives = int((labels_BA >= 0).sum())
    return ClassTargets(
        labels_BA=labels_BA,
        normaliser_B=torch.full((images,), 3.0),
        images=images,
        seeds_B=torch.zeros(images, dtype=torch.int64),
        anchors_A4=torch.zeros(anchors, 4),
        deltas_BA4=torch.zeros(images, anchors, 4),
        boxes_P4=torch.zeros(positives, 4),
        box_loss_P=torch.zeros(positives),
    )


LABELS = torch.tensor([[0, BACKGROUND, IGNORE, 2], [1, BACKGROUND, BACKGROUND, IGNORE]])


@pytest.mark.parametrize("per_anchor", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cross_entropy_as_own_loss_equals_cross_entropy(dtype: torch.dtype, per_anchor: bool) -> None:
    logits = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0)).to(dtype)

    def function(logits_NK: Tensor, targets_NK: Tensor) -> Tensor:
        assert logits_NK.shape == (6, 3), "anchors that are ignored do not count"
        assert logits_NK.dtype == targets_NK.dtype == torch.float32
        loss = bce(logits_NK, targets_NK)
        return loss.sum(dim=1) if per_anchor else loss

    pairs = []
    for value in (lambda x, t: own_loss(x, t, function, {}), over_positives(cross_entropy)):
        leaf = logits.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            loss_BA = value(leaf, targets_of(LABELS))
        pairs.append((loss_BA.detach(), *torch.autograd.grad(loss_BA.sum(), leaf)))
    torch.testing.assert_close(*pairs)
    assert pairs[0][0].dtype == torch.float32
    assert (pairs[0][0][LABELS == IGNORE] == 0).all()


def test_all_ignored_is_zero_with_zero_gradient() -> None:
    leaf = torch.randn(2, 4, 3).requires_grad_()
    loss = own_loss(leaf, targets_of(torch.full_like(LABELS, IGNORE)), poly, {"epsilon": 2.0})
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    assert not loss.any()
    assert not gradient.any()


def test_a_loss_of_a_checkpoint_is_not_run() -> None:
    loss = OwnLoss("my_losses:poly", None, {})
    with pytest.raises(ConfigError, match=r"a checkpoint runs no code; .*loss\.classification\.file=my_losses\.py"):
        loss(torch.zeros(2, 4, 3), targets_of(LABELS))


def test_check_loss_reports_what_a_good_loss_does() -> None:
    found = retinanet.check_loss(poly, options={"epsilon": 0.5})
    assert found.value > 0
    assert found.gradient_error < 1e-6
    assert found.bfloat16_error < 2.0
    assert found.notes == ()
    assert retinanet.check_loss(lambda x, y: bce(x, y).sum(dim=1), classes=1).notes == ()


def test_check_loss_notes_what_is_unusual() -> None:
    def detached(logits: Tensor, targets: Tensor) -> Tensor:
        return (targets - logits.sigmoid()).abs().detach() * bce(logits, targets)

    found = retinanet.check_loss(detached)
    assert found.gradient_error > 0.1
    assert "a part of it is detached" in found.notes[0]
    assert "is its sign right?" in retinanet.check_loss(lambda x, y: -bce(x, y)).notes[0]


def changes_its_input(logits: Tensor, targets: Tensor) -> Tensor:
    targets[targets == 0] = 0.1
    return bce(logits, targets)


def mean_of_positives(logits: Tensor, targets: Tensor) -> Tensor:
    positives = targets.sum()
    return bce(logits, targets) / positives


WRONG: dict[str, Callable[..., object]] = {
    "returns the shape () for logits (64, 3), not (N, K) or (N,)": lambda x, y: bce(x, y).mean(),
    "returns the shape (3,)": lambda x, y: bce(x, y).sum(dim=0),
    "returns a float, not a tensor": lambda x, y: 0.5,
    "has no gradient": lambda x, y: bce(x.detach(), y),
    "its gradient by the logits is zero everywhere": lambda x, y: bce(x, y) * 0,
    "raises TypeError": lambda x: x,
    "raises RuntimeError: The size of tensor": lambda x, y: x + torch.zeros(7, 9),
    "changes its arguments in place": changes_its_input,
    "bfloat16 logits: nan at a logit of": lambda x, y: (
        -y * x.sigmoid().log() - (1 - y) * (1 + 1e-5 - x.sigmoid()).log()
    ),
    "logits up to 80: nan at a logit of": lambda x, y: -y * F.logsigmoid(x) - (1 - y) * (-x.sigmoid()).log1p(),
    "its gradient is not finite: nan": lambda x, y: bce(x, y) + (0 * x.relu()).sqrt(),
    "no positive anchor": mean_of_positives,
    "all anchors ignored (N = 0): raises": lambda x, y: bce(x, y) + 0 * x.max(),
}


@pytest.mark.parametrize("message", list(WRONG))
def test_a_wrong_loss_is_refused_with_what_is_wrong(message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        retinanet.check_loss(WRONG[message])  # type: ignore[arg-type]
    assert "cannot be used as a class loss" in str(caught.value)
    assert message in str(caught.value)


def test_check_loss_takes_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "def half(logits, targets, *, scale: float = 0.5):\n    return scale * (logits - targets).square()\n"
    (tmp_path / "halves.py").write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    whole: Mapping[str, float] = {"scale": 1.0}
    values = [retinanet.check_loss("halves:half", options=options).value for options in ({}, whole)]
    assert math.isclose(2 * values[0], values[1])
    with pytest.raises(ConfigError, match="scales: unknown key; did you mean"):
        retinanet.check_loss("halves:half", options={"scales": 1.0})
    with pytest.raises(ConfigError, match="focal is a loss of this project"):
        retinanet.check_loss("focal")
