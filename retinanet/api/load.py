"""`retinanet.load`: a saved detector that takes images of any origin."""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, overload
from urllib.parse import unquote, urlsplit

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from retinanet.api.found import FoundObjects
from retinanet.api.words import Overrides, override_words
from retinanet.build.rules import build_depth_range, build_resize_rule, build_view_rule
from retinanet.config.load import with_overrides
from retinanet.data.find_images import ARRAY_SUFFIX, files_passed_over, find_images
from retinanet.data.images import image_header
from retinanet.data.loose_images import ImageLike, few_levels_note
from retinanet.data.prefetch import prefetched
from retinanet.errors import DataError, list_errors
from retinanet.evaluation.predict import LoadedImage, detected, load_pixels
from retinanet.evaluation.saved import LoadedDetector, prepare_detector
from retinanet.export.runtime import is_exported, load_exported
from retinanet.interop.any_detector import find_checkpoint, open_detector

_log = logging.getLogger(__name__)

Item = TypeVar("Item", bound=ImageLike)


def load(path_or_name: str | Path, *, device: str = "auto", overrides: Overrides = ()) -> "ObjectDetector":
    """A detector that is ready to use.

    path_or_name: a checkpoint of a training (.pt), a published one (.safetensors), a file from `retinanet export`
        (.onnx or .pt2; a .pt2 file is a program, so load only those you trust), a file of torchvision, detectron2 or
        mmdetection with a RetinaNet, the folder of a run, whose best checkpoint is taken, or the name of a detector
        that torchvision publishes, `torchvision_v1_coco` or `torchvision_v2_coco`, which is downloaded once.
    device: "auto", "cpu", "cuda" or "mps"; exported files run on the CPU.
    overrides: config keys to change, such as `{"eval.score_threshold": 0.3}`.

    torch's settings, its random numbers and its number of threads stay as they are. Raises CheckpointError,
    ConfigError or ResourceError.
    """
    # The number of threads is the process's.
    words = [f"device={device}", "threads=0", *override_words(overrides)]
    return ObjectDetector(open_any(path_or_name, words), str(path_or_name))


def open_any(path_or_name: str | Path, words: Sequence[str]) -> LoadedDetector:
    """What `load` names. words: key=value words for its config."""
    source = find_checkpoint(path_or_name)
    if is_exported(source):
        return load_exported(source, words)
    saved = open_detector(source, words)
    with torch.random.fork_rng(devices=[]):
        return prepare_detector(saved._replace(config=with_overrides(saved.config, words)), str(path_or_name))


class ObjectDetector:
    """A trained detector: call it with an image, or with several. Made by `retinanet.load`.

    names: the names of its classes, by label.
    source: what it was loaded from.
    device: where it computes, such as "cpu".

    It may be called from several threads.
    """

    def __init__(self, saved: LoadedDetector, source: str) -> None:
        saved.detector.prepare()
        self.names = tuple(category.name for category in saved.categories)
        self.source = source
        self.device = str(saved.detector.device)
        self._saved = saved

    def __repr__(self) -> str:
        return f"<ObjectDetector {self.source}: {len(self.names)} classes, on {self.device}>"

    @overload
    def __call__(self, image: str | Path) -> FoundObjects | Any: ...

    @overload
    def __call__(self, image: list[Item] | tuple[Item, ...] | Iterator[Item]) -> list[FoundObjects]: ...

    @overload
    def __call__(self, image: Image.Image | NDArray[np.uint8] | Tensor) -> FoundObjects | Any: ...

    @overload
    def __call__(self, image: bytes | bytearray | memoryview) -> FoundObjects | Any: ...

    def __call__(self, image: Any) -> FoundObjects | list[FoundObjects] | Any:
        """Detect on an image, or on several.

        image: a path (str or Path), the bytes of a file or a file open for reading, a Pillow image, a uint8 array
            (height, width, 3) in RGB or a uint8 tensor (3, height, width) gives a `FoundObjects`. A list, tuple or
            iterator of such images, a folder, a glob pattern, or an array or tensor with a first dimension of images
            gives a list of them, in order; the images of a folder, without its subfolders, are ordered by name.
            OpenCV's arrays are BGR: pass `array[..., ::-1]`.

        Boxes are those of `retinanet predict`. Up to config `eval.batch_size` images share a forward pass, and config
        `data.workers` threads read them. Raises DataError naming every image that cannot be read.
        """
        if isinstance(image, str | Path):
            return self._in_path(image)
        if isinstance(image, Iterator) and not hasattr(image, "read"):
            image = list(image)
        if isinstance(image, list | tuple) or (isinstance(image, np.ndarray | Tensor) and image.ndim == 4):
            return self._in_all(image)
        return self._in_all([image])[0]

    def _in_path(self, path: str | Path) -> FoundObjects | list[FoundObjects]:
        if str(path).startswith("file://"):
            path = unquote(urlsplit(str(path)).path)
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://|data:[a-z]+/", str(path)):
            raise DataError(f"{str(path)[:80]}: is an address; download the image and give its path or its bytes")
        if not str(path):
            raise DataError("the path of the image is empty; give a file, or '.' for the current folder")
        place = Path(path).expanduser()
        if place.is_file():
            return self._in_all([path])[0]
        found = self._in_all(find_images([str(place)]))
        if left_out := files_passed_over([str(place)]):
            _log.warning("%s: %s", path, left_out)
        return found

    def _in_all(self, images: Sequence[ImageLike] | NDArray[np.uint8] | Tensor) -> list[FoundObjects]:
        config, categories = self._saved.config, self._saved.categories
        if not isinstance(images, np.ndarray | Tensor):
            images = [_content(image) for image in images]
            check_readable(images)
        depth_range = build_depth_range(config.data)
        if depth_range is None and not isinstance(images, np.ndarray | Tensor) and (note := few_levels_note(images)):
            _log.warning("%s", note)
        read = partial(
            load_pixels,
            resize_rule=build_resize_rule(config),
            depth_range=depth_range,
            rule=build_view_rule(config),
        )
        threads = config.data.workers if len(images) > 1 else 0
        with closing(prefetched(read, enumerate(images, start=1), threads, ahead=1)) as loaded:
            return [
                FoundObjects(
                    one.results,
                    categories,
                    source=source,
                    size=size_of(one),
                    image_id=number,
                    shown_score=config.eval.shown_score,
                    depth_range=depth_range,
                )
                for number, (source, one) in enumerate(
                    zip(images, detected(loaded, self._saved.detector, categories, config.eval.batch_size)), start=1
                )
            ]


def _content(image: Any) -> Any:
    """The bytes of an uploaded or open file, so that its picture can be drawn later; anything else as it is."""
    if isinstance(image, bytearray | memoryview):
        return bytes(image)
    if hasattr(image, "read") and not isinstance(image, Image.Image | Path):
        content = image.read()
        if not isinstance(content, bytes):
            raise DataError("a file is open for reading text; open it with mode 'rb'")
        return content
    return image


def size_of(one: LoadedImage) -> tuple[int, int]:
    """(height, width) of an image from `load_pixels`."""
    assert one.image is not None
    return int(one.image.shape[-2]), int(one.image.shape[-1])


def check_readable(images: Sequence[ImageLike]) -> None:
    """Raise one DataError that names every path that is no readable image, before anything is computed."""
    errors = []
    for image in images:
        if isinstance(image, str | Path):
            path = Path(image).expanduser()
            try:
                if path.is_dir():
                    raise DataError(f"{path}: is a folder; pass it alone, not in a list")
                if path.suffix.lower() != ARRAY_SUFFIX:
                    image_header(path)
            except DataError as error:
                errors.append(str(error))
    if errors:
        raise DataError(list_errors("images that cannot be read", errors))
