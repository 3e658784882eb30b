"""Reading image files as upright RGB bytes, or reporting exactly why that is impossible.

JPEG is decoded by torchvision; everything else, and CMYK JPEG, by Pillow. `image_header` and `decode_image` read size
and rotation with the same code, so they cannot disagree. It also checks for the end of a JPEG or PNG, so that a
truncated file is noticed without decoding a pixel.
"""

import io
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from retinanet.data.find_images import FORMATS
from retinanet.errors import DataError

MAX_PIXELS = 89_478_485
"""Maximum pixels of one image: Pillow's own limit against decompression bombs (256 MiB as RGB bytes)."""

_ORIENTATION_TAG = 0x0112
_TIFF_WIDTH_TAG, _TIFF_HEIGHT_TAG = 256, 257
_TAIL = 65_536  # bytes at the end of a JPEG that are searched for its end marker before the whole scan is

_PILLOW_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, AttributeError, OverflowError,
    RuntimeError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow's plugins raise on damaged files; found by feeding them damaged files."""


class ImageHeader(NamedTuple):
    """What a file states about its image before any pixel is decoded."""

    stored_height: int
    stored_width: int
    orientation: int
    """EXIF orientation, 1 to 8; 1 where there is none or it is invalid."""
    format: str
    """Pillow's name of the format; "plain JPEG" is one of 8 bits, grey or three channels (torchvision decodes it)."""

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels after EXIF rotation."""
        if self.orientation >= 5:
            return self.stored_width, self.stored_height
        return self.stored_height, self.stored_width


def image_header(path: Path) -> tuple[int, int]:
    """(height, width) in pixels after EXIF rotation; see `read_header`."""
    return read_header(path).size


def read_header(path: Path) -> ImageHeader:
    """Size and rotation without decoding pixels; a JPEG or PNG whose end is missing is noticed.

    Raises DataError naming the file: missing, unreadable, empty, not an image, truncated, over MAX_PIXELS.
    """
    try:
        with path.open("rb") as file:
            return _parse_header(file, path)
    except OSError as error:
        _refuse_unreadable(path, error)


def decode_image(path: Path) -> Tensor:
    """(3, H, W) uint8 RGB with the EXIF rotation applied; the memory layout is the decoder's.

    Grey is repeated over the channels, 16-bit grey is scaled to 8 bits, float images are taken as 0..1 or 0..255,
    an alpha channel is dropped (colours stay as stored), and of an animation the first frame is taken.
    Raises DataError naming the file: all that `read_header` refuses, and pixels that cannot be decoded.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        _refuse_unreadable(path, error)
    header = _parse_header(io.BytesIO(data), path)
    image = _decode_plain_jpeg(data) if header.format == "plain JPEG" else None
    if image is None:
        image = _decode_with_pillow(data, path)
    if header.format == "TIFF":  # Pillow's reader of this one format rotates by itself
        return image
    return _turn_upright(image, header.orientation)


def _decode_plain_jpeg(data: bytes) -> Tensor | None:
    """(3, h, w) uint8 RGB as stored; None where Pillow manages (arithmetic coding) or names the error better."""
    try:
        image: Tensor = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
    except RuntimeError:
        return None
    return image


def _refuse_unreadable(path: Path, error: OSError) -> NoReturn:
    if isinstance(error, FileNotFoundError):
        raise DataError(f"{path}: no such image file; check the image folder and the file name") from error
    raise DataError(f"{path}: the image cannot be read ({error.strerror or error})") from error


def _parse_header(file: BinaryIO, path: Path) -> ImageHeader:
    start = file.read(8)
    if not start:
        raise DataError(f"{path}: the image file is empty (0 bytes); copy or download it again")
    file.seek(0)
    if start.startswith(b"\xff\xd8\xff"):
        header = _parse_jpeg(file, path)
    elif start == b"\x89PNG\r\n\x1a\n":
        header = _parse_png(file, path)
    else:
        header = _parse_other(file, path)
    if header.stored_height * header.stored_width > MAX_PIXELS:
        raise DataError(
            f"{path}: {header.stored_width} x {header.stored_height} pixels are more than the {MAX_PIXELS:,} "
            "that one image may have; cut it into tiles or shrink it"
        )
    if min(header.stored_height, header.stored_width) < 1:
        raise DataError(f"{path}: the image has no pixels ({header.stored_width} x {header.stored_height})")
    return header


def _refuse_truncated(path: Path, reason: str) -> NoReturn:
    raise DataError(f"{path}: the image is truncated ({reason}); copy or download it again")


class _JpegSegments(JpegImageFile):
    """Pillow's reader of the marker segments up to the first scan (ITU-T T.81, annex B)."""

    def _read_dpi_from_exif(self) -> None:
        """Not needed, and a damaged EXIF block would make it refuse the image."""


def _parse_jpeg(file: BinaryIO, path: Path) -> ImageHeader:
    try:
        image = _JpegSegments(file)
    except _PILLOW_ERRORS as error:
        raise DataError(f"{path}: the JPEG's header is damaged or truncated ({error})") from error
    if not _has_end_marker(file):
        _refuse_truncated(path, "the end-of-image marker of the JPEG is missing")
    return ImageHeader(
        stored_height=image.height,
        stored_width=image.width,
        orientation=_orientation_of(image.info.get("exif", b"")),
        format="plain JPEG" if image.bits == 8 and image.layers in (1, 3) else "JPEG",
    )


def _has_end_marker(file: BinaryIO) -> bool:
    """Whether an end-of-image marker follows; entropy-coded data never holds its two bytes (T.81, B.1.1.5)."""
    scan, end = file.tell(), file.seek(0, io.SEEK_END)
    # Nearly every file ends with the marker; others have a few bytes after it, some a whole video.
    for start in (end - 2, end - _TAIL, scan):
        file.seek(max(scan, start))
        if b"\xff\xd9" in file.read():
            return True
    return False


def _parse_png(file: BinaryIO, path: Path) -> ImageHeader:
    """Walks the chunks to IEND (PNG specification, third edition, section 5.3); eXIf may come after the pixels."""
    end = file.seek(0, io.SEEK_END)
    at, kind = 8, b""
    width = height = 0
    orientation = 1
    while kind != b"IEND":
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            _refuse_truncated(path, "the IEND chunk of the PNG is missing")
        length, kind = struct.unpack(">I4s", head)
        at += length + 12
        if at > end:
            _refuse_truncated(path, f"the PNG ends {at - end:,} bytes before the end of a chunk")
        if kind == b"IHDR" and length >= 8:
            width, height = struct.unpack(">II", file.read(8))
        elif kind == b"eXIf":
            orientation = _orientation_of(file.read(length))
    return ImageHeader(stored_height=height, stored_width=width, orientation=orientation, format="PNG")


def _orientation_of(exif_block: bytes) -> int:
    """The orientation of an EXIF block; 1 where it has none or is damaged."""
    if not exif_block:
        return 1
    exif = Image.Exif()
    try:
        exif.load(exif_block)
        return _valid_orientation(exif.get(_ORIENTATION_TAG))
    except _PILLOW_ERRORS:
        return 1


def _valid_orientation(value: object) -> int:
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _parse_other(file: BinaryIO, path: Path) -> ImageHeader:
    try:
        with Image.open(file, formats=FORMATS) as image:
            width, height = image.size
            orientation = _valid_orientation(image.getexif().get(_ORIENTATION_TAG))
            format_name = image.format or "unknown"
            if isinstance(image, TiffImageFile):  # Pillow versions differ in whether `size` is rotated before load
                width, height = image.tag_v2[_TIFF_WIDTH_TAG], image.tag_v2[_TIFF_HEIGHT_TAG]
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: not an image (none of {', '.join(FORMATS)}), or its header is damaged") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: far more than the {MAX_PIXELS:,} pixels that one image may have") from error
    except _PILLOW_ERRORS as error:
        raise DataError(f"{path}: the image's header is damaged ({error})") from error
    return ImageHeader(stored_height=int(height), stored_width=int(width), orientation=orientation, format=format_name)


def _decode_with_pillow(data: bytes, path: Path) -> Tensor:
    """(3, h, w) uint8 RGB as stored; only a TIFF comes rotated."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            image.load()
            pixels = _to_rgb(image, path)
    except DataError:
        raise
    except _PILLOW_ERRORS as error:
        raise DataError(f"{path}: the image cannot be decoded ({error}); it is damaged or truncated") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _to_rgb(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 of a loaded image of any mode; `Image.convert` alone clips 16-bit and float pixels."""
    if image.mode.startswith("I"):  # "I;16" and its byte orders; "I" is how Pillow opens other 16-bit files
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65_535:
            raise DataError(f"{path}: integer pixels outside 0..65535; store it with 8 or 16 bits a channel")
        return _repeat_grey((values * 255 + 32_767) // 65_535)
    if image.mode == "F":
        levels = np.asarray(image)
        if not np.isfinite(levels).all() or levels.min() < 0 or levels.max() > 255:
            raise DataError(f"{path}: float pixels must lie in 0..1 or 0..255; store it with 8 bits a channel")
        return _repeat_grey(np.rint(levels * 255 if levels.max() <= 1 else levels))
    if image.mode in ("RGBa", "La"):
        image = image.convert(image.mode.upper())
    return np.array(image.convert("RGB"))


def _repeat_grey(grey: NDArray[np.generic]) -> NDArray[np.uint8]:
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


def _turn_upright(image: Tensor, orientation: int) -> Tensor:
    """(3, h, w) as stored -> (3, H, W) as viewers show it, by EXIF 2.32's table for tag Orientation."""
    if orientation >= 5:
        image = image.transpose(1, 2)
    across = orientation in (2, 3, 6, 7)
    down = orientation in (3, 4, 7, 8)
    dims = [dim for dim, mirrored in ((1, down), (2, across)) if mirrored]
    return image.flip(dims) if dims else image
