"""State dicts with the names of detectron2 and mmdetection, written by hand, with random content.

Nothing here comes from retinanet.interop: its maps are tested against these names.
"""

import torch
from torch import Tensor

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


class Writer:
    """Collects random tensors by name."""

    def __init__(self, seed: int) -> None:
        self.random = torch.Generator().manual_seed(seed)
        self.state: dict[str, Tensor] = {}

    def conv(self, name: str, out: int, inside: int, size: int, bias: bool) -> None:
        fan = inside * size * size
        self.state[f"{name}.weight"] = torch.randn(out, inside, size, size, generator=self.random) / fan**0.5
        if bias:
            self.state[f"{name}.bias"] = torch.randn(out, generator=self.random) * 0.1

    def norm(self, name: str, channels: int, statistics: bool = True, counted: bool = False) -> None:
        self.state[f"{name}.weight"] = torch.rand(channels, generator=self.random) * 0.5 + 0.5
        self.state[f"{name}.bias"] = torch.randn(channels, generator=self.random) * 0.1
        if statistics:
            self.state[f"{name}.running_mean"] = torch.randn(channels, generator=self.random) * 0.1
            self.state[f"{name}.running_var"] = torch.rand(channels, generator=self.random) + 0.5
        if counted:
            self.state[f"{name}.num_batches_tracked"] = torch.tensor(90_000)


def bottlenecks(depth: int, groups_width: int = 64) -> list[tuple[int, int, int, int, int]]:
    """(stage 1..4, block, channels in, of the middle, out) of every block."""
    found, inside = [], 64
    for stage, count in enumerate(BLOCKS[depth], start=1):
        out = 64 * 2 ** (stage - 1) * (4 if depth >= 50 else 1)
        for block in range(count):
            found.append((stage, block, inside, groups_width * 2 ** (stage - 1), out))
            inside = out
    return found


def detectron2(depth: int = 50, classes: int = 80, anchors: int = 9, channels: int = 256, seed: int = 0) -> Writer:
    """detectron2's RetinaNet with FrozenBN, without its tensors that describe pixels and anchors."""
    w = Writer(seed)
    w.conv("backbone.bottom_up.stem.conv1", 64, 3, 7, bias=False)
    w.norm("backbone.bottom_up.stem.conv1.norm", 64)
    for stage, block, inside, middle, out in bottlenecks(depth):
        name = f"backbone.bottom_up.res{stage + 1}.{block}"
        sizes = [("conv1", middle, inside, 1), ("conv2", middle, middle, 3), ("conv3", out, middle, 1)]
        for conv, o, i, size in [*([("shortcut", out, inside, 1)] if block == 0 else []), *sizes]:
            w.conv(f"{name}.{conv}", o, i, size, bias=False)
            w.norm(f"{name}.{conv}.norm", o)
    for level, inside in ((3, 512), (4, 1024), (5, 2048)):
        w.conv(f"backbone.fpn_lateral{level}", channels, inside, 1, bias=True)
        w.conv(f"backbone.fpn_output{level}", channels, channels, 3, bias=True)
    w.conv("backbone.top_block.p6", channels, 2048, 3, bias=True)
    w.conv("backbone.top_block.p7", channels, channels, 3, bias=True)
    for index in (0, 2, 4, 6):
        w.conv(f"head.cls_subnet.{index}", channels, channels, 3, bias=True)
        w.conv(f"head.bbox_subnet.{index}", channels, channels, 3, bias=True)
    w.conv("head.cls_score", anchors * classes, channels, 3, bias=True)
    w.conv("head.bbox_pred", anchors * 4, channels, 3, bias=True)
    return w


def mmdetection(
    depth: int = 50, classes: int = 80, anchors: int = 9, channels: int = 256, head_gn: bool = False, seed: int = 0
) -> Writer:
    """mmdetection's RetinaNet, with `num_batches_tracked` of its BatchNorms."""
    w = Writer(seed)
    w.conv("backbone.conv1", 64, 3, 7, bias=False)
    w.norm("backbone.bn1", 64, counted=True)
    basic = depth < 50
    for stage, block, inside, middle, out in bottlenecks(depth):
        name = f"backbone.layer{stage}.{block}"
        sizes = [(1, middle, inside, 1), (2, middle, middle, 3), (3, out, middle, 1)]
        for index, o, i, size in [(1, out, inside, 3), (2, out, out, 3)] if basic else sizes:
            w.conv(f"{name}.conv{index}", o, i, size, bias=False)
            w.norm(f"{name}.bn{index}", o, counted=True)
        if block == 0 and inside != out:
            w.conv(f"{name}.downsample.0", out, inside, 1, bias=False)
            w.norm(f"{name}.downsample.1", out, counted=True)
    widths = (128, 256, 512) if basic else (512, 1024, 2048)
    for level, inside in enumerate(widths):
        w.conv(f"neck.lateral_convs.{level}.conv", channels, inside, 1, bias=True)
        w.conv(f"neck.fpn_convs.{level}.conv", channels, channels, 3, bias=True)
    w.conv("neck.fpn_convs.3.conv", channels, widths[-1], 3, bias=True)
    w.conv("neck.fpn_convs.4.conv", channels, channels, 3, bias=True)
    for index in range(4):
        for subnet in ("cls_convs", "reg_convs"):
            w.conv(f"bbox_head.{subnet}.{index}.conv", channels, channels, 3, bias=not head_gn)
            if head_gn:
                w.norm(f"bbox_head.{subnet}.{index}.gn", channels, statistics=False)
    w.conv("bbox_head.retina_cls", anchors * classes, channels, 3, bias=True)
    w.conv("bbox_head.retina_reg", anchors * 4, channels, 3, bias=True)
    return w
