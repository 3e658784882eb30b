"""Reading image files as RGB bytes, upright, or saying exactly why that cannot be done.

JPEG is decoded by torchvision; everything else, and CMYK JPEG, by Pillow. Size and rotation come from our own
reading of the JPEG and PNG structure, so that `image_header` and `decode_image` can never disagree and a file
that was cut short is noticed without decoding a pixel.
"""

import io
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, NamedTuple, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg

from retinanet.data.find_images import FORMATS
from retinanet.errors import DataError

MAX_PIXELS = 89_478_485
"""Most pixels of one image, Pillow's own limit against decompression bombs (256 MiB as RGB bytes)."""


_ORIENTATION_TAG = 0x0112
_TIFF_WIDTH_TAG, _TIFF_HEIGHT_TAG = 256, 257
_TAIL = 65_536  # bytes at the end of a JPEG that are searched for its end marker before all of it is

_PILLOW_ERRORS = (
    OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, AttributeError, OverflowError,
    RuntimeError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip
"""What Pillow's plugins raise on damaged files; found by feeding them damaged files."""


class ImageHeader(NamedTuple):
    """What a file says about its image before any pixel is decoded."""

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
    if header.format == "plain JPEG":
        try:
            image = decode_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.RGB)
        except RuntimeError:  # Pillow either manages (arithmetic coding) or says more clearly what is wrong
            image = _decode_with_pillow(data, path)
    else:
        image = _decode_with_pillow(data, path)
    if header.format == "TIFF":  # Pillow's reader of this one format rotates by itself
        return image
    return _turn_upright(image, header.orientation)


def _refuse_unreadable(path: Path, error: OSError) -> NoReturn:
    if isinstance(error, FileNotFoundError):
        raise DataError(f"{path}: no such image file; check the image folder and the file name") from error
    raise DataError(f"{path}: the image cannot be read ({error.strerror or error})") from error


def _parse_header(file: BinaryIO, path: Path) -> ImageHeader:
    start = file.read(8)
    if not start:
        raise DataError(f"{path}: the image file is empty (0 bytes); copy or download it again")
    if start.startswith(b"\xff\xd8\xff"):
        header = _parse_jpeg(file, path)
    elif start == b"\x89PNG\r\n\x1a\n":
        header = _parse_png(file, path)
    else:
        header = _parse_with_pillow(file, path)
    if header.stored_height * header.stored_width > MAX_PIXELS:
        raise DataError(
            f"{path}: {header.stored_width} x {header.stored_height} pixels are more than the {MAX_PIXELS:,} "
            "that one image may have; cut it into tiles or shrink it"
        )
    if min(header.stored_height, header.stored_width) < 1:
        raise DataError(f"{path}: the image says it has no pixels ({header.stored_width} x {header.stored_height})")
    return header


def _refuse_truncated(path: Path, what: str) -> NoReturn:
    raise DataError(f"{path}: the image is truncated ({what}); copy or download it again")


def _parse_jpeg(file: BinaryIO, path: Path) -> ImageHeader:
    """Walks the marker segments up to the first scan (ITU-T T.81, annex B), then looks for the end marker."""
    file.seek(2)
    frame: tuple[int, int, int, int] | None = None
    orientation = 1
    while True:
        marker = _next_marker(file)
        if marker is None or marker == 0xD9:
            _refuse_truncated(path, "the JPEG ends before its pixels")
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:  # markers without a segment
            continue
        length = int.from_bytes(file.read(2), "big")
        if marker == 0xDA:
            break
        after = file.tell() + max(length, 2) - 2
        if marker == 0xE1 and orientation == 1:
            payload = file.read(length - 2) if length > 2 else b""
            if payload.startswith(b"Exif\0\0"):
                orientation = _orientation_of(payload[6:])
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a start of frame
            fields = file.read(6)
            if len(fields) == 6:
                frame = struct.unpack(">BHHB", fields)
        file.seek(after)
    if frame is None:
        raise DataError(f"{path}: a damaged JPEG: its size is nowhere said; copy or download it again")
    if not _has_end_marker(file):
        _refuse_truncated(path, "the end-of-image marker of the JPEG is missing")
    bits, height, width, components = frame
    plain = bits == 8 and components in (1, 3)
    return ImageHeader(height, width, orientation, format="plain JPEG" if plain else "JPEG")


def _next_marker(file: BinaryIO) -> int | None:
    """Code of the next marker; stray bytes before it are skipped, as decoders do. None at the end of the file."""
    byte = file.read(1)
    while byte:
        if byte == b"\xff":
            while byte == b"\xff":
                byte = file.read(1)
            if byte and byte != b"\0":
                return byte[0]
        byte = file.read(1)
    return None


def _has_end_marker(file: BinaryIO) -> bool:
    """Whether an end-of-image marker follows; entropy-coded data never holds its two bytes (T.81, B.1.1.5)."""
    scan, end = file.tell(), file.seek(0, io.SEEK_END)
    file.seek(max(scan, end - 2))
    if file.read() == b"\xff\xd9":  # as nearly every file ends
        return True
    tail = max(scan, end - _TAIL)
    file.seek(tail)
    if b"\xff\xd9" in file.read():
        return True
    if tail == scan:
        return False
    file.seek(scan)
    return b"\xff\xd9" in file.read()


def _parse_png(file: BinaryIO, path: Path) -> ImageHeader:
    """Walks the chunks to IEND (PNG specification, third edition, section 5.3)."""
    end = file.seek(0, io.SEEK_END)
    at = 8
    size: tuple[int, int] | None = None
    orientation = 1
    while True:
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            _refuse_truncated(path, "the IEND chunk of the PNG is missing")
        length, kind = struct.unpack(">I4s", head)
        at += length + 12
        if at > end:
            _refuse_truncated(path, f"the PNG ends {at - end:,} bytes before the end of a chunk")
        if kind == b"IHDR" and length >= 8:
            size = struct.unpack(">II", file.read(8))
        elif kind == b"eXIf":
            orientation = _orientation_of(file.read(length))
        elif kind == b"IEND":
            break
    if size is None:
        raise DataError(f"{path}: a damaged PNG: its size is nowhere said; copy or download it again")
    return ImageHeader(size[1], size[0], orientation, format="PNG")


def _orientation_of(exif: bytes) -> int:
    """The orientation tag of an EXIF block (TIFF 6.0, section 2: header, then the entries of the first folder)."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return 1
    (folder,) = struct.unpack_from(order + "I", exif, 4)
    if folder + 2 > len(exif):
        return 1
    (count,) = struct.unpack_from(order + "H", exif, folder)
    for at in range(folder + 2, min(folder + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind = struct.unpack_from(order + "HH", exif, at)
        if tag == _ORIENTATION_TAG:
            (value,) = struct.unpack_from(order + ("I" if kind == 4 else "H"), exif, at + 8)
            return value if 1 <= value <= 8 else 1
    return 1


def _parse_with_pillow(file: BinaryIO, path: Path) -> ImageHeader:
    file.seek(0)
    try:
        with Image.open(file, formats=FORMATS) as image:
            width, height = image.size
            orientation = image.getexif().get(_ORIENTATION_TAG, 1)
            format_name = image.format or "unknown"
            if format_name == "TIFF":  # Pillow versions differ in whether `size` is rotated before load
                width, height = image.tag_v2[_TIFF_WIDTH_TAG], image.tag_v2[_TIFF_HEIGHT_TAG]  # type: ignore[attr-defined]
    except Image.UnidentifiedImageError as error:
        raise DataError(f"{path}: not an image (none of {', '.join(FORMATS)}), or its start is damaged") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: far more than the {MAX_PIXELS:,} pixels that one image may have") from error
    except _PILLOW_ERRORS as error:
        raise DataError(f"{path}: the image's header is damaged ({error})") from error
    valid = isinstance(orientation, int) and 1 <= orientation <= 8
    return ImageHeader(int(height), int(width), int(orientation) if valid else 1, format=format_name)


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
    """(3, h, w) as stored -> (3, H, W) as meant, by EXIF 2.32's table for tag Orientation."""
    if orientation >= 5:
        image = image.transpose(1, 2)
    across = orientation in (2, 3, 6, 7)
    down = orientation in (3, 4, 7, 8)
    dims = [dim for dim, wanted in ((1, down), (2, across)) if wanted]
    return image.flip(dims) if dims else image
