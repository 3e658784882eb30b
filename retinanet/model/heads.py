"""The class and box subnets: the same small network on every pyramid level (paper section 4).

Legend: B images, A anchors of all levels, O outputs per anchor.
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
        """All convolutions are initialised Gaussian, sigma 0.01 (paper section 4.1); no bias before a GroupNorm.

        biases: initial bias of the last convolution for each output of an anchor; their number is the number of
        outputs. shared_outputs: number of the first outputs whose initial weights do not depend on the others.
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
                _initialise(layer)
        # Created and drawn last, the shared outputs before the others: heads that differ only in their outputs start
        # with the same tower and the same weights of the shared ones.
        self.outputs = len(biases)
        width = channels if depth else in_channels
        self.predict = nn.Conv2d(width, anchors_per_cell * shared_outputs, 3, padding=1)
        _initialise(self.predict)
        if self.outputs > shared_outputs:
            shared_AO = self.predict.weight.detach().unflatten(0, (anchors_per_cell, shared_outputs))
            self.predict = nn.Conv2d(width, anchors_per_cell * self.outputs, 3, padding=1)
            _initialise(self.predict)
            self.predict.weight.detach().unflatten(0, (anchors_per_cell, self.outputs))[:, :shared_outputs] = shared_AO
        if self.predict.bias is not None:
            self.predict.bias.detach().copy_(torch.tensor(biases).repeat(anchors_per_cell))

    def forward(self, levels: list[Tensor]) -> Tensor:
        """[(B, in_channels, h, w)] of every level -> (B, A, outputs), in the order of `anchors.pyramid_anchors`."""
        return torch.cat([self._level(level) for level in levels], dim=1)

    def _level(self, level: Tensor) -> Tensor:
        maps: Tensor = self.predict(self.tower(level))
        return maps.permute(0, 2, 3, 1).reshape(level.shape[0], -1, self.outputs)


def _initialise(layer: nn.Conv2d) -> None:
    nn.init.normal_(layer.weight, std=0.01)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
