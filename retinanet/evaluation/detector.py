"""A network with everything that turns a batch of images into detections."""

from typing import NamedTuple, Protocol

import torch
import torch.utils.deterministic
from torch import Tensor, nn
from torch.nn.functional import pad

from retinanet.build.losses import build_class_loss
from retinanet.build.network import build_anchor_spec, build_channels_last, build_precision, in_memory_order
from retinanet.build.rules import build_detect_rule, build_pixel_rule
from retinanet.compile import Backend, compile_network
from retinanet.config.schema import Config
from retinanet.data.transforms import PixelRule, ResizeRule, network_input
from retinanet.data.upload import to_device
from retinanet.detection.anchors import AnchorSpec, pyramid_anchors
from retinanet.detection.postprocess import DetectRule, detect
from retinanet.evaluation.features import FeatureRule, backbone_of
from retinanet.model.epilogue import can_fuse, fuse_relus
from retinanet.model.folding import inference_copy
from retinanet.structures import Batch, Detections, HeadOutputs, Scoring


class AnyDetector(Protocol):
    """Anything that detects objects: a network (`Detector`) or an exported file (`export.runtime`)."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    @property
    def rule(self) -> DetectRule:
        """What becomes a detection."""

    def prepare(self) -> None:
        """Must be called once before the first batch."""

    def __call__(self, batch: Batch) -> list[Detections]:
        """Detections of each image in its original frame."""


class Detector(NamedTuple):
    """A network with everything that turns its outputs into detections."""

    model: nn.Module
    anchors: AnchorSpec
    scoring: Scoring
    """That of the class loss."""
    rule: DetectRule
    device: torch.device
    precision: torch.dtype
    channels_last: bool
    pixels: PixelRule
    filled_to: int | None = None
    """Images of every call of the network, which missing ones fill up; None: as many as there are."""
    caches_features: bool = False
    """Whether evaluation reads the backbone's features from the cache."""

    def prepare(self) -> None:
        """Set the network to evaluation mode."""
        self.model.eval()

    @torch.no_grad()
    def __call__(self, batch: Batch) -> list[Detections]:
        """Detections of each image in its original frame; the model must be in evaluation mode."""
        batch = to_device(batch, self.device)
        inputs = network_input(batch, self.pixels, self.channels_last)
        missing = 0
        if isinstance(inputs, Tensor) and self.filled_to is not None:
            missing = max(0, self.filled_to - len(inputs))
            inputs = pad(inputs, (0, 0, 0, 0, 0, 0, 0, missing))  # in their memory order
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            outputs = self.model(inputs)
        if missing:
            outputs = HeadOutputs(*(tensor[:-missing] for tensor in outputs))
        height, width = batch.images.shape[2:]
        pyramid = pyramid_anchors((height, width), self.anchors, self.device)
        return detect(
            outputs.logits_BAK,
            outputs.deltas_BA4,
            pyramid,
            batch.sizes_B2,
            batch.original_sizes_B2,
            self.rule,
            self.scoring,
        )

    def feature_rule(self, resize_rule: ResizeRule, batch_size: int) -> FeatureRule:
        """What the features of images that this detector sees depend on."""
        return FeatureRule(
            backbone=backbone_of(self.model),
            resize_rule=resize_rule,
            pixels=self.pixels,
            precision=self.precision,
            channels_last=self.channels_last,
            device=self.device,
            batch_size=batch_size,
        )


def build_detector(config: Config, model: nn.Module, device: torch.device) -> Detector:
    """A copy of `model`, prepared for inference, with the rules of `config`."""
    precision = build_precision(config, device)
    channels_last = build_channels_last(config.model, device, training=False)
    network = inference_copy(model, precision)
    if can_fuse(device, precision, deterministic=config.deterministic):
        fuse_relus(network)
    return Detector(
        model=in_memory_order(network, channels_last=channels_last),
        anchors=build_anchor_spec(config.model),
        scoring=build_class_loss(config.loss.classification).scoring,
        rule=build_detect_rule(config),
        device=device,
        precision=precision,
        channels_last=channels_last,
        pixels=build_pixel_rule(config),
        caches_features=config.data.feature_cache,
    )


def compiled_detector(detector: Detector, backend: Backend, batch_size: int) -> Detector:
    """The detector with its network compiled, in place, for batches of this size alone; smaller ones are filled up."""
    compile_network(detector.model, backend)
    return detector._replace(filled_to=batch_size)


def precision_name(detector: AnyDetector) -> str:
    """The precision that the network computes in, such as "bfloat16"; an exported file has a precision of its own."""
    return (
        str(detector.precision).removeprefix("torch.")
        if isinstance(detector, Detector)
        else "the precision of the exported file"
    )
