"""What of an image file is not read: further frames or pages, and transparency."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from retinanet.data.find_images import FORMATS
from retinanet.data.images import PILLOW_ERRORS
from retinanet.data.notes import counted

SUFFIXES = frozenset((".png", ".apng", ".tif", ".tiff", ".gif", ".webp", ".avif"))
"""Suffixes of files that may have frames, pages or an alpha channel."""
MOST_READ = 16
"""Files of a data set that are opened for a note."""

_HIDDEN = 128  # of 255: a pixel of a lower alpha is mostly background
_SHARE = 0.01  # of hidden pixels that is worth a note


class LeftOut(NamedTuple):
    """What a file has that is not read."""

    frames: bool
    """It has more than one frame or page."""
    transparent: bool
    """Its alpha channel hides pixels."""


def left_out(path: Path) -> LeftOut:
    """What is not read of a file; nothing where it cannot be opened, which is reported elsewhere."""
    if path.suffix.lower() not in SUFFIXES:
        return LeftOut(frames=False, transparent=False)
    try:
        with Image.open(path, formats=FORMATS) as image:
            frames = getattr(image, "n_frames", 1) > 1
            has_alpha = "A" in image.getbands() or "transparency" in image.info
            histogram = image.convert("RGBA").getchannel("A").histogram() if has_alpha else [0]
    except PILLOW_ERRORS:
        return LeftOut(frames=False, transparent=False)
    hidden = sum(histogram[:_HIDDEN])
    return LeftOut(frames=frames, transparent=has_alpha and hidden > _SHARE * max(sum(histogram), 1))


def left_out_notes(paths: Sequence[Path]) -> list[str]:
    """Sentences on what is not read of a data set's images, of which at most MOST_READ are opened."""
    able = [path for path in paths if path.suffix.lower() in SUFFIXES]
    sample = able[:: max(len(able) // MOST_READ, 1)][:MOST_READ]
    found = [(path, left_out(path)) for path in sample]
    looked = "" if len(sample) == len(able) else f" ({len(sample)} of {len(able):,} such files were looked at)"
    frames = [path.name for path, lost in found if lost.frames]
    hidden = [path.name for path, lost in found if lost.transparent]
    notes = []
    if frames:
        kind = "images have several frames or pages, of which the first is used"
        notes.append(f"{counted(len(frames), kind)}, such as {frames[0]}{looked}")
    if hidden:
        kind = "images have transparent pixels, which are read in the colours that are stored, often black"
        notes.append(
            f"{counted(len(hidden), kind)}, such as {hidden[0]}{looked}; put them on a background if they should look "
            "as viewers show them"
        )
    return notes
