"""What a detector sees of an image: the whole or overlapping tiles of it, at several scales, also mirrored.

Frames: a window is in pixels of the stored image; boxes in a tile are in pixels of the tile.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from retinanet.data.coco import CocoDataset, ImageRecord, Tile, noted
from retinanet.data.crop import crop_boxes
from retinanet.data.loose_images import image_batch
from retinanet.data.transforms import NO_AUGMENT, Augment, ResizeRule
from retinanet.structures import Batch


class Window(NamedTuple):
    """A part of an image, in its pixels."""

    top: int
    left: int
    height: int
    width: int

    @property
    def corners(self) -> tuple[int, int, int, int]:
        """(x1, y1, x2, y2)."""
        return self.left, self.top, self.left + self.width, self.top + self.height


class Look(NamedTuple):
    """One way in which every window is seen."""

    scale: float
    """Size in the network as a multiple of the usual one."""
    mirrored: bool
    """Left to right."""

    @property
    def augment(self) -> Augment:
        """The change of the pixels, which is not random."""
        return NO_AUGMENT._replace(flip=float(self.mirrored))


USUAL_LOOK = Look(scale=1.0, mirrored=False)


class ViewRule(NamedTuple):
    """How images are seen; the fields are those of config `data` and `eval`."""

    tile: int | None
    """Side of the windows in pixels; None: whole images."""
    overlap: float
    """Least part of a tile's side that it shares with the next one."""
    flip: bool
    scales: tuple[float, ...]

    def looks(self) -> list[Look]:
        """Every scale, and every scale mirrored."""
        return [Look(scale, mirrored) for mirrored in (False, True)[: 1 + self.flip] for scale in self.scales]

    def windows(self, height: int, width: int) -> list[Window]:
        """Those of an image of this size, row by row."""
        if self.tile is None:
            return [Window(top=0, left=0, height=height, width=width)]
        return tile_windows(height, width, self.tile, self.overlap)


WHOLE_IMAGES = ViewRule(tile=None, overlap=0.0, flip=False, scales=(1.0,))
"""Each image once, as a whole."""


class InputView(NamedTuple):
    """A view of an image, ready for the network."""

    batch: Batch
    """Of this view alone."""
    window: Window
    mirrored: bool


def tile_starts(extent: int, tile: int, overlap: float) -> list[int]:
    """Where the windows of one axis begin: evenly spread, the first at 0, the last ending at `extent`.

    Neighbours share at least `overlap` of `tile` pixels. An axis of at most `tile` pixels has one window.
    """
    if extent <= tile:
        return [0]
    stride = max(1, int(tile * (1 - overlap)))
    steps = -(-(extent - tile) // stride)
    return [(extent - tile) * step // steps for step in range(steps + 1)]


def tile_windows(height: int, width: int, tile: int, overlap: float) -> list[Window]:
    """The windows of an image, row by row: tile x tile pixels, or the image's own sides where those are smaller."""
    return [
        Window(top=top, left=left, height=min(tile, height), width=min(tile, width))
        for top in tile_starts(height, tile, overlap)
        for left in tile_starts(width, tile, overlap)
    ]


def image_views(image: Tensor, image_id: int, resize_rule: ResizeRule, rule: ViewRule) -> Iterator[InputView]:
    """All views of an image (3, h, w) uint8; those of one scale come together."""
    windows = rule.windows(int(image.shape[-2]), int(image.shape[-1]))
    for look in rule.looks():
        scaled = resize_rule.scaled(look.scale)
        for window in windows:
            x1, y1, x2, y2 = window.corners
            batch = image_batch(image[:, y1:y2, x1:x2], image_id, scaled, look.augment)
            yield InputView(batch, window, look.mirrored)


def window_of(record: ImageRecord) -> Window:
    """The part of its image that a record is of."""
    top, left = (0, 0) if record.tile is None else (record.tile.top, record.tile.left)
    return Window(top=top, left=left, height=record.height, width=record.width)


def tiled(dataset: CocoDataset, rule: ViewRule, *, empty: bool = True) -> CocoDataset:
    """The data set with a record for each tile; as it is where `rule` has no tiles.

    A record has its image's id. An object that keeps less than `crop.LEAST_VISIBLE` of its area in a tile is a
    crowd region there, which training ignores. empty: keep tiles without objects. The ground truth stays that of whole
    images.
    """
    if rule.tile is None:
        return dataset
    cut = [tile for record in dataset.images for tile in tiles_of(record, rule)]
    tiles = tuple(tile for tile in cut if empty or len(tile.boxes_G4))
    note = f"cut into {len(tiles):,} tiles; objects where tiles overlap are counted in each"
    return noted(replace(dataset, images=tiles), note)


def tiles_of(record: ImageRecord, rule: ViewRule) -> list[ImageRecord]:
    """The tiles of an image."""
    size = (record.height, record.width)
    found = []
    for window in rule.windows(*size):
        boxes_G4, classes_G, crowd_C4 = crop_boxes(record.boxes_G4, record.classes_G, record.crowd_C4, window)
        found.append(
            ImageRecord(
                id=record.id,
                path=record.path,
                height=window.height,
                width=window.width,
                boxes_G4=boxes_G4,
                classes_G=classes_G,
                crowd_C4=crowd_C4,
                tile=Tile(window.top, window.left, size),
            )
        )
    return found


def count_views(images: Sequence[ImageRecord], rule: ViewRule) -> int:
    """How many views the images have together."""
    return len(rule.looks()) * sum(len(rule.windows(record.height, record.width)) for record in images)
