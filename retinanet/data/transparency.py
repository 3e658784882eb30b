"""Pixels that an alpha channel hides, of which the stored colours are read."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from retinanet.data.find_images import FORMATS, PILLOW_ERRORS
from retinanet.data.notes import counted

SUFFIXES = frozenset((".png", ".apng", ".tif", ".tiff", ".gif", ".webp", ".avif"))
"""Suffixes of files that may have an alpha channel."""
MOST_READ = 16
"""Files of a data set that are opened for a note."""

_HIDDEN = 128  # of 255: a pixel of a lower alpha is mostly background
_SHARE = 0.01  # of hidden pixels that is worth a note


def hides_pixels(path: Path) -> bool:
    """Whether the alpha channel of a file hides pixels; not where it cannot be opened, which is reported elsewhere."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            has_alpha = "A" in image.getbands() or "transparency" in image.info
            histogram = image.convert("RGBA").getchannel("A").histogram() if has_alpha else [0]
    except PILLOW_ERRORS:
        return False
    return sum(histogram[:_HIDDEN]) > _SHARE * max(sum(histogram), 1)


def transparency_note(paths: Sequence[Path]) -> str:
    """A note on hidden pixels in a data set's images, of which at most MOST_READ are opened; empty without any."""
    able = [path for path in paths if path.suffix.lower() in SUFFIXES]
    sample = able[:: max(len(able) // MOST_READ, 1)][:MOST_READ]
    hidden = [path.name for path in sample if hides_pixels(path)]
    if not hidden:
        return ""
    looked = "" if len(sample) == len(able) else f" ({len(sample)} of {len(able):,} such files were read)"
    kind = "images have transparent pixels, which are read in the colours that are stored, often black"
    return (
        f"{counted(len(hidden), kind)}, such as {hidden[0]}{looked}; put them on a background if they should look as "
        "viewers show them"
    )
