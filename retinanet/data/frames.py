"""Files of several pages or frames, of which only the first is read: how many a file has, and a note on that."""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from retinanet.data.find_images import FORMATS, PILLOW_ERRORS

SUFFIXES = frozenset((".gif", ".png", ".apng", ".webp", ".tif", ".tiff", ".mpo", ".avif", ".avifs"))
"""Suffixes of files that may have several. A .jpg is not among them: in a phone's, the other images say how bright or
how far away the things in the first are."""

_SUBFILE_TYPE_TAG = 254
_REDUCED, _MASK = 1, 4
"""Bits of this tag: a smaller copy of another page, and its mask (TIFF 6.0, section 8)."""
_SHORT = 3
"""The type of a tag whose values have two bytes."""
_MOST_PAGES, _MOST_TAGS = 10_000, 4_096


def count_frames(file: BinaryIO, format_name: str) -> int:
    """Pages or frames of an image file, without smaller copies and masks of pages; decodes none.

    format_name: Pillow's. 1 for a damaged file: its first one will be read, or refused then.
    """
    file.seek(0)
    if format_name == "TIFF":
        return max(_count_pages(file), 1)
    try:
        with Image.open(file, formats=[*FORMATS, "MPO"]) as image:
            return int(getattr(image, "n_frames", 1))
    except PILLOW_ERRORS:
        return 1


def _count_pages(file: BinaryIO) -> int:
    """Walks the directories of a TIFF (TIFF 6.0, section 2), or of a BigTIFF, as far as they are whole."""
    start = file.read(16)
    order = "<" if start.startswith(b"II") else ">"
    is_big = start[2:4] in (b"+\0", b"\0+")
    count_format, offset_format, entry_bytes = ("Q", "Q", 20) if is_big else ("H", "I", 12)
    pages, seen = 0, set[int]()
    try:
        (at,) = struct.unpack_from(order + offset_format, start, 8 if is_big else 4)
        while at and at not in seen and len(seen) < _MOST_PAGES:
            seen.add(at)
            file.seek(at)
            (count,) = struct.unpack(order + count_format, file.read(struct.calcsize(count_format)))
            entries = file.read(min(count, _MOST_TAGS) * entry_bytes)
            kind = 0
            for place in range(0, len(entries) - entry_bytes + 1, entry_bytes):
                tag, size = struct.unpack_from(f"{order}HH", entries, place)
                if tag == _SUBFILE_TYPE_TAG:
                    value = "H" if size == _SHORT else "I"
                    (kind,) = struct.unpack_from(order + value, entries, place + entry_bytes - (8 if is_big else 4))
            (at,) = struct.unpack(order + offset_format, file.read(struct.calcsize(offset_format)))
            pages += not kind & (_REDUCED | _MASK)
    except (struct.error, OverflowError, OSError):
        return pages
    return pages


def frames_note(counts: Mapping[Path, int]) -> str:
    """A note on the files of more than one page or frame; empty where there are none."""
    several = [(path, count) for path, count in counts.items() if count > 1]
    if not several:
        return ""
    path, count = several[0]
    what = f"{len(several):,} images have" if len(several) > 1 else "1 image has"
    return f"{what} several pages or frames, of which only the first is read, such as {path.name} ({count:,})"
