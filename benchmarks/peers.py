"""Peers on whole networks: torchvision's RetinaNet and another project's model, from a Python file of the user's.

torchvision's runs as its reference training script runs it, and in faster ways.
"""

import runpy
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from benchmarks.contest import Contestant, Precision, Stretch, ready
from benchmarks.machine import DTYPES
from benchmarks.options import Options
from retinanet.errors import ConfigError
from retinanet.structures import Batch


class Variant(NamedTuple):
    """A way to run torchvision's model."""

    name: str
    precision: Precision
    channels_last: bool = False
    compiled: bool = False
    not_same: str = ""
    """How it differs from this project's, in addition to what all variants do."""


AS_SHIPPED = Variant("torchvision as shipped", "float32")
FLOAT32_LAST = Variant("torchvision channels_last", "float32", channels_last=True)
BFLOAT16 = Variant("torchvision bfloat16", "bfloat16", not_same="its anchors are made in bfloat16 under autocast")
BFLOAT16_LAST = BFLOAT16._replace(name="torchvision bfloat16 channels_last", channels_last=True)
COMPILED = BFLOAT16_LAST._replace(name="torchvision bfloat16 channels_last compiled", compiled=True)
AMP = Variant("torchvision AMP", "float16", not_same="float16 with a loss scale, as its script's --amp")


def variants(device: torch.device, bfloat16: bool) -> tuple[Variant, ...]:
    """Those worth timing on `device`; without bfloat16 arithmetic none that emulates it."""
    cuda = device.type == "cuda"
    return (
        AS_SHIPPED,
        FLOAT32_LAST,
        *((AMP,) if cuda else ()),
        *((BFLOAT16, BFLOAT16_LAST) if bfloat16 else ()),
        *((COMPILED,) if bfloat16 and cuda else ()),
    )


def build_peer(options: Options, variant: Variant) -> RetinaNet:
    """The model that retinanet_resnet50_fpn builds for ImageNet weights (frozen norms, three trained stages), unloaded.

    `weights_backbone=None` would give it batch norms that train, which the script never trains with. Images of
    `options.size` keep it; thresholds are its own, except for 100 detections an image as this project's.
    """
    torch.manual_seed(0)
    # The arguments of retinanet_resnet50_fpn: P3 to P5 from C3 to C5, P6 and P7 from P5, since its widths are equal.
    features = resnet_fpn_backbone(
        backbone_name=options.backbone(),
        weights=None,
        trainable_layers=3,
        returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )
    size = {"min_size": min(options.size), "max_size": max(options.size)}
    model = RetinaNet(features, options.classes, **size, detections_per_img=100).to(options.device)
    if variant.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if variant.compiled:
        model.compile()
    return model


def autocast(variant: Variant, device: torch.device) -> AbstractContextManager[object]:
    """The variant's precision as an autocast context; none for float32."""
    dtype = DTYPES[variant.precision]
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def images_of(batch: Batch) -> list[Tensor]:
    """The batch's pixels as torchvision's data loader gives them: (3, H, W) float32 in 0..1, one tensor an image."""
    return [image.float().div(255) for image in batch.images]


def training_step(
    model: nn.Module, batch: Batch, variant: Variant, device: torch.device, learning_rate: float
) -> Callable[[], float]:
    """A step of the reference's train_one_epoch: forward with losses, their sum read, backward, SGD."""
    images = images_of(batch)
    targets = [{"boxes": one.boxes_G4, "labels": one.classes_G} for one in batch.targets]
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=learning_rate, momentum=0.9, weight_decay=1e-4)
    scaler = torch.amp.GradScaler(device.type, enabled=variant.precision == "float16")
    model.train()

    def step() -> float:
        on_device = [image.to(device) for image in images]
        truth = [{key: value.to(device) for key, value in target.items()} for target in targets]
        with autocast(variant, device):
            losses = sum(model(on_device, truth).values())
        value: float = losses.item()
        optimizer.zero_grad()
        scaler.scale(losses).backward()
        scaler.step(optimizer)
        scaler.update()
        return value

    return step


def inference_step(model: nn.Module, batch: Batch, variant: Variant, device: torch.device) -> Callable[[], int]:
    """The number of detections in the batch."""
    images = images_of(batch)

    @torch.no_grad()
    def step() -> int:
        with autocast(variant, device):
            return sum(len(found["scores"]) for found in model([image.to(device) for image in images]))

    return step


class ForeignModel(NamedTuple):
    """The two functions of a user's file; see `benchmarks/run.py --help`."""

    build: Callable[[int, int, int, torch.device], Any]
    step: Callable[[Any], None]


def read_foreign(path: Path) -> ForeignModel:
    """Run the file and take its functions. Raises ConfigError if it does not define both."""
    defined = runpy.run_path(str(path))
    missing = [name for name in ("build", "step") if not callable(defined.get(name))]
    if missing:
        raise ConfigError(
            f"--against {path}: defines no function {' and no '.join(missing)}; it needs "
            "build(size, batch, classes, device) and step(state)."
        )
    return ForeignModel(defined["build"], defined["step"])


def foreign_contestant(path: Path, options: Options) -> Contestant:
    """The file's model as a peer; its precision is its own affair."""

    def build() -> Stretch:
        functions = read_foreign(path)
        state = functions.build(options.size[0], options.batch, options.classes, torch.device(options.device))
        return ready(lambda: functions.step(state))

    return Contestant(path.stem, ours=False, precision="-", build=build)
