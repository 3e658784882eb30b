"""Feature pyramid P3 to P7 or P2 to P7 (arXiv 1612.03144; RetinaNet paper, section 4, "Feature Pyramid Network")."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn


class FinerLevel(nn.Module):
    """P2: the lateral convolution of C2 and the output convolution, as on P3 to P5."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.lateral = nn.Conv2d(in_channels, channels, 1)
        self.output = nn.Conv2d(channels, channels, 3, padding=1)
        _initialise(self)

    def forward(self, c2: Tensor, merged_p3: Tensor) -> Tensor:
        """C2 and P3 before its output convolution -> P2."""
        p2: Tensor = self.output(_merge(self.lateral(c2), merged_p3))
        return p2


class Fpn(nn.Module):
    """Lateral 1x1 and output 3x3 convolutions on C3 to C5; P6 and P7 by stride-2 convolutions."""

    def __init__(
        self, in_channels: tuple[int, ...], channels: int, p6_source: Literal["c5", "p5"], p7_relu: bool
    ) -> None:
        """in_channels: of C3, C4 and C5."""
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.output = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)
        self.p6_source = p6_source
        self.p7_relu = p7_relu
        self.p6 = nn.Conv2d(in_channels[-1] if p6_source == "c5" else channels, channels, 3, stride=2, padding=1)
        self.p7 = nn.Conv2d(channels, channels, 3, stride=2, padding=1)
        self.p2: FinerLevel | None = None
        _initialise(self)

    def add_p2(self, in_channels: int) -> None:
        """Add P2; in_channels: of C2. Its weights are drawn now, so that those of other parts can be drawn before."""
        self.p2 = FinerLevel(in_channels, self.p7.out_channels)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """[C3, C4, C5] -> [P3, P4, P5, P6, P7], each (B, channels, h, w) with its level's stride.

        With P2, [C2, C3, C4, C5] -> [P2, ..., P7].
        """
        merged = [lateral(c) for lateral, c in zip(self.lateral, features[-3:], strict=True)]
        for finer in (1, 0):
            merged[finer] = _merge(merged[finer], merged[finer + 1])
        p3, p4, p5 = (output(m) for output, m in zip(self.output, merged, strict=True))
        p6 = self._halved(self.p6, features[-1] if self.p6_source == "c5" else p5)
        levels = [p3, p4, p5, p6, self._halved(self.p7, F.relu(p6) if self.p7_relu else p6)]
        return levels if self.p2 is None else [self.p2(features[0], merged[0]), *levels]

    def _halved(self, convolution: nn.Module, level: Tensor) -> Tensor:
        """`convolution` (3x3, stride 2, padding 1) of `level`.

        On a CPU, torch 2.14 does not write its bfloat16 weight gradient if the input is one column wide; explicit
        padding computes the same sum with a gradient.
        """
        if self.training and level.shape[-1] == 1 and isinstance(convolution, nn.Conv2d):
            return F.conv2d(F.pad(level, (1, 1, 1, 1)), convolution.weight, convolution.bias, stride=2)
        halved: Tensor = convolution(level)
        return halved


def _merge(lateral: Tensor, coarse: Tensor) -> Tensor:
    """A level's lateral features plus the next coarser level, enlarged."""
    return lateral + F.interpolate(coarse, size=lateral.shape[-2:], mode="nearest")


def _initialise(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_uniform_(layer.weight, a=1)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
