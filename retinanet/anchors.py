"""Anchors of a cell, of a level and of a canvas's whole pyramid (paper section 4, "Anchors"). Pure functions.

Legend: C anchors of a cell, A anchors of a canvas, 4 = (x1, y1, x2, y2) in canvas pixels, float32 always.
"""

from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor

STRIDES = (8, 16, 32, 64, 128)
"""Pixels between neighbouring cells of P3 to P7."""

Rounding = Literal["none", "half_even", "truncate"]


class AnchorSpec(NamedTuple):
    """What defines the anchors of a network; the fields are those of config `model.anchors`."""

    sizes: tuple[float, ...]
    scales: tuple[float, ...]
    aspect_ratios: tuple[float, ...]
    offset: float
    rounding: Rounding

    @property
    def per_cell(self) -> int:
        return len(self.scales) * len(self.aspect_ratios)


class Pyramid(NamedTuple):
    """Anchors of one canvas."""

    boxes_A4: Tensor
    level_sizes: tuple[int, ...]
    """Anchors on each level, finest first; they sum to A."""


def cell_anchors(size: float, spec: AnchorSpec) -> Tensor:
    """Anchors (C, 4) of a cell around (0, 0), aspect ratio outermost, scale innermost.

    size: square root of the base area, pixels. An anchor of ratio r = h / w keeps the area (size * scale)^2.
    `half_even` rounds the four half extents half to even; `truncate` first cuts size * scale to whole pixels
    (both as torchvision does).
    """
    sides_S = torch.tensor([size * scale for scale in spec.scales], dtype=torch.float64)
    if spec.rounding == "truncate":
        sides_S = sides_S.trunc()
    root_R = torch.tensor(spec.aspect_ratios, dtype=torch.float64).sqrt()
    heights = (root_R[:, None] * sides_S[None, :]).flatten()
    widths = (sides_S[None, :] / root_R[:, None]).flatten()
    boxes_C4 = torch.stack([-widths, -heights, widths, heights], dim=1) / 2
    return (boxes_C4 if spec.rounding == "none" else boxes_C4.round()).float()


def level_anchors(cells: tuple[int, int], stride: int, cell_C4: Tensor, offset: float) -> Tensor:
    """Anchors (rows * columns * C, 4) of one level: rows outermost, then columns, then the cell's own order."""
    rows, columns = cells
    y = (torch.arange(rows, dtype=torch.float32) + offset) * stride
    x = (torch.arange(columns, dtype=torch.float32) + offset) * stride
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    centres = torch.stack([grid_x, grid_y, grid_x, grid_y], dim=-1).reshape(-1, 1, 4)
    return (centres + cell_C4[None]).reshape(-1, 4)


@lru_cache(maxsize=64)
def pyramid_anchors(canvas: tuple[int, int], spec: AnchorSpec, device: torch.device) -> Pyramid:
    """All anchors of a (height, width) canvas on `device`; remembered, so callers must not write into them.

    A level of stride s has ceil(height / s) x ceil(width / s) cells, as padded stride-2 convolutions give.
    """
    height, width = canvas
    levels = [
        level_anchors((-(-height // stride), -(-width // stride)), stride, cell_anchors(size, spec), spec.offset)
        for stride, size in zip(STRIDES, spec.sizes, strict=True)
    ]
    return Pyramid(torch.cat(levels).to(device), tuple(len(level) for level in levels))
