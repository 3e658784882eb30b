"""Images that belong to no data set, from files or from memory, each a batch of its own."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from retinanet.data.coco import ImageRecord
from retinanet.data.find_images import ARRAY_SUFFIX, PILLOW_ERRORS
from retinanet.data.images import DEEP_SUFFIXES, decode_bytes, decode_image, depth_note, rgb_bytes
from retinanet.data.pixel_depth import DepthRange, describe_few_levels
from retinanet.data.transforms import NO_AUGMENT, Augment, ResizeRule, collate, draw_changes, make_sample
from retinanet.errors import DataError
from retinanet.structures import Batch

ImageLike = str | Path | bytes | Image.Image | NDArray[np.uint8] | Tensor
"""An image file, its content, or the pixels of an image; see `read_image`."""

MOST_DEEP = 8
"""Images of 16 bits that are looked at for `few_levels_note`."""

_log = logging.getLogger(__name__)


def one_image(
    path: Path, image_id: int, resize_rule: ResizeRule, depth_range: DepthRange | None = None
) -> tuple[Tensor, Batch]:
    """The stored image, (3, h, w) uint8, and a batch of it alone. Raises DataError as `decode_image`."""
    image = decode_image(path, depth_range, warn=False)
    return image, image_batch(image, image_id, resize_rule)


def image_batch(image: Tensor, image_id: int, resize_rule: ResizeRule, augment: Augment = NO_AUGMENT) -> Batch:
    """A batch of one image, (3, h, w) uint8, resized for the network. augment: may mirror it, always or never."""
    height, width = int(image.shape[-2]), int(image.shape[-1])
    no_boxes = np.zeros((0, 4), dtype=np.float32)
    record = ImageRecord(
        id=image_id,
        path=Path(),
        height=height,
        width=width,
        boxes_G4=no_boxes,
        classes_G=np.zeros(0, dtype=np.int64),
        crowd_C4=no_boxes,
    )
    shorter = resize_rule.shorter_side[-1]
    fitted = resize_rule.fitted(height, width, shorter)
    canvas = resize_rule.image_canvas(fitted, resize_rule.aspect_bucket(height, width), shorter)
    draws = draw_changes(np.random.default_rng(0))
    sample = make_sample(image, record, fitted, canvas, augment, draws, resize_rule.resize)
    return collate([sample], canvas)


def read_image(image: ImageLike, name: str, depth_range: DepthRange | None = None) -> Tensor:
    """(3, H, W) uint8 RGB of a file or of pixels in memory, which it may share.

    image: a path or the bytes of a file, read as `decode_image` reads it, or the path of a .npy file with such an array
        as below; a Pillow image of any mode, turned upright as its EXIF rotation demands; a uint8 array (H, W, 3),
        (H, W, 4) with an alpha channel that is dropped, or grey (H, W) or (H, W, 1); a uint8 tensor (3, H, W),
        (4, H, W) with alpha, or grey (H, W) or (1, H, W), on any device.
    name: of the image, for errors. Raises DataError for anything else.
    """
    match image:
        case str() | Path() if Path(image).suffix.lower() == ARRAY_SUFFIX:
            return _of_array(_load_array(Path(image).expanduser()), name)
        case str() | Path():
            return decode_image(Path(image).expanduser(), depth_range, warn=False)
        case bytes():
            return decode_bytes(image, name, depth_range)
        case Image.Image():
            return _of_pillow(image, name, depth_range)
        case np.ndarray():
            pixels = _of_array(image, name)
            _warn_of_ones(pixels, name)
            return pixels
        case Tensor():
            pixels = _of_tensor(image, name)
            _warn_of_ones(pixels, name)
            return pixels
    kind = f"{type(image).__module__}.{type(image).__qualname__}".removeprefix("builtins.")
    raise DataError(
        f"{name}: an object of type {kind} is not an image; give a path, the bytes of a file, a Pillow image, a NumPy "
        "array (H, W, 3) or a tensor (3, H, W) of type uint8"
    )


def _load_array(path: Path) -> NDArray[np.uint8]:
    """The array of a .npy file. Raises DataError for one that cannot be read, or that holds Python objects."""
    try:
        # Mapped first, which compares the shape in its header with the size of the file.
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, SyntaxError, TypeError) as error:
        raise DataError(f"{path}: not an array of pixels that numpy.save wrote, or damaged ({error!s:.200})") from error
    if not isinstance(found, np.ndarray):
        raise DataError(f"{path}: holds several arrays; save one alone with numpy.save")
    return np.array(found)


def few_levels_note(images: Iterable[ImageLike]) -> str:
    """A note on the first of the images whose 16-bit pixels leave few levels as bytes; empty where none does.

    Only files and Pillow images are looked at, and of these the first deep ones.
    """
    deep = 0
    for number, image in enumerate(images, start=1):
        note = ""
        if isinstance(image, str | Path) and (path := Path(image).expanduser()).suffix.lower() in DEEP_SUFFIXES:
            deep, note = deep + 1, depth_note([path])
        elif isinstance(image, Image.Image) and image.mode.startswith("I"):
            levels = np.asarray(image)
            deep, note = deep + 1, describe_few_levels(f"image {number}", int(levels.min()), int(levels.max()))
        if note or deep == MOST_DEEP:
            return note
    return ""


def _of_pillow(image: Image.Image, name: str, depth_range: DepthRange | None) -> Tensor:
    try:
        upright = ImageOps.exif_transpose(image)
        pixels = rgb_bytes(upright, name, depth_range)
    except DataError:
        raise
    except PILLOW_ERRORS as error:
        raise DataError(f"{name}: the image cannot be decoded ({error}); it is damaged or truncated") from error
    return _of_array(pixels, name)


def _of_array(array: NDArray[np.uint8], name: str) -> Tensor:
    shape = array.shape
    if array.dtype != np.uint8:
        raise DataError(f"{name}: the array has type {array.dtype}, not uint8; {_remedy_of_type(array)}")
    if array.ndim == 3 and shape[0] in (1, 3) and shape[2] not in (1, 3, 4):
        raise DataError(
            f"{name}: the array has shape {shape}, channels first; give (height, width, 3) with "
            "image.transpose(1, 2, 0)"
        )
    if array.ndim not in (2, 3) or (array.ndim == 3 and shape[2] not in (1, 3, 4)):
        raise DataError(f"{name}: the array has shape {shape}; give (height, width, 3), RGB")
    if min(shape) < 1:
        raise DataError(f"{name}: the image has no pixels, its shape is {shape}")
    grey = array.ndim == 2 or shape[2] == 1
    pixels_HW3 = np.repeat(array.reshape(*shape[:2], 1), 3, axis=2) if grey else array[..., :3]
    # torch takes neither negative strides (image[..., ::-1]) nor, without a warning, arrays that are read only.
    usable = np.ascontiguousarray(pixels_HW3)
    return torch.from_numpy(usable if usable.flags.writeable else usable.copy()).permute(2, 0, 1)


def _of_tensor(image: Tensor, name: str) -> Tensor:
    shape = tuple(image.shape)
    if image.dtype != torch.uint8:
        kind = str(image.dtype).removeprefix("torch.")
        values = image.detach().cpu()
        remedy = _remedy_of_type((values.float() if values.is_floating_point() else values).numpy())
        raise DataError(f"{name}: the tensor has type {kind}, not uint8; {remedy}")
    if image.ndim == 3 and shape[2] in (1, 3, 4) and shape[0] not in (1, 3, 4):
        raise DataError(
            f"{name}: the tensor has shape {shape}, channels last; give (3, height, width) with image.permute(2, 0, 1)"
        )
    if image.ndim not in (2, 3) or (image.ndim == 3 and shape[0] not in (1, 3, 4)):
        raise DataError(f"{name}: the tensor has shape {shape}; give (3, height, width), RGB")
    if min(shape) < 1:
        raise DataError(f"{name}: the image has no pixels, its shape is {shape}")
    pixels = image.detach().cpu()
    return pixels[:3] if pixels.ndim == 3 and shape[0] == 4 else pixels.expand(3, -1, -1)


def _warn_of_ones(pixels: Tensor, name: str) -> None:
    """Log where pixels are 0 and 1 only, as floats of 0..1 become when they are converted without being multiplied."""
    if pixels.max() == 1:
        _log.warning(
            "%s: no pixel is above 1 of 255, so the image is black; multiply values of 0..1 by 255 first", name
        )


def _remedy_of_type(values: NDArray[Any]) -> str:
    kind = values.dtype.kind
    low, high = (float(values.min()), float(values.max())) if kind in "iuf" and values.size else (0.0, 0.0)
    if low < 0:
        return (
            f"its values are from {low:g} to {high:g}, as after a normalisation: give the pixels before it, 0..255, as "
            "uint8"
        )
    if 1 < high <= 255:
        return f"its values reach {high:g}: round them and convert them to uint8"
    if kind == "f":
        return "multiply values of 0..1 by 255, round them and convert them to uint8"
    return "scale its values to 0..255 and convert them to uint8"
