"""Fonts for any script: DejaVu Sans, which Matplotlib ships, and the system's for characters that it lacks.

DejaVu Sans has Latin, Greek, Cyrillic, Hebrew, Arabic and more; not Chinese, Japanese, Korean, Devanagari or Thai.
"""

import logging
from collections.abc import Iterator
from functools import cache
from itertools import groupby
from pathlib import Path

from PIL import ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont
_log = logging.getLogger(__name__)


@cache
def dejavu() -> Path:
    """The file of DejaVu Sans."""
    # Imported here: drawing needs no more of Matplotlib than where its files are.
    from matplotlib import get_data_path

    return Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"


@cache
def characters(path: Path) -> frozenset[int]:
    """Code points that a font file has; none for a file that cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(str(path)).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()


@cache
def system_fonts() -> tuple[Path, ...]:
    """The system's font files, regular ones without serifs first."""
    from matplotlib.font_manager import findSystemFonts

    def rank(path: Path) -> tuple[bool, bool, str]:
        name = path.stem.lower()
        plain = not any(word in name for word in ("bold", "italic", "oblique", "light", "thin", "black", "condensed"))
        return not plain, "serif" in name or "mono" in name, name

    return tuple(sorted((Path(name) for name in findSystemFonts()), key=rank))


@cache
def font_of(code: int) -> Path | None:
    """The file of the first font that has a character; None, with a warning, if no font has it."""
    if code < 0x250 or code in characters(dejavu()):
        return dejavu()
    found = next((path for path in system_fonts() if code in characters(path)), None)
    if found is None:
        if not _without_font():
            _log.warning(
                "no font on this machine has the character %s: pictures show it, and others of its kind, as boxes; "
                "install a font, such as the package fonts-noto-cjk (Chinese, Japanese, Korean) or fonts-noto-core",
                chr(code),
            )
        _without_font().append(chr(code))
    return found


@cache
def _without_font() -> list[str]:
    """The characters that no font has, as they are found; the first is warned of."""
    return []


def runs_of(text: str) -> Iterator[tuple[Path, str]]:
    """The text in pieces, each with a font that has its characters (DejaVu Sans where none has them)."""

    def font(character: str) -> Path:
        return font_of(ord(character)) or dejavu()

    yield from ((path, "".join(group)) for path, group in groupby(text, font))


@cache
def text_font(size: int, path: Path | None = None) -> Font:
    """A font of `size` pixels; DejaVu Sans if no file is given."""
    return ImageFont.truetype(path or dejavu(), size)


def text_width(text: str, size: int) -> float:
    """Pixels that a line takes."""
    return sum(text_font(size, path).getlength(piece) for path, piece in runs_of(text))


def draw_line(
    draw: ImageDraw.ImageDraw, start: tuple[float, float], text: str, size: int, fill: tuple[int, int, int]
) -> None:
    """Write a line of text from `start` on: its left end and its vertical centre."""
    left, middle = start
    for path, piece in runs_of(text):
        draw.text((left, middle), piece, fill=fill, font=text_font(size, path), anchor="lm")
        left += text_font(size, path).getlength(piece)


def families_for(text: str) -> list[str]:
    """Names of the fonts that show a text in Matplotlib, DejaVu Sans first; the others are made known to it."""
    from matplotlib.font_manager import FontProperties, fontManager

    families = ["DejaVu Sans"]
    for path in dict.fromkeys(path for path, _ in runs_of(text) if path != dejavu()):
        if all(Path(entry.fname) != path for entry in fontManager.ttflist):
            fontManager.addfont(path)
        families.append(FontProperties(fname=str(path)).get_name())
    return families
