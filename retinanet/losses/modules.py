"""The library's focal losses as modules.

alpha is a buffer: it moves with the module, is saved in its state_dict as `alpha` (no entry if alpha is None) and is
not a parameter. Module.half() and .bfloat16() round it like every buffer.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from retinanet.losses.functional import (
    Reduction,
    Weights,
    common_errors,
    raise_errors,
    sigmoid_focal_loss,
    softmax_focal_loss,
)


class FocalLoss(nn.Module):
    """Module of `softmax_focal_loss`, which documents the options. alpha: None or a float32 buffer.

    Whether the number of weights in alpha fits the logits is checked in `forward`.
    """

    alpha: Tensor | None

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: Weights | None = None,
        reduction: Reduction = "mean",
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        background: int = 0,
    ) -> None:
        super().__init__()
        raise_errors("FocalLoss", common_errors(gamma, reduction))
        self.gamma = gamma
        self.reduction: Reduction = reduction
        self.ignore_index = ignore_index
        self.label_smoothing = label_smoothing
        self.background = background
        self.register_buffer("alpha", _buffer(alpha))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits (N, C) or (N, C, d1, ...) and class indices (N,) or (N, d1, ...) -> loss, float32."""
        return softmax_focal_loss(
            logits,
            target,
            gamma=self.gamma,
            alpha=self.alpha,
            reduction=self.reduction,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            background=self.background,
        )

    def extra_repr(self) -> str:
        """The options, for repr()."""
        alpha = None if self.alpha is None else self.alpha.tolist()
        return (
            f"gamma={self.gamma:g}, alpha={alpha}, reduction={self.reduction}, ignore_index={self.ignore_index}, "
            f"label_smoothing={self.label_smoothing:g}, background={self.background}"
        )


class SigmoidFocalLoss(nn.Module):
    """Module of `sigmoid_focal_loss`, which documents the options. alpha: None or a () buffer."""

    alpha: Tensor | None

    def __init__(self, alpha: float | None = 0.25, gamma: float = 2.0, reduction: Reduction = "mean") -> None:
        super().__init__()
        raise_errors("SigmoidFocalLoss", common_errors(gamma, reduction))
        self.gamma = gamma
        self.reduction: Reduction = reduction
        self.register_buffer("alpha", _buffer(alpha))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits and targets in 0..1 of one shape -> loss, float32."""
        return sigmoid_focal_loss(logits, target, alpha=self.alpha, gamma=self.gamma, reduction=self.reduction)

    def extra_repr(self) -> str:
        """The options, for repr()."""
        alpha = None if self.alpha is None else self.alpha.tolist()
        return f"alpha={alpha}, gamma={self.gamma:g}, reduction={self.reduction}"


def _buffer(alpha: float | Sequence[float] | Tensor | None) -> Tensor | None:
    """A float32 copy of alpha, so that later changes of the caller's tensor have no effect."""
    return None if alpha is None else torch.as_tensor(alpha, dtype=torch.float32).detach().clone()
