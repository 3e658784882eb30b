"""The class and box subnets: the same small network on every pyramid level (paper section 4).

Legend: B images, A anchors of all levels, O outputs an anchor.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from retinanet.model.backbone import group_norm


class Head(nn.Module):
    """`depth` 3x3 convolutions with ReLU, then one 3x3 convolution to anchors_per_cell * outputs channels."""

    def __init__(
        self,
        in_channels: int,
        channels: int,
        depth: int,
        norm: Literal["none", "gn"],
        anchors_per_cell: int,
        biases: list[float],
        shared_outputs: int,
    ) -> None:
        """All convolutions start Gaussian, sigma 0.01 (paper section 4.1); those before a GroupNorm have no bias.

        biases: start of the last convolution's bias for each output of an anchor; their number is that of the
        outputs. shared_outputs: so many of them, the first, start with weights that do not depend on the others.
        """
        super().__init__()
        layers: list[nn.Module] = []
        for index in range(depth):
            layers.append(
                nn.Conv2d(in_channels if index == 0 else channels, channels, 3, padding=1, bias=norm == "none")
            )
            if norm == "gn":
                layers.append(group_norm(channels))
            layers.append(nn.ReLU(inplace=True))
        self.tower = nn.Sequential(*layers)
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                _start(layer)
        # Made and drawn last, the shared outputs before the others: heads that differ in outputs alone start with the
        # same tower and the same weights of the shared ones.
        self.outputs = len(biases)
        width = channels if depth else in_channels
        self.predict = nn.Conv2d(width, anchors_per_cell * shared_outputs, 3, padding=1)
        _start(self.predict)
        if self.outputs > shared_outputs:
            shared_AO = self.predict.weight.detach().unflatten(0, (anchors_per_cell, shared_outputs))
            self.predict = nn.Conv2d(width, anchors_per_cell * self.outputs, 3, padding=1)
            _start(self.predict)
            self.predict.weight.detach().unflatten(0, (anchors_per_cell, self.outputs))[:, :shared_outputs] = shared_AO
        if self.predict.bias is not None:
            self.predict.bias.detach().copy_(torch.tensor(biases).repeat(anchors_per_cell))

    def forward(self, levels: list[Tensor]) -> Tensor:
        """[(B, in_channels, h, w)] of every level -> (B, A, outputs), ordered as `anchors.pyramid_anchors`."""
        return torch.cat([self._level(level) for level in levels], dim=1)

    def _level(self, level: Tensor) -> Tensor:
        return self.predict(self.tower(level)).permute(0, 2, 3, 1).reshape(level.shape[0], -1, self.outputs)


def _start(layer: nn.Conv2d) -> None:
    nn.init.normal_(layer.weight, std=0.01)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
