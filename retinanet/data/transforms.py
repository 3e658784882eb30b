"""From a stored image to a sample on a canvas: resize, zoom, flip, colour; padding; normalisation on the device.

Pixels stay in 0..255 until `normalise`: uint8, or float32 where config `data.resize` is `float_bilinear`. Every random
choice comes from the generator that is passed in.
Frames: boxes are (x1, y1, x2, y2) in pixels of the image that they are passed or returned with.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple, assert_never

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate
from torchvision.transforms.v2 import functional as F

from retinanet.data.coco import ImageRecord
from retinanet.data.crop import crop_boxes, mirror
from retinanet.structures import Batch, Sample, Targets

CANVAS_MULTIPLE = 32
ASPECT_BOUNDS = (1.02, 1.34, 1.51)
"""Longer over shorter side up to which images share a canvas: square, 4:3, 3:2; others use the full longer side."""

Resize = Literal["antialias", "float_bilinear"]
Canvases = Literal["groups", "tight"]


class ResizeRule(NamedTuple):
    """How images are resized; the fields are those of config `data`."""

    shorter_side: tuple[int, ...]
    longer_side: int
    canvas: tuple[int, int] | None
    resize: Resize
    canvases: Canvases
    max_factor: float = math.inf
    """Images are not enlarged by more than this: 1 for tiles, which keep the image's own scale."""

    def scaled(self, scale: float) -> "ResizeRule":
        """The rule for images `scale` times as large."""
        if scale == 1:
            return self
        return self._replace(
            shorter_side=tuple(round(side * scale) for side in self.shorter_side),
            longer_side=round(self.longer_side * scale),
            canvas=None if self.canvas is None else (round(self.canvas[0] * scale), round(self.canvas[1] * scale)),
            max_factor=self.max_factor * scale,
        )

    def fitted(self, height: int, width: int, shorter: int) -> tuple[int, int]:
        """(height, width) after resizing: into the canvas, or to `shorter` with the longer side bounded.

        Sides are rounded, or with `float_bilinear` rounded down from double precision, as torchvision's
        `interpolate(scale_factor=..., recompute_scale_factor=True)` does.
        """
        if self.canvas is not None:
            factor = min(self.canvas[0] / height, self.canvas[1] / width)
        else:
            factor = min(shorter / min(height, width), self.longer_side / max(height, width))
        factor = min(factor, self.max_factor)
        whole = int if self.resize == "float_bilinear" else round
        return max(1, whole(height * factor)), max(1, whole(width * factor))

    def aspect_bucket(self, height: int, width: int) -> int:
        """The image's aspect-ratio bucket; images of one bucket fit one canvas at every `shorter_side`."""
        if self.canvas is not None:
            return 0
        aspect = max(height, width) / min(height, width)
        band = sum(aspect > bound for bound in ASPECT_BOUNDS)
        return 2 * band + (height > width and band > 0)

    def bucket_canvas(self, bucket: int, shorter: int) -> tuple[int, int]:
        """(height, width) of a bucket's canvas, multiples of CANVAS_MULTIPLE."""
        if self.canvas is not None:
            return _up(self.canvas[0]), _up(self.canvas[1])
        band, portrait = divmod(bucket, 2)
        bounded = band < len(ASPECT_BOUNDS)
        long = min(self.longer_side, round(shorter * ASPECT_BOUNDS[band])) if bounded else self.longer_side
        short, long = _up(min(shorter, self.longer_side)), _up(long)
        if band == 0:
            return long, long
        return (long, short) if portrait else (short, long)

    def image_canvas(self, fitted: tuple[int, int], bucket: int, shorter: int) -> tuple[int, int]:
        """(height, width) of the canvas that an image of `fitted` pixels is cropped to and, alone, padded to.

        That of its bucket, or with `tight` its own size rounded up to multiples of CANVAS_MULTIPLE.
        """
        return (_up(fitted[0]), _up(fitted[1])) if self.canvases == "tight" else self.bucket_canvas(bucket, shorter)


class PixelRule(NamedTuple):
    """How pixels are normalised for a network; the fields are those of config `model.pixels`."""

    order: Literal["rgb", "bgr"]
    mean: tuple[float, ...]
    """In 0..255, one per channel in `order`."""
    std: tuple[float, ...]


class Augment(NamedTuple):
    """Random changes at training; the fields are those of config `data`."""

    scale_jitter: tuple[float, float]
    color_jitter: float
    flip: float
    vertical_flip: float


class Mirroring(NamedTuple):
    """How an image is mirrored."""

    horizontal: bool
    vertical: bool


class Draws(NamedTuple):
    """The random numbers of one sample, each in 0..1; their number does not depend on their use."""

    zoom: float
    flip: float
    vertical_flip: float
    crop_y: float
    crop_x: float
    brightness: float
    contrast: float
    saturation: float

    def mirroring(self, augment: Augment) -> Mirroring:
        """How these numbers mirror the image."""
        return Mirroring(self.flip < augment.flip, self.vertical_flip < augment.vertical_flip)


NO_AUGMENT = Augment(scale_jitter=(1.0, 1.0), color_jitter=0.0, flip=0.0, vertical_flip=0.0)


def _up(pixels: int) -> int:
    return -(-pixels // CANVAS_MULTIPLE) * CANVAS_MULTIPLE


def draw_changes(rng: np.random.Generator) -> Draws:
    """The random numbers that `make_sample` uses for its sample."""
    return Draws._make(rng.random(len(Draws._fields)).tolist())


def possible_mirrorings(augment: Augment) -> tuple[Mirroring, ...]:
    """All that `Draws.mirroring` can give."""

    def outcomes(probability: float) -> list[bool]:
        return [outcome for outcome, possible in ((False, probability < 1), (True, probability > 0)) if possible]

    return tuple(Mirroring(h, v) for h in outcomes(augment.flip) for v in outcomes(augment.vertical_flip))


def make_sample(
    image: Tensor,
    record: ImageRecord,
    fitted: tuple[int, int],
    canvas: tuple[int, int],
    augment: Augment,
    draws: Draws,
    resize: Resize,
) -> Sample:
    """Resize `image` (3, h, w) to `fitted` pixels times a random zoom, crop it to `canvas`, flip, recolour.

    image: uint8 as stored, or the result of `resized` at `fitted` pixels; it is not modified. For targets alone it may
    have no channels, (0, *fitted).
    """
    original = (record.height, record.width)
    low, high = augment.scale_jitter
    factor = low * (high / low) ** draws.zoom
    height, width = max(1, round(fitted[0] * factor)), max(1, round(fitted[1] * factor))
    image = resized(image, (height, width), resize)
    scale = np.array([width / original[1], height / original[0]] * 2, dtype=np.float32)
    boxes_G4, classes_G, crowd_C4 = record.boxes_G4 * scale, record.classes_G, record.crowd_C4 * scale

    visible_h, visible_w = min(height, canvas[0]), min(width, canvas[1])
    if (visible_h, visible_w) != (height, width):
        top, left = int(draws.crop_y * (height - visible_h + 1)), int(draws.crop_x * (width - visible_w + 1))
        image = image[:, top : top + visible_h, left : left + visible_w]
        boxes_G4, classes_G, crowd_C4 = crop_boxes(boxes_G4, classes_G, crowd_C4, (top, left, visible_h, visible_w))
    mirroring = draws.mirroring(augment)
    if mirroring.horizontal:
        image = F.horizontal_flip(image)
        boxes_G4, crowd_C4 = (mirror(b, visible_w, axis=0) for b in (boxes_G4, crowd_C4))
    if mirroring.vertical:
        image = F.vertical_flip(image)
        boxes_G4, crowd_C4 = (mirror(b, visible_h, axis=1) for b in (boxes_G4, crowd_C4))
    if augment.color_jitter:
        colour = (draws.brightness, draws.contrast, draws.saturation)
        image = recoloured(image, [1 + augment.color_jitter * (2 * draw - 1) for draw in colour])
    targets = Targets(
        torch.from_numpy(np.ascontiguousarray(boxes_G4, dtype=np.float32)),
        torch.from_numpy(np.ascontiguousarray(classes_G, dtype=np.int64)),
        torch.from_numpy(np.ascontiguousarray(crowd_C4, dtype=np.float32)),
    )
    return Sample(image=image, targets=targets, image_id=record.id, original_size=original)


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread: the rounding of torch's float kernels depends on their number, and loader workers have one."""
    threads = torch.get_num_threads()
    if threads > 1:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        if threads > 1:
            torch.set_num_threads(threads)


def resized(image: Tensor, size: tuple[int, int], resize: Resize) -> Tensor:
    """`image` (3, h, w) at `size` (height, width) pixels: uint8, or float32 in 0..255 for `float_bilinear`.

    image: uint8, or a result of this function; at its own size it is returned as it is.
    `float_bilinear` samples without antialiasing and keeps fractions. It does so before normalisation, torchvision's
    GeneralizedRCNNTransform after it; both are linear, so the results are equal up to rounding.
    """
    same = tuple(image.shape[-2:]) == size
    match resize:
        case "antialias":
            return image if same else F.resize(image, list(size), antialias=True)
        case "float_bilinear":
            if same:
                return image.float()
            with one_thread():
                return interpolate(image.float()[None], size=size, mode="bilinear", align_corners=False)[0]
        case _:
            assert_never(resize)


def recoloured(image: Tensor, strengths: list[float]) -> Tensor:
    """`image` in 0..255, same dtype, with brightness, contrast and saturation multiplied by `strengths`."""
    brightness, contrast, saturation = strengths
    unit = image / 255 if image.is_floating_point() else image  # torchvision expects floating point in 0..1
    with one_thread():
        changed: Tensor = F.adjust_saturation(
            F.adjust_contrast(F.adjust_brightness(unit, brightness), contrast), saturation
        )
    return changed * 255 if image.is_floating_point() else changed


def tight_canvas(samples: list[Sample]) -> tuple[int, int]:
    """(height, width) of the samples' longest sides, rounded up to CANVAS_MULTIPLE, as torchvision batches images."""
    return _up(max(s.image.shape[-2] for s in samples)), _up(max(s.image.shape[-1] for s in samples))


def collate(samples: list[Sample], canvas: tuple[int, int]) -> Batch:
    """Pad samples, at least one, at the right and bottom onto one canvas; channels last in memory, as from decoders."""
    first = samples[0].image
    images = torch.empty((len(samples), *canvas, first.shape[0]), dtype=first.dtype).permute(0, 3, 1, 2)
    for slot, sample in zip(images, samples, strict=True):
        height, width = sample.image.shape[-2:]
        slot[:, :height, :width] = sample.image
        slot[:, height:] = 0
        slot[:, :height, width:] = 0
    return Batch(
        images=images,
        sizes_B2=torch.tensor([sample.image.shape[-2:] for sample in samples]),
        original_sizes_B2=torch.tensor([sample.original_size for sample in samples]),
        image_ids_B=torch.tensor([sample.image_id for sample in samples]),
        targets=[sample.targets for sample in samples],
    )


def joined(batches: list[Batch]) -> Batch:
    """Batches of one canvas, at least one, as one batch."""
    return Batch(
        images=torch.cat([batch.images for batch in batches]),
        sizes_B2=torch.cat([batch.sizes_B2 for batch in batches]),
        original_sizes_B2=torch.cat([batch.original_sizes_B2 for batch in batches]),
        image_ids_B=torch.cat([batch.image_ids_B for batch in batches]),
        targets=[targets for batch in batches for targets in batch.targets],
    )


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with all its tensors on `device`; all but pixels and features go there in one copy."""
    if device.type == "cpu":
        return batch
    whole = [batch.sizes_B2, batch.original_sizes_B2, batch.image_ids_B, *(t.classes_G for t in batch.targets)]
    real = [*(t.boxes_G4 for t in batch.targets), *(t.crowd_C4 for t in batch.targets)]
    sent = packed_copies([*whole, *real], device)
    sizes_B2, original_sizes_B2, image_ids_B, *others = sent
    images = len(batch.targets)
    classes, boxes, crowds = others[:images], others[images : 2 * images], others[2 * images :]
    return Batch(
        images=batch.images.to(device, non_blocking=True),
        sizes_B2=sizes_B2,
        original_sizes_B2=original_sizes_B2,
        image_ids_B=image_ids_B,
        targets=[Targets(*of_image) for of_image in zip(boxes, classes, crowds, strict=True)],
        features=[level.to(device, non_blocking=True) for level in batch.features],
    )


def packed_copies(tensors: list[Tensor], device: torch.device) -> list[Tensor]:
    """Copies of the tensors on `device`, which are views of one; tensors of wider dtypes must come first."""
    sizes = [tensor.nbytes for tensor in tensors]
    packed = torch.cat([tensor.contiguous().view(-1).view(torch.uint8) for tensor in tensors])
    if torch.cuda.is_available() and device.type == "cuda":
        packed = packed.pin_memory()  # else the copy would wait
    parts = packed.to(device, non_blocking=True).split(sizes)
    return [part.view(tensor.dtype).view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


def channel_values(values: tuple[float, ...], device: torch.device) -> Tensor:
    """(3,) float32 in 0..255 on `device`, without a sync. Not cached, since a graph may be traced here."""
    # In units of 1 first: that is how torchvision's weights state them, and both factors round in float32.
    return (torch.tensor([value / 255 for value in values]) * 255).to(device, non_blocking=True)


def network_input(batch: Batch, rule: PixelRule, channels_last: bool) -> Tensor | list[Tensor]:
    """What the network takes for a batch: its normalised images or, where they are known, their features."""
    return list(batch.features) if batch.features else normalise(batch.images, batch.sizes_B2, rule, channels_last)


def normalise(images: Tensor, sizes_B2: Tensor, rule: PixelRule, channels_last: bool) -> Tensor:
    """(B, 3, H, W) RGB in 0..255, uint8 or float32 -> float32 by `rule`; padding becomes exactly 0 (the mean)."""
    if rule.order == "bgr":
        images = images.flip(1)
    height, width = images.shape[2:]
    mean, std = channel_values(rule.mean, images.device), channel_values(rule.std, images.device)
    rows_BH = torch.arange(height, device=images.device)[None, :] < sizes_B2[:, :1]
    columns_BW = torch.arange(width, device=images.device)[None, :] < sizes_B2[:, 1:]
    if not channels_last:
        inside = (rows_BH[:, :, None] & columns_BW[:, None, :])[:, None]
        normal = (images.float() - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
        return torch.where(inside, normal, 0.0).contiguous()
    # Whole rows of interleaved channels: torch has no fast loop over an innermost dimension of three. Division by
    # infinity gives the zeros of multiplication by 0, and saves a pass.
    pixels = images.permute(0, 2, 3, 1).flatten(2).to(torch.float32, copy=True).sub_(mean.repeat(width))
    pixels.div_(torch.where(columns_BW[:, :, None], std, torch.inf).flatten(1)[:, None, :])
    pixels.mul_(rows_BH[:, :, None].float())
    return torch.unflatten(pixels, 2, (width, 3)).permute(0, 3, 1, 2)
