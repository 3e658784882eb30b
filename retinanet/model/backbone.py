"""Torchvision's ResNets, ResNeXts and MobileNetV2 as C3, C4, C5 feature extractors.

Legend: C3, C4, C5 are (B, c, H / 8, W / 8), (B, c, H / 16, W / 16), (B, c, H / 32, W / 32).
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal
from urllib.error import URLError

import torch
from torch import Tensor, nn
from torchvision import models
from torchvision.models.resnet import Bottleneck

from retinanet.errors import CheckpointError
from retinanet.model.folding import FrozenNorm, fold_frozen_norms

NormLayer = Callable[[int], nn.Module]
NormKind = Literal["frozen_bn", "eval_bn", "bn", "sync_bn", "gn"]

IMAGENET_WEIGHTS = {
    "resnet18": models.ResNet18_Weights.IMAGENET1K_V1,
    "resnet34": models.ResNet34_Weights.IMAGENET1K_V1,
    "resnet50": models.ResNet50_Weights.IMAGENET1K_V1,
    "resnet101": models.ResNet101_Weights.IMAGENET1K_V1,
    "resnet152": models.ResNet152_Weights.IMAGENET1K_V1,
    "resnext50_32x4d": models.ResNeXt50_32X4D_Weights.IMAGENET1K_V1,
    "resnext101_32x8d": models.ResNeXt101_32X8D_Weights.IMAGENET1K_V1,
    "resnext101_64x4d": models.ResNeXt101_64X4D_Weights.IMAGENET1K_V1,
    "mobilenet_v2": models.MobileNet_V2_Weights.IMAGENET1K_V1,
}


class Backbone(nn.Module):
    """Five stages in a row (stem, C2, C3, C4, C5); the first `frozen_stages` never train, in either mode."""

    def __init__(self, stages: list[nn.Module], channels: tuple[int, int, int], frozen_stages: int) -> None:
        """channels: of C3, C4 and C5."""
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.channels = channels
        self.frozen_stages = frozen_stages
        for stage in self.stages[:frozen_stages]:
            stage.requires_grad_(False)

    def train(self, mode: bool = True) -> "Backbone":
        super().train(mode)
        for stage in self.stages[: self.frozen_stages]:
            stage.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised float -> [C3, C4, C5]."""
        features = []
        for stage in self.stages:
            images = stage(images)
            features.append(images)
        return features[2:]


def group_norm(channels: int) -> nn.Module:
    """GroupNorm of 32 groups, or of the largest count that divides 32 and leaves each group two channels.

    A group of one channel has nothing to normalise over on a 1x1 map, such as a small canvas's P7.
    """
    groups = math.gcd(32, channels)
    return nn.GroupNorm(groups if groups < channels else max(channels // 2, 1), channels)


class EvalBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm that always normalises by its stored statistics, while its scale and shift train."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.eval()

    def train(self, mode: bool = True) -> "EvalBatchNorm2d":
        super().train(False)
        return self


def norm_layer(kind: NormKind) -> NormLayer:
    match kind:
        case "frozen_bn":
            return FrozenNorm
        case "eval_bn":
            return EvalBatchNorm2d
        case "bn":
            return nn.BatchNorm2d
        case "sync_bn":
            return nn.SyncBatchNorm
        case "gn":
            return group_norm


def move_strides(network: nn.Module) -> None:
    """Move the stride of each bottleneck from its 3x3 convolution to its first 1x1 one (Caffe's ResNets)."""
    for block in network.modules():
        if isinstance(block, Bottleneck):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride


def _network(name: str, norm: NormLayer, from_scratch: bool) -> nn.Module:
    """Torchvision's network; from_scratch starts each residual branch at zero (arXiv 1706.02677, section 5.1)."""
    match name:
        case "resnet18":
            return models.resnet18(norm_layer=norm, zero_init_residual=from_scratch)
        case "resnet34":
            return models.resnet34(norm_layer=norm, zero_init_residual=from_scratch)
        case "resnet50":
            return models.resnet50(norm_layer=norm, zero_init_residual=from_scratch)
        case "resnet101":
            return models.resnet101(norm_layer=norm, zero_init_residual=from_scratch)
        case "resnet152":
            return models.resnet152(norm_layer=norm, zero_init_residual=from_scratch)
        case "resnext50_32x4d":
            return models.resnext50_32x4d(norm_layer=norm, zero_init_residual=from_scratch)
        case "resnext101_32x8d":
            return models.resnext101_32x8d(norm_layer=norm, zero_init_residual=from_scratch)
        case "resnext101_64x4d":
            return models.resnext101_64x4d(norm_layer=norm, zero_init_residual=from_scratch)
        case "mobilenet_v2":
            return models.mobilenet_v2(norm_layer=norm).features
    raise ValueError(f"no backbone named {name!r}")


def build_backbone(
    name: str, weights: str, norm: NormKind, frozen_stages: int, stride_in_1x1: bool, fold: bool
) -> Backbone:
    """The named network without its classifier.

    weights: `imagenet`, `none`, or a state-dict file with torchvision's names (of the whole network or, for
    MobileNetV2, of its `features`). stride_in_1x1: see `move_strides`; fold: see `fold_frozen_norms`. Raises
    CheckpointError for weights that cannot be had or do not fit.
    """
    network = _network(name, norm_layer(norm), from_scratch=weights == "none" and norm != "frozen_bn")
    if stride_in_1x1:
        move_strides(network)
    if weights != "none":
        state = _imagenet_state(name) if weights == "imagenet" else read_state(Path(weights))
        source = f"torchvision's {name}" if weights == "imagenet" else weights
        load_backbone_state(network, state, source, needs_statistics=norm != "gn")
    if fold:
        fold_frozen_norms(network)
    if name == "mobilenet_v2":
        blocks = list(network.children())
        cuts = ((0, 2), (2, 4), (4, 7), (7, 14), (14, 18))
        return Backbone([nn.Sequential(*blocks[a:b]) for a, b in cuts], (32, 96, 320), frozen_stages)
    layers = dict(network.named_children())
    stem = nn.Sequential(*(layers[name] for name in ("conv1", "bn1", "relu", "maxpool")))
    stages = [stem, *(layers[name] for name in ("layer1", "layer2", "layer3", "layer4"))]
    widths = (128, 256, 512) if name in ("resnet18", "resnet34") else (512, 1024, 2048)
    return Backbone(stages, widths, frozen_stages)


def _imagenet_state(name: str) -> dict[str, Tensor]:
    weights = IMAGENET_WEIGHTS[name]
    file = Path(torch.hub.get_dir()) / "checkpoints" / weights.url.rsplit("/", 1)[1]
    if file.is_file():
        return read_state(file)
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=True, check_hash=True)
    except (URLError, OSError, RuntimeError) as error:
        raise CheckpointError(
            f"model.backbone.weights: cannot download torchvision's ImageNet weights ({error}). Put {weights.url} "
            f"at {file}, or set model.backbone.weights to a file of yours, or to `none` to train from scratch."
        ) from error
    return state


def read_state(path: Path) -> dict[str, Tensor]:
    """A state dict from a file of plain tensors; a `state_dict` or `model` wrapper is opened. CheckpointError else."""
    if not path.is_file():
        raise CheckpointError(f"model.backbone.weights: no file {path}; give a state-dict file, `imagenet` or `none`.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises many kinds for a file that is not a checkpoint
        raise CheckpointError(
            f"{path}: not a file of plain tensors that torch can load safely ({error!s:.200})."
        ) from error
    for wrapper in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not any(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(f"{path}: holds no state dict (a mapping of names to tensors).")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def load_backbone_state(network: nn.Module, state: dict[str, Tensor], source: str, needs_statistics: bool) -> None:
    """Copy `state` into `network`; every missing or misshapen tensor is an error, classifier tensors are left out.

    With needs_statistics False (GroupNorm), running means and variances of the file are not wanted.
    """
    own = network.state_dict()
    prefix = "features." if any(name.startswith("features.") for name in state) else ""
    given = {name.removeprefix(prefix): value for name, value in state.items()}
    dropped = ("fc.", "classifier.", "18.")
    unneeded = ("num_batches_tracked",) if needs_statistics else ("num_batches_tracked", "running_mean", "running_var")
    errors = []
    for name, value in own.items():
        if name.startswith(dropped) or name.endswith(unneeded):
            continue
        if name not in given:
            errors.append(f"missing {name} {tuple(value.shape)}")
        elif given[name].shape != value.shape:
            errors.append(f"{name} is {tuple(given[name].shape)}, wanted {tuple(value.shape)}")
    extra = [n for n in given if n not in own and not n.startswith(dropped) and not n.endswith(unneeded)]
    errors += [f"unexpected {name}" for name in extra]
    if errors:
        shown = "; ".join(errors[:8]) + (f"; and {len(errors) - 8} more" if len(errors) > 8 else "")
        raise CheckpointError(f"{source}: the weights do not fit model.backbone.name: {shown}")
    wanted = {name: value for name, value in given.items() if name in own and not name.startswith(dropped)}
    network.load_state_dict(wanted, strict=False)
