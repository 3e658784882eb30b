"""Whether a dense loss is computed by this project's own kernel, with its divisor folded in.

Legend: B images, A anchors, K classes.
"""

import warnings
from collections.abc import Callable

import torch
from torch import Tensor

from retinanet.compile import can_compile

DividedLoss = Callable[[Tensor, Tensor, Tensor], Tensor | None]
"""(logits (B, A, K), labels (B, A), normaliser (B,)) -> loss (B, A) divided by the normaliser; None: not computed."""


class KernelFocal:
    """The sigmoid focal loss by `focal_kernel` where there is a GPU for it; elsewhere nothing is computed."""

    def __init__(self, gamma: float, positive_weight: float, negative_weight: float) -> None:
        self.rule = (gamma, positive_weight, negative_weight)
        self.refused = False

    def __call__(self, logits_BAK: Tensor, labels_BA: Tensor, normaliser_B: Tensor) -> Tensor | None:
        """See `DividedLoss`."""
        if self.refused or not runs_kernels(logits_BAK):
            return None
        try:
            from retinanet.losses.focal_kernel import DividedFocal

            loss_BA: Tensor = DividedFocal.apply(logits_BAK, labels_BA, normaliser_B, *self.rule)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # Triton and the GPU's driver raise many kinds
            self.refused = True
            reason = str(error).partition("\n")[0]
            warnings.warn(f"the class loss runs without its own kernel: slower, same results: {reason}", stacklevel=2)
            return None
        return loss_BA


def runs_kernels(logits_BAK: Tensor) -> bool:
    """Whether Triton can be expected to run kernels on these logits: on a GPU by NVIDIA, in at most float32."""
    is_cuda = logits_BAK.device.type == "cuda" and torch.version.hip is None and torch.cuda.is_available()
    return is_cuda and logits_BAK.dtype != torch.float64 and can_compile("cuda")
