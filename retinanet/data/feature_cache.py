"""The outputs of a frozen backbone for every image of a split, kept in one memory-mapped file.

A frozen backbone computes the same features in every epoch, so a network that trains only its pyramid and heads needs
neither pixels nor backbone once they are known. An image has one entry for each way in which training may mirror it.

File: the entries of all images one after the other, the levels of each from C3 (or C2) to C5, in the type that the
backbone computes them in; then the CRC-32 of those bytes (4 bytes, little endian).

Legend: level Cn is (c, H / 2^n, W / 2^n) of a canvas of H x W pixels.
"""

import math
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from retinanet.data.transforms import Mirroring
from retinanet.errors import ResourceError
from retinanet.files import replacing
from retinanet.structures import Batch

STRIDES = (4, 8, 16, 32)
"""Of C2 to C5."""

CHECKED_AT_ONCE = 2**24
"""Bytes."""


class FeatureForm(NamedTuple):
    """What the features of a split are."""

    channels: tuple[int, ...]
    """Of C3 to C5, or of C2 to C5."""
    dtype: torch.dtype
    channels_last: bool
    """Memory layout of the features."""
    mirrorings: tuple[Mirroring, ...]
    """The entries of each image."""
    canvases: tuple[tuple[int, int], ...]
    """(height, width) of the canvas of each image, in the order of the data set."""

    def shapes(self, image: int) -> list[tuple[int, int, int]]:
        """(c, h, w) of each level of an image."""
        height, width = self.canvases[image]
        strides = STRIDES[-len(self.channels) :]
        return [(c, height // s, width // s) for c, s in zip(self.channels, strides, strict=True)]

    def entry_size(self, image: int) -> int:
        """Number of values of one entry of an image."""
        return sum(math.prod(shape) for shape in self.shapes(image))

    def starts(self) -> list[int]:
        """Position of each image's first value, and one after the last value of all."""
        starts = [0]
        for image in range(len(self.canvases)):
            starts.append(starts[-1] + len(self.mirrorings) * self.entry_size(image))
        return starts

    def bytes(self) -> int:
        """Size of all values."""
        return self.starts()[-1] * self.dtype.itemsize


class FeatureCache:
    """Reads the features of a split; the file is mapped, not loaded."""

    def __init__(self, path: Path, form: FeatureForm) -> None:
        """path: a file of `write_features` with the same form."""
        self.form = form
        self._starts = form.starts()
        self._values = torch.from_file(str(path), shared=False, size=self._starts[-1], dtype=form.dtype)

    def entry(self, image: int, mirroring: Mirroring) -> list[Tensor]:
        """The levels of an image of the data set (by its position), mirrored. Not to be modified."""
        return _entry(self._values, self.form, self._starts[image], image, mirroring)

    def stacked(self, entries: list[tuple[int, Mirroring]]) -> list[Tensor]:
        """The levels of several images of one canvas, each (B, c, h, w), in the backbone's memory layout."""
        levels = zip(*(self.entry(image, mirroring) for image, mirroring in entries), strict=True)
        layout = torch.channels_last if self.form.channels_last else torch.contiguous_format
        return [torch.stack(level).contiguous(memory_format=layout) for level in levels]


def write_features(
    path: Path,
    form: FeatureForm,
    batches: Callable[[Mirroring], Iterator[tuple[list[int], Batch]]],
    extract: Callable[[Batch], list[Tensor]],
    on_batch: Callable[[int], None],
) -> None:
    """Compute and write the features of a split.

    batches: the images of a mirroring, each with its position in the data set; a position that comes again is passed
    over. extract: the levels of a batch. on_batch: called with the number of new entries after each batch.
    Raises ResourceError where the file does not fit or cannot be written, and the errors of `batches`.
    """
    needed = form.bytes() + 4
    path.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise ResourceError(
            f"{path}: data.feature_cache needs {needed / 2**30:.1f} GiB and {free / 2**30:.1f} GiB are free; free some "
            "space, set RETINANET_CACHE to a folder with space, or use data.feature_cache=false."
        )
    starts = form.starts()
    with replacing(path) as part:
        values = torch.from_file(str(part), shared=True, size=starts[-1], dtype=form.dtype)
        for mirroring in form.mirrorings:
            written: set[int] = set()
            for images, batch in batches(mirroring):
                levels = [level.cpu() for level in extract(batch)]
                new = [(at, image) for at, image in enumerate(images) if image not in written]
                for at, image in new:
                    for kept, level in zip(_entry(values, form, starts[image], image, mirroring), levels, strict=True):
                        kept.copy_(level[at])
                written.update(images)
                on_batch(len(new))
        del values
        with part.open("rb+") as file:
            checksum = _checksum(part, form.bytes())
            file.seek(form.bytes())
            file.write(checksum.to_bytes(4, "little"))


def is_intact(path: Path, form: FeatureForm) -> bool:
    """Whether `path` is a complete, undamaged file of this form."""
    size = form.bytes()
    if not path.is_file() or path.stat().st_size != size + 4:
        return False
    with path.open("rb") as file:
        file.seek(size)
        stated = int.from_bytes(file.read(4), "little")
    return stated == _checksum(path, size)


def _entry(values_N: Tensor, form: FeatureForm, start: int, image: int, mirroring: Mirroring) -> list[Tensor]:
    """Views of one entry's levels in all values."""
    start += form.mirrorings.index(mirroring) * form.entry_size(image)
    levels = []
    for channels, height, width in form.shapes(image):
        flat = values_N[start : start + channels * height * width]
        start += len(flat)
        if form.channels_last:
            levels.append(flat.view(height, width, channels).permute(2, 0, 1))
        else:
            levels.append(flat.view(channels, height, width))
    return levels


def _checksum(path: Path, size: int) -> int:
    """CRC-32 of the first `size` bytes of a file."""
    value = 0
    with path.open("rb") as file:
        while size > 0 and (piece := file.read(min(CHECKED_AT_ONCE, size))):
            value = zlib.crc32(piece, value)
            size -= len(piece)
    return value
