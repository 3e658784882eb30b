"""Batch norms with fixed statistics, folded into the convolutions before them.

conv(x, W) * scale + shift = conv(x, W * scale) + shift, so the norm's own pass over the activations, and under autocast
its detour through float32, need not be.
"""

import copy
from collections.abc import Iterator
from itertools import pairwise
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import fuse_conv_bn_eval
from torchvision.ops import FrozenBatchNorm2d

Convolution = TypeVar("Convolution", bound=nn.Conv2d)


class FrozenNorm(FrozenBatchNorm2d):
    """torchvision's frozen batch norm, which leaves its work to the `FoldedConv` before it if there is one."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.folded = False

    def forward(self, x: Tensor) -> Tensor:
        return x if self.folded else super().forward(x)

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """(channels,) each: the norm is x * scale + shift."""
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale


class FoldedConv(nn.Conv2d):
    """A convolution that also does the work of the frozen norm behind it; its own weight trains."""

    norm: tuple[FrozenNorm]
    """In a tuple, so that it stays the child of its own place alone and state dicts keep their names."""

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = self.norm[0].scale_and_shift()
        weight = self.weight * scale[:, None, None, None]
        return F.conv2d(x, weight, shift, self.stride, self.padding, self.dilation, self.groups)


def fold_frozen_norms(network: nn.Module) -> None:
    """Have every convolution do the work of the FrozenNorm behind it, in place; parameters and names stay."""
    for parent, name, convolution, norm in _pairs(network):
        if isinstance(norm, FrozenNorm):
            folded = _like(convolution, FoldedConv)
            folded.norm = (norm,)
            norm.folded = True
            parent.register_module(name, folded)


def inference_copy(network: nn.Module, precision: torch.dtype) -> nn.Module:
    """A copy in evaluation mode whose convolutions hold the batch norms behind them, frozen or not.

    Its convolutions are of type `precision`, as autocast would make them at every call. Same outputs to rounding; its
    state dict has other names.
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
    """(parent, name, convolution without bias, what follows it) wherever there is one.

    torchvision's ResNets and MobileNets register their layers in the order in which they run.
    """
    for parent in list(network.modules()):
        children = list(parent.named_children())
        for (name, layer), (_, following) in pairwise(children):
            if isinstance(layer, nn.Conv2d) and layer.bias is None:
                yield parent, name, layer, following


def _like(convolution: nn.Conv2d, kind: type[Convolution]) -> Convolution:
    """A convolution of another kind with the very same weight."""
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
