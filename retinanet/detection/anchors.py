"""Anchors of a cell, of a pyramid level and of a whole canvas (paper section 4, "Anchors"). Pure functions.

Legend: C anchors of a cell, A anchors of a canvas, 4 = (x1, y1, x2, y2) in canvas pixels; boxes are always float32.
"""

from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor

STRIDES = {"P2": 4, "P3": 8, "P4": 16, "P5": 32, "P6": 64, "P7": 128}
"""Pixels between neighbouring cells of each level; a pyramid has the last five or all."""

Rounding = Literal["none", "half_even", "truncate", "stride_box"]
Spacing = Literal["stride", "canvas_over_cells"]


class AnchorSpec(NamedTuple):
    """What defines the anchors of a network; the fields are those of config `model.anchors`."""

    sizes: tuple[float, ...]
    """One for each level, finest first."""
    scales: tuple[float, ...]
    aspect_ratios: tuple[float, ...]
    offset: float
    rounding: Rounding
    spacing: Spacing

    @property
    def per_cell(self) -> int:
        """Number of anchors at each cell."""
        return len(self.scales) * len(self.aspect_ratios)

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of the levels, finest first: P3 to P7, or P2 to P7."""
        return tuple(STRIDES)[-len(self.sizes) :]

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels between neighbouring cells of each level."""
        return tuple(STRIDES.values())[-len(self.sizes) :]


class Pyramid(NamedTuple):
    """Anchors of one canvas."""

    boxes_A4: Tensor
    level_sizes: tuple[int, ...]
    """Anchors on each level, finest first; they sum to A."""


def cell_anchors(size: float, stride: int, spec: AnchorSpec) -> Tensor:
    """Anchors (C, 4) of a cell around (0, 0), aspect ratio outermost, scale innermost.

    size: square root of the base area, pixels; stride: the level's. An anchor of ratio r = h / w keeps the area
    (size * scale)^2. `half_even` rounds the four half extents half to even; `truncate` first cuts size * scale to
    whole pixels (both as in torchvision). `stride_box` rounds the sides of a box of area stride^2 to whole pixels, the
    height as r times the rounded width, and then enlarges it by size * scale / stride (Detectron's generate_anchors,
    whose inclusive right and bottom corners are one pixel less than the exclusive ones here).
    """
    sides_S = torch.tensor([size * scale for scale in spec.scales], dtype=torch.float64)
    if spec.rounding == "truncate":
        sides_S = sides_S.trunc()
    ratio_R1 = torch.tensor(spec.aspect_ratios, dtype=torch.float64)[:, None]
    if spec.rounding == "stride_box":
        width_R1 = (stride**2 / ratio_R1).sqrt().round()
        widths, heights = (side_R1 * (sides_S / stride) for side_R1 in (width_R1, (width_R1 * ratio_R1).round()))
    else:
        widths, heights = sides_S / ratio_R1.sqrt(), ratio_R1.sqrt() * sides_S
    half_C2 = torch.stack([widths.flatten(), heights.flatten()], dim=1) / 2
    if spec.rounding in ("half_even", "truncate"):
        half_C2 = half_C2.round()
    return torch.cat([-half_C2, half_C2], dim=1).float()


def level_anchors(cells: tuple[int, int], spacing: tuple[int, int], cell_C4: Tensor, offset: float) -> Tensor:
    """Anchors (rows * columns * C, 4) of one level: rows outermost, then columns, then the cell's own order.

    spacing: pixels between rows and between columns; offset: position of a centre within its cell, in spacings.
    """
    y, x = (
        (torch.arange(count, dtype=torch.float32) + offset) * step for count, step in zip(cells, spacing, strict=True)
    )
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    centres = torch.stack([grid_x, grid_y, grid_x, grid_y], dim=-1).reshape(-1, 1, 4)
    return (centres + cell_C4[None]).reshape(-1, 4)


@lru_cache(maxsize=256)
def pyramid_anchors(canvas: tuple[int, int], spec: AnchorSpec, device: torch.device) -> Pyramid:
    """`canvas_anchors` on `device`, cached: callers must not modify the result."""
    pyramid = canvas_anchors(canvas, spec)
    return pyramid._replace(boxes_A4=pyramid.boxes_A4.to(device))


def canvas_anchors(canvas: tuple[int, int], spec: AnchorSpec) -> Pyramid:
    """All anchors of a (height, width) canvas; the sizes may be symbolic in a graph that is being exported.

    A level of stride s has ceil(height / s) x ceil(width / s) cells, as padded stride-2 convolutions produce.
    `canvas_over_cells` places them floor(canvas / cells) pixels apart, which is less than s if the canvas is not a
    multiple of s: 120 instead of 128 for the 9 columns of P7 on a canvas 1088 wide (torchvision's AnchorGenerator).
    """
    height, width = canvas
    levels = []
    for stride, size in zip(spec.strides, spec.sizes, strict=True):
        rows, columns = (height - 1) // stride + 1, (width - 1) // stride + 1
        spacing = (stride, stride) if spec.spacing == "stride" else (height // rows, width // columns)
        levels.append(level_anchors((rows, columns), spacing, cell_anchors(size, stride, spec), spec.offset))
    return Pyramid(torch.cat(levels), tuple(level.shape[0] for level in levels))
