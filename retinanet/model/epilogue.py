"""Convolution, bias, residual sum and ReLU in one kernel of cuDNN, for inference on NVIDIA GPUs.

Without it each of the last three reads and writes all activations once more. For networks whose norms are folded into
their convolutions (`folding.inference_copy`); parameters are those of the given network.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck


def can_fuse(device: torch.device, precision: torch.dtype, *, deterministic: bool) -> bool:
    """Whether cuDNN's fused kernels may be used: not where results must be equal to the bit, nor in float32.

    torch lets these kernels be non-deterministic whatever its settings are, and cuDNN has none for exact float32.
    """
    half = precision in (torch.bfloat16, torch.float16)
    return device.type == "cuda" and torch.backends.cudnn.is_available() and half and not deterministic


class ConvRelu(nn.Module):
    """A convolution, the sum with another map, if one is given, and a ReLU."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.convolution = convolution
        self.fused = True
        """Whether cuDNN has a kernel for it, as far as is known."""

    def forward(self, x: Tensor, added: Tensor | None = None) -> Tensor:
        """(B, in_channels, H, W) -> relu(convolution(x) + added)."""
        if self.fused and not torch.compiler.is_compiling():  # the compiler has kernels of its own
            try:
                return self.fused_forward(x.to(self.convolution.weight.dtype), added)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:  # cuDNN finds no kernel
                self.fused = False
        out = self.convolution(x)
        if added is not None:
            out += added
        return F.relu_(out)

    def fused_forward(self, x: Tensor, added: Tensor | None) -> Tensor:
        """`forward` in one kernel; RuntimeError where there is none."""
        c, operators = self.convolution, torch.ops.aten
        shape = c.stride, c.padding, c.dilation, c.groups
        out: Tensor
        if added is None:
            out = operators.cudnn_convolution_relu(x, c.weight, c.bias, *shape)
        else:
            out = operators.cudnn_convolution_add_relu(x, c.weight, added, 1.0, c.bias, *shape)
        return out


class ResidualBlock(nn.Module):
    """torchvision's BasicBlock or Bottleneck without norms."""

    def __init__(self, block: BasicBlock | Bottleneck) -> None:
        super().__init__()
        convolutions = [block.conv1, block.conv2, *([block.conv3] if isinstance(block, Bottleneck) else [])]
        self.layers = nn.ModuleList(map(ConvRelu, convolutions))
        self.downsample = block.downsample

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the block's output."""
        out = x
        for layer in self.layers[:-1]:
            out = layer(out)
        identity = x if self.downsample is None else self.downsample(x)
        result: Tensor = self.layers[-1](out, identity)
        return result


def fuse_relus(network: nn.Module) -> None:
    """Put a ConvRelu, in place, wherever a ReLU follows a convolution or a residual sum.

    The network must be one of `folding.inference_copy`. In each Sequential, identities between the two are what is left
    of norms; a norm that could not be folded (GroupNorm) keeps the two apart.
    """
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BasicBlock | Bottleneck) and not _has_norms(child):
                parent.register_module(name, ResidualBlock(child))
        if isinstance(parent, nn.Sequential):
            named = [(name, layer) for name, layer in parent.named_children() if not isinstance(layer, nn.Identity)]
            for (name, layer), (next_name, following) in pairwise(named):
                if isinstance(layer, nn.Conv2d) and type(following) is nn.ReLU:
                    parent.register_module(name, ConvRelu(layer))
                    parent.register_module(next_name, nn.Identity())


def _has_norms(block: nn.Module) -> bool:
    return not all(isinstance(layer, nn.Conv2d | nn.ReLU | nn.Identity | nn.Sequential) for layer in block.children())
