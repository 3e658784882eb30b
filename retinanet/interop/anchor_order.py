"""The channels of a head's last convolution in another order of a cell's anchors. Pure.

Legend: C anchors of a cell, O outputs of an anchor; channel c * O + o belongs to anchor c in every project.
"""

import torch
from torch import Tensor


def ours_from_scale_major(ratios: int, scales: int) -> list[int]:
    """Where our anchors stand in a cell that counts scales outermost and ratios innermost (detectron2).

    Ours count aspect ratios outermost and scales innermost, as torchvision and mmdetection do.
    """
    return torch.arange(scales * ratios).view(scales, ratios).T.flatten().tolist()


def reordered(channels: Tensor, order: list[int]) -> Tensor:
    """(C * O, ...) weights or biases with anchor c taken from anchor order[c]."""
    return channels.unflatten(0, (len(order), -1))[order].flatten(0, 1)


def kept_outputs(channels: Tensor, anchors: int, rows: list[int]) -> Tensor:
    """(C * O, ...) weights or biases with only the outputs `rows` of every anchor, in that order."""
    return channels.unflatten(0, (anchors, -1))[:, rows].flatten(0, 1)
