"""Batch norms with fixed statistics, folded into the preceding convolutions.

conv(x, W) * scale + shift = conv(x, W * scale) + shift, which saves the norm's own pass over the activations and, under
autocast, its conversion to float32.
"""

import copy
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import fuse_conv_bn_eval
from torchvision.ops import FrozenBatchNorm2d

Convolution = TypeVar("Convolution", bound=nn.Conv2d)


class FrozenNorm(FrozenBatchNorm2d):  # type: ignore[misc] # torchvision has no types
    """torchvision's frozen batch norm; the identity if the preceding `FoldedConv` does its work."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.folded = False

    def forward(self, x: Tensor) -> Tensor:
        """(B, channels, H, W) -> the same shape."""
        return x if self.folded else super().forward(x)

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """(channels,) each: the norm is x * scale + shift."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale


class FoldedConv(nn.Conv2d):
    """A convolution that includes the frozen norm that follows it; its own weight is trainable."""

    norm: tuple[FrozenNorm]
    """In a tuple, so that it is not registered as a submodule here and state dicts keep their names."""
    kept: tuple[list[Tensor], list[int], tuple[Tensor, Tensor]] | None = None
    """Buffers of the norm, their versions, and the scale and shift that were computed from them."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) -> convolution and norm."""
        scale, shift = self.scale_and_shift()
        weight = self.weight * scale[:, None, None, None]
        return F.conv2d(x, weight, shift, self.stride, self.padding, self.dilation, self.groups)

    def __getstate__(self) -> dict[str, Any]:
        # Versions of a copy's buffers start anew.
        return {**self.__dict__, "kept": None}

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Those of the norm, computed anew only after its buffers have changed."""
        if torch.compiler.is_compiling():
            return self.norm[0].scale_and_shift()
        buffers = list(self.norm[0].buffers())
        versions = [buffer._version for buffer in buffers]
        if self.kept is None or versions != self.kept[1] or any(a is not b for a, b in zip(buffers, self.kept[0])):
            self.kept = buffers, versions, self.norm[0].scale_and_shift()
        return self.kept[2]


def fold_frozen_norms(network: nn.Module) -> None:
    """Fold every FrozenNorm into the convolution before it, in place; parameters and their names do not change."""
    for parent, name, convolution, norm in _pairs(network):
        if isinstance(norm, FrozenNorm):
            folded = _like(convolution, FoldedConv)
            folded.norm = (norm,)
            norm.folded = True
            parent.register_module(name, folded)


def inference_copy(network: nn.Module, precision: torch.dtype) -> nn.Module:
    """A copy in evaluation mode with all batch norms, frozen or not, folded into the convolutions before them.

    Its convolutions have the type `precision`, to which autocast would convert them at every call. The outputs are the
    same up to rounding; the state dict has other names.
    """
    network = copy.deepcopy(network).eval().requires_grad_(False)
    for parent, name, convolution, norm in _pairs(network):
        if isinstance(norm, FrozenBatchNorm2d | _BatchNorm):
            plain = _like(convolution, nn.Conv2d)
            parent.register_module(name, fuse_conv_bn_eval(plain, norm))
            parent.register_module(_name_of(parent, norm), nn.Identity())
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.to(precision)
    return network


def _pairs(network: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Conv2d, nn.Module]]:
    """(parent, name, convolution, following layer) for every convolution without bias that is followed by a layer.

    torchvision's ResNets and MobileNets register their layers in the order in which they run.
    """
    for parent in list(network.modules()):
        children = list(parent.named_children())
        for (name, layer), (_, following) in pairwise(children):
            if isinstance(layer, nn.Conv2d) and layer.bias is None:
                yield parent, name, layer, following


def _like(convolution: nn.Conv2d, kind: type[Convolution]) -> Convolution:
    """A convolution of another class with the same weight tensor."""
    made = kind(
        convolution.in_channels,
        convolution.out_channels,
        convolution.kernel_size,  # type: ignore[arg-type]
        convolution.stride,  # type: ignore[arg-type]
        convolution.padding,  # type: ignore[arg-type]
        convolution.dilation,  # type: ignore[arg-type]
        convolution.groups,
        bias=False,
        device="meta",
    )
    made.weight = convolution.weight
    return made.train(convolution.training)


def _name_of(parent: nn.Module, child: nn.Module) -> str:
    return next(name for name, module in parent.named_children() if module is child)
