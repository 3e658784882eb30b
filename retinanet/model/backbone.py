"""Torchvision's ResNets, ResNeXts and MobileNetV2 as feature extractors of C3, C4, C5 and, for P2, of C2.

Legend: C2, C3, C4, C5 are (B, c, H / 4, W / 4), (B, c, H / 8, W / 8), (B, c, H / 16, W / 16), (B, c, H / 32, W / 32).
"""

import math
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, assert_never

from torch import Tensor, nn
from torchvision import models
from torchvision.models import WeightsEnum
from torchvision.models.resnet import Bottleneck

from retinanet.errors import CheckpointError
from retinanet.model.folding import FrozenNorm, fold_frozen_norms

NormLayer = Callable[[int], nn.Module]
NormKind = Literal["frozen_bn", "eval_bn", "bn", "sync_bn", "gn"]


def _mobilenet_features(*, norm_layer: NormLayer, zero_init_residual: bool) -> nn.Module:
    """MobileNetV2 without its classifier; torchvision cannot start its residual branches at zero."""
    features: nn.Module = models.mobilenet_v2(norm_layer=norm_layer).features
    return features


class Architecture(NamedTuple):
    """One of torchvision's networks."""

    build: Callable[..., nn.Module]
    """Takes `norm_layer` and `zero_init_residual`."""
    weights: WeightsEnum
    """Published weights of ImageNet."""
    widths: tuple[int, int, int, int]
    """Channels of C2 to C5."""


ARCHITECTURES = {
    "resnet18": Architecture(models.resnet18, models.ResNet18_Weights.IMAGENET1K_V1, (64, 128, 256, 512)),
    "resnet34": Architecture(models.resnet34, models.ResNet34_Weights.IMAGENET1K_V1, (64, 128, 256, 512)),
    "resnet50": Architecture(models.resnet50, models.ResNet50_Weights.IMAGENET1K_V1, (256, 512, 1024, 2048)),
    "resnet101": Architecture(models.resnet101, models.ResNet101_Weights.IMAGENET1K_V1, (256, 512, 1024, 2048)),
    "resnet152": Architecture(models.resnet152, models.ResNet152_Weights.IMAGENET1K_V1, (256, 512, 1024, 2048)),
    "resnext50_32x4d": Architecture(
        models.resnext50_32x4d, models.ResNeXt50_32X4D_Weights.IMAGENET1K_V1, (256, 512, 1024, 2048)
    ),
    "resnext101_32x8d": Architecture(
        models.resnext101_32x8d, models.ResNeXt101_32X8D_Weights.IMAGENET1K_V1, (256, 512, 1024, 2048)
    ),
    "resnext101_64x4d": Architecture(
        models.resnext101_64x4d, models.ResNeXt101_64X4D_Weights.IMAGENET1K_V1, (256, 512, 1024, 2048)
    ),
    "mobilenet_v2": Architecture(_mobilenet_features, models.MobileNet_V2_Weights.IMAGENET1K_V1, (24, 32, 96, 320)),
}
"""By config `model.backbone.name`."""


MOBILENET_STAGES = ((0, 2), (2, 4), (4, 7), (7, 14), (14, 18))
"""First and one after the last of MobileNetV2's `features` in each stage."""

RESNET_STEM = ("conv1", "bn1", "relu", "maxpool")

MOST_BLOCKS = 64
"""Upper bound of the residual blocks of a stage."""


class InitialWeights(NamedTuple):
    """A state dict that a backbone starts from."""

    tensors: Mapping[str, Tensor]
    """With torchvision's names: of the whole network or, for MobileNetV2, of its `features`."""
    source: str
    """Where they come from, for error messages."""
    note: str = ""
    """What the user should know of them."""


class Backbone(nn.Module):
    """Five stages in a row (stem, C2, C3, C4, C5); the first `frozen_stages` do not train, in either mode."""

    def __init__(self, stages: list[nn.Module], channels: tuple[int, ...], frozen_stages: int) -> None:
        """channels: of the stages that `forward` returns, the last three or four."""
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.channels = channels
        self.frozen_stages = frozen_stages
        for stage in self.stages[:frozen_stages]:
            stage.requires_grad_(False)

    def train(self, mode: bool = True) -> "Backbone":
        """As nn.Module.train, except that frozen stages stay in evaluation mode."""
        super().train(mode)
        for stage in self.stages[: self.frozen_stages]:
            stage.eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) normalised float -> [C3, C4, C5], or [C2, C3, C4, C5]."""
        features = []
        for stage in self.stages:
            images = stage(images)
            features.append(images)
        return features[-len(self.channels) :]


def group_norm(channels: int) -> nn.Module:
    """GroupNorm of 32 groups, or of the largest number that divides 32 and leaves each group at least two channels.

    A group of one channel has nothing to normalise over on a 1x1 map, such as P7 of a small canvas.
    """
    groups = math.gcd(32, channels)
    return nn.GroupNorm(groups if groups < channels else max(channels // 2, 1), channels)


class EvalBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm that always normalises by its stored statistics, while its scale and shift train."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.eval()

    def train(self, mode: bool = True) -> "EvalBatchNorm2d":
        """Stay in evaluation mode."""
        super().train(False)
        return self


def norm_layer(kind: NormKind) -> NormLayer:
    """The constructor of config `model.backbone.norm`; it takes the number of channels."""
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
        case _:
            assert_never(kind)


def move_strides(network: nn.Module) -> None:
    """Move the stride of each bottleneck from its 3x3 convolution to its first 1x1 one (Caffe's ResNets)."""
    for block in network.modules():
        if isinstance(block, Bottleneck):
            block.conv1.stride, block.conv2.stride = block.conv2.stride, block.conv1.stride


def build_backbone(
    *,
    name: str,
    weights: InitialWeights | None,
    norm: NormKind,
    frozen_stages: int,
    stride_in_1x1: bool,
    fold: bool,
    zero_init_residual: bool = True,
    returns_c2: bool = False,
) -> Backbone:
    """Build the named network of ARCHITECTURES without its classifier.

    With zero_init_residual and without `weights`, each residual branch of a ResNet starts at zero (arXiv 1706.02677,
    section 5.1) unless its norms are frozen. stride_in_1x1: see `move_strides`; fold: see `fold_frozen_norms`.
    Raises CheckpointError for weights that do not fit.
    """
    architecture = ARCHITECTURES[name]
    zero_init = zero_init_residual and weights is None and norm != "frozen_bn"
    network = architecture.build(norm_layer=norm_layer(norm), zero_init_residual=zero_init)
    if stride_in_1x1:
        move_strides(network)
    if weights is not None:
        load_backbone_state(network, weights, needs_statistics=norm != "gn")
    if fold:
        fold_frozen_norms(network)
    if name == "mobilenet_v2":
        blocks = list(network.children())
        stages: list[nn.Module] = [nn.Sequential(*blocks[a:b]) for a, b in MOBILENET_STAGES]
    else:
        layers = dict(network.named_children())
        stem = nn.Sequential(*(layers[part] for part in RESNET_STEM))
        stages = [stem, *(layers[part] for part in ("layer1", "layer2", "layer3", "layer4"))]
    return Backbone(stages, architecture.widths[0 if returns_c2 else 1 :], frozen_stages)


def published_stage_names(name: str) -> dict[tuple[int, str], str]:
    """(stage, module in it) of the named backbone -> name of the same module in torchvision's network.

    `(1, "0")` is `layer1.0` of a ResNet and `2` of MobileNetV2's `features`.
    """
    if name == "mobilenet_v2":
        spans = enumerate(MOBILENET_STAGES)
        return {(stage, str(at - first)): str(at) for stage, (first, end) in spans for at in range(first, end)}
    stem = {(0, str(at)): part for at, part in enumerate(RESNET_STEM)}
    return stem | {(stage, str(at)): f"layer{stage}.{at}" for stage in range(1, 5) for at in range(MOST_BLOCKS)}


def load_backbone_state(network: nn.Module, weights: InitialWeights, needs_statistics: bool) -> None:
    """Copy `weights` into `network`, leaving out the classifier's.

    With needs_statistics False (GroupNorm), running means and variances are left out too. Raises CheckpointError that
    lists missing, unexpected and misshapen tensors.
    """
    own = network.state_dict()
    prefix = "features." if any(name.startswith("features.") for name in weights.tensors) else ""
    given = {name.removeprefix(prefix): value for name, value in weights.tensors.items()}
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
        raise CheckpointError(f"{weights.source}: the weights do not fit model.backbone.name: {shown}")
    wanted = {name: value for name, value in given.items() if name in own and not name.startswith(dropped)}
    network.load_state_dict(wanted, strict=False)
