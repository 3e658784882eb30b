"""A class loss of the user's own: a function of logits and targets, called on the anchors that count.

Legend: B images, A anchors, K classes; N anchors of all images that are not ignored.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from retinanet.errors import ConfigError
from retinanet.structures import IGNORE, ClassTargets

OwnFunction = Callable[..., Tensor]
"""(logits_NK, targets_NK, options by keyword) -> loss_NK or loss_N; targets: 1 at the class of a positive, else 0."""


def own_loss(logits_BAK: Tensor, targets: ClassTargets, function: OwnFunction, options: Mapping[str, Any]) -> Tensor:
    """The function's loss of each anchor, summed over its classes and divided by the normaliser: (B, A) float32.

    The function is called once with all anchors that are not ignored, in float32 (float64 stays).
    """
    labels_BA = targets.labels_BA
    kept_BA = labels_BA != IGNORE
    kept_NK = logits_BAK[kept_BA]
    kept_NK = kept_NK if kept_NK.dtype == torch.float64 else kept_NK.float()
    with torch.autocast(kept_NK.device.type, enabled=False):
        loss = function(kept_NK, one_hot_targets(labels_BA[kept_BA], kept_NK), **options)
    loss_N = loss.float().sum(dim=1) if loss.ndim > 1 else loss.float()
    loss_BA = torch.zeros(labels_BA.shape, device=loss_N.device).masked_scatter(kept_BA, loss_N)
    return loss_BA / targets.normaliser_B[:, None]


def one_hot_targets(labels_N: Tensor, logits_NK: Tensor) -> Tensor:
    """(N, K) of the logits' type: 1 at the label's class, 0 elsewhere and for BACKGROUND."""
    return (labels_N[:, None] == torch.arange(logits_NK.shape[1], device=labels_N.device)).to(logits_NK.dtype)


class OwnLoss:
    """The function that a config names, loaded when it is first needed, by a training."""

    def __init__(self, kind: str, load: Callable[[], OwnFunction] | None, options: Mapping[str, Any]) -> None:
        """load: runs the file of the function and returns it; None for the config of a checkpoint."""
        self.kind = kind
        self.load = load
        self.options = options

    @cached_property
    def function(self) -> OwnFunction:
        """The loaded function. Raises ConfigError if the config is that of a checkpoint, or the file cannot be run."""
        if self.load is None:
            raise ConfigError(
                f"{self.kind}: its file is not known here, because a checkpoint runs no code; to compute this loss, "
                f"name its file: loss.classification.file={self.kind.partition(':')[0].replace('.', '/')}.py"
            )
        return self.load()

    def __call__(self, logits_BAK: Tensor, targets: ClassTargets) -> Tensor:
        """`own_loss` of the function."""
        return own_loss(logits_BAK, targets, self.function, self.options)
