"""The library's focal losses as modules.

Weights are float32 buffers: they move with the module, are saved in its state_dict (no entry if there are none), are
not parameters, and stay float32 when the module is cast, because the losses are computed in float32.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from retinanet.losses.arguments import Reduction, Weights, common_errors, raise_errors
from retinanet.losses.functional import sigmoid_focal_loss, softmax_focal_loss


class WeightedLoss(nn.Module):
    """A module whose buffers keep their type when it is cast by half(), bfloat16(), double() or to(dtype)."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "WeightedLoss":
        before = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in self.named_buffers(recurse=False):
            if buffer.dtype != before[name].dtype:
                self.register_buffer(name, before[name].to(buffer.device))
        return self


class FocalLoss(WeightedLoss):
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


class SigmoidFocalLoss(WeightedLoss):
    """Module of `sigmoid_focal_loss`, which documents the options. alpha and weight: None or float32 buffers."""

    alpha: Tensor | None
    weight: Tensor | None

    def __init__(
        self,
        alpha: Weights | None = 0.25,
        gamma: float = 2.0,
        reduction: Reduction = "mean",
        weight: Weights | None = None,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        raise_errors("SigmoidFocalLoss", common_errors(gamma, reduction))
        self.gamma = gamma
        self.reduction: Reduction = reduction
        self.ignore_index = ignore_index
        self.register_buffer("alpha", _buffer(alpha))
        self.register_buffer("weight", _buffer(weight))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Logits and targets in 0..1, or ignore_index, of one shape -> loss, float32."""
        return sigmoid_focal_loss(
            logits,
            target,
            alpha=self.alpha,
            gamma=self.gamma,
            reduction=self.reduction,
            weight=self.weight,
            ignore_index=self.ignore_index,
        )

    def extra_repr(self) -> str:
        """The options, for repr()."""
        alpha, weight = (None if values is None else values.tolist() for values in (self.alpha, self.weight))
        more = "" if weight is None else f", weight={weight}"
        more += "" if self.ignore_index is None else f", ignore_index={self.ignore_index}"
        return f"alpha={alpha}, gamma={self.gamma:g}, reduction={self.reduction}{more}"


def _buffer(weights: Weights | None) -> Tensor | None:
    """A float32 copy, so that later changes of the caller's tensor have no effect."""
    return None if weights is None else torch.as_tensor(weights, dtype=torch.float32).detach().clone()
