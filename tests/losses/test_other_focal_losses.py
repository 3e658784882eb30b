"""The table of docs/losses.md: well-known FocalLoss modules, written here from their formulas in float64, and ours.

Each row of ROWS is a row of the table: what the other module computes, and our call that replaces it.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from places import PROJECT
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss as torchvision_focal

from retinanet.losses.functional import binary_focal_loss, sigmoid_focal_loss, softmax_focal_loss

N, C = 6, 4
LOGITS = torch.randn(N, C, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2
CLASSES = LOGITS.roll(1, dims=1).argmax(dim=1)
BINARY = LOGITS[:, :1]
TWO = LOGITS[:, :2]
LABELS_2 = (BINARY[:, 0] > 0).long()
HOT = F.one_hot(CLASSES, C).movedim(-1, 1).double()
MANY = (LOGITS.roll(2, dims=1) > 0.5).double()
WEIGHTS = [0.5, 1.0, 2.0, 4.0]


def of_class(values: Tensor, classes: Tensor) -> Tensor:
    return values.gather(1, classes[:, None]).squeeze(1)


def detached(logits: Tensor, classes: Tensor, alpha: list[float] | None, gamma: float) -> Tensor:
    """clcarwin: the mean over elements; the modulating factor is a constant for the gradient."""
    log_p = of_class(logits.log_softmax(1), classes)
    scale = (1 - log_p.exp().detach()) ** gamma
    return -(scale * log_p * (1.0 if alpha is None else logits.new_tensor(alpha)[classes])).mean()


def class_weighted(logits: Tensor, classes: Tensor, weights: list[float], gamma: float, ignored: int) -> Tensor:
    """AdeelH: weighted cross entropy times (1 - p)^gamma, averaged over the labels that are not ignored."""
    kept = classes != ignored
    rows, labels = logits.movedim(1, -1)[kept], classes[kept]
    p = rows.softmax(-1)[torch.arange(len(labels)), labels]
    return (logits.new_tensor(weights)[labels] * (1 - p) ** gamma * -p.log()).mean()


def one_hot_with_eps(logits: Tensor, classes: Tensor, alpha: float, gamma: float, eps: float) -> Tensor:
    """kornia to 0.6.8 and zhezh: eps is added to the probabilities and to the one-hot labels."""
    p = logits.softmax(1) + eps
    labels = F.one_hot(classes, logits.shape[1]).movedim(-1, 1) + 1e-6
    return (labels * -alpha * (1 - p) ** gamma * p.log()).sum(1).mean()


def over_classes(logits: Tensor, hot: Tensor, alpha: float, gamma: float, weights: list[float]) -> Tensor:
    """kornia and MONAI with softmax: 1 - alpha for class 0, alpha for others; the mean is over N C d1 ... numbers."""
    p = logits.softmax(1)
    factor = logits.new_tensor([1 - alpha, *[alpha] * (C - 1)]) * logits.new_tensor(weights)
    return (factor[:, None] * -hot * (1 - p) ** gamma * p.log()).mean()


def independent(logits: Tensor, hot: Tensor, alpha: float | None, gamma: float, weights: list[float]) -> Tensor:
    """MONAI without softmax, kornia's binary loss, and each class of segmentation_models: elementwise."""
    p = logits.sigmoid()
    up, down = (1.0, 1.0) if alpha is None else (alpha, 1 - alpha)
    each = -up * hot * (1 - p) ** gamma * p.log() - down * (1 - hot) * p**gamma * (1 - p).log()
    return logits.new_tensor(weights)[:, None] * each


def weighted_positives(logits: Tensor, hot: Tensor, alpha: float, gamma: float, weight: float) -> Tensor:
    """kornia's binary loss with pos_weight."""
    p = logits.sigmoid()
    return (
        -weight * alpha * hot * (1 - p) ** gamma * p.log() - (1 - alpha) * (1 - hot) * p**gamma * (1 - p).log()
    ).mean()


def of_bce(p: Tensor, labels: Tensor, alpha: float, gamma: float) -> Tensor:
    """alpha (1 - e^-BCE)^gamma BCE of probabilities: alpha is a factor of both labels."""
    bce = F.binary_cross_entropy(p, labels, reduction="none")
    return (alpha * (1 - (-bce).exp()) ** gamma * bce).mean()


class Row(NamedTuple):
    """One row of the table."""

    theirs: Callable[[Tensor], Tensor]
    ours: Callable[[Tensor], Tensor]
    inputs: Tensor
    gradient: bool = True
    """Whether the gradients agree too."""
    atol: float = 1e-12


ROWS = {
    "clcarwin `FocalLoss(gamma, alpha=None)`": Row(
        lambda x: detached(x, CLASSES, None, 2.0),
        lambda x: softmax_focal_loss(x, CLASSES, gamma=2.0),
        LOGITS,
        gradient=False,
    ),
    "clcarwin `FocalLoss(gamma, alpha=0.25)`": Row(
        lambda x: detached(x, LABELS_2, [0.25, 0.75], 2.0),
        lambda x: softmax_focal_loss(x, LABELS_2, gamma=2.0, alpha=[0.25, 1 - 0.25], reduction="mean_elements"),
        TWO,
        gradient=False,
    ),
    "clcarwin `FocalLoss(gamma, alpha=[...])`": Row(
        lambda x: detached(x, CLASSES, WEIGHTS, 2.0),
        lambda x: softmax_focal_loss(x, CLASSES, gamma=2.0, alpha=WEIGHTS, reduction="mean_elements"),
        LOGITS,
        gradient=False,
    ),
    "class-weighted softmax (AdeelH) `FocalLoss(alpha=weights, gamma)`": Row(
        lambda x: class_weighted(x, CLASSES, WEIGHTS, 2.0, 3),
        lambda x: softmax_focal_loss(x, CLASSES, gamma=2.0, alpha=WEIGHTS, ignore_index=3, reduction="mean_elements"),
        LOGITS,
    ),
    "one-hot with `eps` (zhezh, kornia to 0.6.8)": Row(
        lambda x: one_hot_with_eps(x, CLASSES, 0.25, 2.0, 1e-8),
        lambda x: softmax_focal_loss(x, CLASSES, gamma=2.0, alpha=[0.25] * C, reduction="mean_elements"),
        LOGITS,
        atol=1e-4,
    ),
    "kornia `focal_loss(alpha, gamma, weight)`": Row(
        lambda x: over_classes(x, HOT, 0.25, 2.0, WEIGHTS),
        lambda x: (
            softmax_focal_loss(
                x,
                CLASSES,
                gamma=2.0,
                alpha=[(1 - 0.25) * WEIGHTS[0], *(0.25 * w for w in WEIGHTS[1:])],
                reduction="mean_elements",
            )
            / C
        ),
        LOGITS,
    ),
    "kornia `binary_focal_loss_with_logits(alpha, gamma, pos_weight)`": Row(
        lambda x: weighted_positives(x, MANY, 0.25, 2.0, 2.0),
        lambda x: sigmoid_focal_loss(x, MANY, alpha=0.5 / (0.5 + 0.75), weight=0.5 + 0.75, gamma=2.0),
        LOGITS,
    ),
    "MONAI `FocalLoss(gamma, alpha, weight)`": Row(
        lambda x: independent(x, MANY, 0.25, 2.0, WEIGHTS).mean(),
        lambda x: sigmoid_focal_loss(x, MANY, alpha=0.25, weight=WEIGHTS, gamma=2.0),
        LOGITS,
    ),
    "MONAI `FocalLoss(use_softmax=True, ...)`": Row(
        lambda x: over_classes(x, HOT, 0.5, 2.0, WEIGHTS),
        lambda x: (
            softmax_focal_loss(x, CLASSES, gamma=2.0, alpha=[0.5 * w for w in WEIGHTS], reduction="mean_elements") / C
        ),
        LOGITS,
    ),
    'segmentation_models `FocalLoss("binary" or "multilabel", alpha, gamma)`': Row(
        lambda x: independent(x, MANY, 0.25, 2.0, [1.0] * C)[MANY.cumsum(1) != 2].mean(),
        lambda x: sigmoid_focal_loss(
            x, MANY.masked_fill(MANY.cumsum(1) == 2, 255), alpha=0.25, gamma=2.0, ignore_index=255
        ),
        LOGITS,
    ),
    'segmentation_models `FocalLoss("multiclass", alpha, gamma)`': Row(
        lambda x: independent(x, HOT, None, 2.0, [1.0] * C).mean(dim=(0, 2)).sum(),
        lambda x: C * sigmoid_focal_loss(x, F.one_hot(CLASSES, C).movedim(-1, 1), alpha=None, gamma=2.0),
        LOGITS,
    ),
    "torchvision `sigmoid_focal_loss(alpha, gamma)`": Row(
        lambda x: torchvision_focal(x, MANY, alpha=0.25, gamma=2.0, reduction="mean"),
        lambda x: sigmoid_focal_loss(x, MANY, alpha=0.25, gamma=2.0),
        LOGITS,
    ),
    "torchvision `sigmoid_focal_loss(alpha=-1)`": Row(
        lambda x: torchvision_focal(x, MANY, alpha=-1, gamma=2.0, reduction="sum"),
        lambda x: sigmoid_focal_loss(x, MANY, alpha=None, gamma=2.0, reduction="sum"),
        LOGITS,
    ),
    "BCE focal on probabilities, `alpha * (1 - pt)**gamma * BCE`": Row(
        lambda x: of_bce(x.sigmoid(), MANY, 0.25, 2.0),
        lambda x: binary_focal_loss(x.sigmoid(), MANY, alpha=None, weight=0.25, gamma=2.0),
        LOGITS,
    ),
}


@pytest.mark.parametrize("name", list(ROWS))
def test_ours_gives_what_the_other_module_gives(name: str) -> None:
    row = ROWS[name]
    pairs = []
    for loss in (row.theirs, row.ours):
        leaf = row.inputs.clone().requires_grad_()
        value = loss(leaf)
        pairs.append((value.detach(), torch.autograd.grad(value, leaf)[0]))
    (value, slope), (found, found_slope) = pairs
    torch.testing.assert_close(found, value, rtol=0, atol=row.atol)
    if row.gradient:
        torch.testing.assert_close(found_slope, slope, rtol=0, atol=row.atol)
    else:
        assert not torch.allclose(found_slope, slope, rtol=0.01)


def test_the_table_has_these_rows() -> None:
    text = (PROJECT / "docs" / "losses.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| ((?:[a-zA-Z]).*?) \| ", text.split("## Other FocalLoss modules")[1], re.M)[1:] == list(ROWS)
