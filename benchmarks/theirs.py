"""torchvision's RetinaNet as its reference training script makes and runs it, and the ways of making it faster."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from benchmarks.contest import Precision
from benchmarks.peaks import DTYPES
from retinanet.structures import Batch


class Variant(NamedTuple):
    """A way to run torchvision's model."""

    name: str
    precision: Precision
    channels_last: bool = False
    compiled: bool = False
    not_same: str = ""
    """What sets it apart from ours, beside what all variants do."""


AS_SHIPPED = Variant("torchvision as shipped", "float32")
FLOAT32_LAST = Variant("torchvision channels_last", "float32", channels_last=True)
BFLOAT16 = Variant("torchvision bfloat16", "bfloat16", not_same="its anchors are made in bfloat16 under autocast")
BFLOAT16_LAST = BFLOAT16._replace(name="torchvision bfloat16 channels_last", channels_last=True)
COMPILED = BFLOAT16_LAST._replace(name="torchvision bfloat16 channels_last compiled", compiled=True)
AMP = Variant("torchvision AMP", "float16", not_same="float16 with a loss scale, as its script's --amp")


def variants(device: torch.device, bfloat16: bool) -> tuple[Variant, ...]:
    """Those worth timing on `device`; without bfloat16 arithmetic none that emulates it."""
    plain: tuple[Variant, ...] = (AS_SHIPPED, FLOAT32_LAST)
    if device.type == "cuda":
        plain = (*plain, AMP)
    if bfloat16:
        plain = (*plain, BFLOAT16, BFLOAT16_LAST)
        if device.type == "cuda":
            plain = (*plain, COMPILED)
    return plain


def build_peer(backbone: str, size: tuple[int, int], classes: int, device: torch.device) -> RetinaNet:
    """What retinanet_resnet50_fpn builds for ImageNet weights (frozen batch norms, three trained stages), unloaded.

    `weights_backbone=None` would give it batch norms that train, which the script never trains with. Images of `size`
    keep it; thresholds are its own but for 100 detections an image, as ours.
    """
    torch.manual_seed(0)
    # The arguments of retinanet_resnet50_fpn: P3 to P5 from C3 to C5, P6 and P7 from P5, since its widths are equal.
    features = resnet_fpn_backbone(
        backbone_name=backbone,
        weights=None,
        trainable_layers=3,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    model = RetinaNet(features, classes, min_size=min(size), max_size=max(size), detections_per_img=100)
    return model.to(device)


def prepared(model: nn.Module, variant: Variant) -> nn.Module:
    """`model` in the variant's layout, compiled if it asks for that."""
    if variant.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if variant.compiled:
        model.compile()
    return model


def autocast(variant: Variant, device: torch.device) -> AbstractContextManager[object]:
    dtype = DTYPES[variant.precision]
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def images_of(batch: Batch, device: torch.device) -> list[Tensor]:
    """The batch's pixels as its data loader gives them: (3, H, W) float32 in 0..1, a tensor an image."""
    return [image.float().div(255).to(device) for image in batch.images]


def targets_of(batch: Batch, device: torch.device) -> list[dict[str, Tensor]]:
    """The batch's boxes and class indices as its data loader gives them."""
    return [{"boxes": t.boxes_G4.to(device), "labels": t.classes_G.to(device)} for t in batch.targets]


def training_step(
    model: nn.Module, batch: Batch, variant: Variant, device: torch.device, learning_rate: float
) -> Callable[[], float]:
    """A step of the reference's train_one_epoch: forward with losses, a look at their sum, backward, SGD."""
    images, targets = images_of(batch, torch.device("cpu")), targets_of(batch, torch.device("cpu"))
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=learning_rate, momentum=0.9, weight_decay=1e-4)
    scaler = torch.amp.GradScaler(device.type, enabled=variant.precision == "float16")
    model.train()

    def step() -> float:
        on_device = [image.to(device) for image in images]
        told = [{key: value.to(device) for key, value in target.items()} for target in targets]
        with autocast(variant, device):
            losses = sum(model(on_device, told).values())
        value = losses.item()
        optimizer.zero_grad()
        scaler.scale(losses).backward()
        scaler.step(optimizer)
        scaler.update()
        return value

    return step
