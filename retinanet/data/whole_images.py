"""Decoding the image of a record, or its tile of it."""

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import Lock

from torch import Tensor

from retinanet.data.coco import CocoDataset, ImageRecord
from retinanet.data.images import decode_image
from retinanet.errors import DataError

RECENT = 2
"""Decoded images that are kept for their next tile: evaluation needs one after the other."""


class RecentImages:
    """The images that were decoded last. Threads that need the same one at once decode it once."""

    def __init__(self, most: int = RECENT) -> None:
        self._most = most
        self._kept: OrderedDict[Path, Future[Tensor]] = OrderedDict()
        self._lock = Lock()

    def get(self, path: Path, make: Callable[[], Tensor]) -> Tensor:
        """The image of `path`, from `make` where it is not kept. What `make` raises is raised in every waiting call."""
        with self._lock:
            future = self._kept.get(path)
            is_new = future is None
            if future is None:
                future = self._kept[path] = Future()
                while len(self._kept) > self._most:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(path)
        if is_new:
            try:
                future.set_result(make())
            except BaseException as error:
                future.set_exception(error)
        return future.result()


def decode_whole(record: ImageRecord, dataset: CocoDataset) -> Tensor:
    """(3, h, w) uint8 of the whole image of a record. Raises DataError where its size is not that of the annotation."""
    height, width = (record.height, record.width) if record.tile is None else record.tile.image_size
    image = decode_image(record.path, dataset.depth_range, warn=False)
    if image.shape[-2:] != (height, width):
        raise DataError(
            f"{record.path}: is {image.shape[-2]}x{image.shape[-1]} (height x width) but "
            f"{dataset.annotation_file} says {height}x{width}; correct the entry of image id {record.id}."
        )
    return image


def crop_tile(image: Tensor, record: ImageRecord) -> Tensor:
    """The part of the whole image (3, H, W) that a record is of; it shares memory with it."""
    if record.tile is None:
        return image
    top, left = record.tile.top, record.tile.left
    return image[:, top : top + record.height, left : left + record.width]
