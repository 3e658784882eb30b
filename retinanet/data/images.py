"""Reading image files as upright RGB bytes, or reporting exactly why that is impossible.

JPEG is decoded by torchvision; everything else, and CMYK JPEG, by Pillow. `image_header` and `decode_image` read size
and rotation with the same code, so they cannot disagree. It also checks for the end of a JPEG or PNG, so that a
truncated file is noticed without decoding a pixel.
"""

import io
import logging
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple, NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import TiffImageFile
from torch import Tensor
from torchvision.io import ImageReadMode, decode_jpeg, decode_png

from retinanet.data.find_images import FORMATS, PILLOW_ERRORS
from retinanet.data.frames import SUFFIXES, count_frames
from retinanet.data.pixel_depth import DepthRange, Levels, bytes_of_levels, describe_few_levels
from retinanet.data.unread_formats import unread_remedy
from retinanet.errors import DataError
from retinanet.files import wrong_download

_log = logging.getLogger(__name__)

MAX_PIXELS = 89_478_485
"""Maximum pixels of one image: Pillow's own limit against decompression bombs (256 MiB as RGB bytes)."""

DEEP_SUFFIXES = frozenset((".png", ".tif", ".tiff", ".pgm", ".pnm", ".ppm"))
"""Suffixes of files that may have more than 8 bits a channel."""

_ORIENTATION_TAG = 0x0112
_TIFF_WIDTH_TAG, _TIFF_HEIGHT_TAG = 256, 257
_TAIL = 65_536  # bytes at the end of a JPEG that are searched for its end marker before the whole scan is


class ImageHeader(NamedTuple):
    """What a file states about its image before any pixel is decoded."""

    stored_height: int
    stored_width: int
    orientation: int
    """EXIF orientation, 1 to 8; 1 where there is none or it is invalid."""
    format: str
    """Pillow's name of the format; "plain JPEG" is one of 8 bits, grey or three channels (torchvision decodes it)."""
    is_deep: bool = False
    """Whether pixels have more than 8 bits a channel, as far as they are read so."""
    frames: int = 1
    """Pages or frames, see `count_frames`; 1 where they are not counted."""

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
            return _parse_header(file, path, count=path.suffix.lower() in SUFFIXES)
    except OSError as error:
        _refuse_unreadable(path, error)


def decode_image(path: Path, depth_range: DepthRange | None = None, *, warn: bool = True) -> Tensor:
    """(3, H, W) uint8 RGB with the EXIF rotation applied; the memory layout is the decoder's.

    Grey is repeated over the channels, an alpha channel is dropped (colours stay as stored), and of an animation the
    first frame is taken. depth_range: what of pixels of more than 8 bits becomes 0..255; None scales 16 bits to 8 and
    takes float images as 0..1 or 0..255. warn: log where that leaves few levels of 16 bits.
    Raises DataError naming the file: all that `read_header` refuses, and pixels that cannot be decoded.
    """
    data, header = _read(path)
    return _decoded(data, header, path, depth_range, warn=warn)


def decode_bytes(data: bytes, name: str, depth_range: DepthRange | None = None) -> Tensor:
    """As `decode_image`, of the content of an image file that was uploaded or read. name: of the image, for errors."""
    path = Path(name)
    return _decoded(data, _parse_header(io.BytesIO(data), path), path, depth_range, warn=False)


def _decoded(data: bytes, header: ImageHeader, path: Path, depth_range: DepthRange | None, *, warn: bool) -> Tensor:
    if header.is_deep and depth_range is not None:
        image = _repeat_grey(bytes_of_levels(_levels(data, path), depth_range, path))
    else:
        decoded = _decode_plain_jpeg(data) if header.format == "plain JPEG" else None
        image = _decode_with_pillow(data, path) if decoded is None else decoded
        if header.is_deep and warn and (note := depth_note([path])):
            _log.warning("%s", note)
    if header.format == "TIFF":  # Pillow's reader of this one format rotates by itself
        return image
    return _turn_upright(image, header.orientation)


def depth_note(paths: Sequence[Path]) -> str:
    """A note where the 16-bit pixels of all these images together leave few levels as bytes; else empty."""
    low, high = 65_535, 0
    for path in paths:
        data, header = _read(path)
        levels = _levels(data, path) if header.is_deep else np.zeros(0)
        if not len(levels) or not np.issubdtype(levels.dtype, np.integer):
            return ""
        low, high = min(low, int(levels.min())), max(high, int(levels.max()))
    if not paths:
        return ""
    others = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    return describe_few_levels(f"{paths[0].name}{others}", low, high)


def _read(path: Path) -> tuple[bytes, ImageHeader]:
    """The bytes of a file and its header. Raises DataError as `read_header`."""
    try:
        data = path.read_bytes()
    except OSError as error:
        _refuse_unreadable(path, error)
    return data, _parse_header(io.BytesIO(data), path)


def _levels(data: bytes, path: Path) -> Levels:
    """(h, w) or (h, w, 3) pixels of a deep image as stored; only a TIFF comes rotated."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            image.load()
            if image.mode.startswith("I"):  # "I;16" and its byte orders; "I" is how Pillow opens other 16-bit files
                return np.asarray(image).astype(np.int64)
            if image.mode == "F":
                return np.asarray(image).astype(np.float64)
        # Pillow keeps only the upper byte of colours and of grey with transparency.
        png = decode_png(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=ImageReadMode.UNCHANGED)
    except PILLOW_ERRORS as error:
        raise DataError(f"{path}: the image cannot be decoded ({error}); it is damaged or truncated") from error
    values: NDArray[np.int64] = png.permute(1, 2, 0).numpy().astype(np.int64)
    return values[..., :3] if values.shape[2] >= 3 else values[..., 0]


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


def _parse_header(file: BinaryIO, path: Path, *, count: bool = False) -> ImageHeader:
    """count: find out the number of frames."""
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
    if count and header.format != "PNG":
        header = header._replace(frames=count_frames(file, header.format))
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
    except PILLOW_ERRORS as error:
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
    width = height = bits = 0
    orientation = frames = 1
    while kind != b"IEND":
        file.seek(at)
        head = file.read(8)
        if len(head) < 8:
            _refuse_truncated(path, "the IEND chunk of the PNG is missing")
        length, kind = struct.unpack(">I4s", head)
        at += length + 12
        if at > end:
            _refuse_truncated(path, f"the PNG ends {at - end:,} bytes before the end of a chunk")
        if kind == b"IHDR" and length >= 9:
            width, height, bits = struct.unpack(">IIB", file.read(9))
        elif kind == b"acTL" and length >= 4:
            frames = max(int.from_bytes(file.read(4), "big"), 1)
        elif kind == b"eXIf":
            orientation = _orientation_of(file.read(length))
    return ImageHeader(
        stored_height=height,
        stored_width=width,
        orientation=orientation,
        format="PNG",
        is_deep=bits == 16,
        frames=frames,
    )


def _orientation_of(exif_block: bytes) -> int:
    """The orientation of an EXIF block; 1 where it has none or is damaged."""
    if not exif_block:
        return 1
    exif = Image.Exif()
    try:
        exif.load(exif_block)
        return _valid_orientation(exif.get(_ORIENTATION_TAG))
    except PILLOW_ERRORS:
        return 1


def _valid_orientation(value: object) -> int:
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _parse_other(file: BinaryIO, path: Path) -> ImageHeader:
    try:
        with Image.open(file, formats=FORMATS) as image:
            width, height = image.size
            orientation = _valid_orientation(image.getexif().get(_ORIENTATION_TAG))
            format_name = image.format or "unknown"
            is_deep = image.mode.startswith("I") or image.mode == "F"
            if isinstance(image, TiffImageFile):  # Pillow versions differ in whether `size` is rotated before load
                width, height = image.tag_v2[_TIFF_WIDTH_TAG], image.tag_v2[_TIFF_HEIGHT_TAG]
    except UnidentifiedImageError as error:
        file.seek(0)
        start = file.read(512)
        what = wrong_download(start) or unread_remedy(path, start[:16])
        what = what or f"not an image (none of {', '.join(FORMATS)}), or its header is damaged"
        raise DataError(f"{path}: {what}") from error
    except Image.DecompressionBombError as error:
        raise DataError(f"{path}: far more than the {MAX_PIXELS:,} pixels that one image may have") from error
    except PILLOW_ERRORS as error:
        raise DataError(f"{path}: the image's header is damaged ({error})") from error
    return ImageHeader(
        stored_height=int(height),
        stored_width=int(width),
        orientation=orientation,
        format=format_name,
        is_deep=is_deep,
    )


def _decode_with_pillow(data: bytes, path: Path) -> Tensor:
    """(3, h, w) uint8 RGB as stored; only a TIFF comes rotated."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            image.load()
            pixels = rgb_bytes(image, path)
    except DataError:
        raise
    except PILLOW_ERRORS as error:
        raise DataError(f"{path}: the image cannot be decoded ({error}); it is damaged or truncated") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def rgb_bytes(image: Image.Image, name: Path | str, depth_range: DepthRange | None = None) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 of a loaded image of any mode; `Image.convert` alone clips 16-bit and float pixels.

    name: of the image, for errors. depth_range: as of `decode_image`. Raises DataError as `bytes_of_levels`.
    """
    if image.mode.startswith("I") or image.mode == "F":
        stored = np.asarray(image)
        levels = stored.astype(np.float64) if image.mode == "F" else stored.astype(np.int64)
        return np.repeat(bytes_of_levels(levels, depth_range, name)[..., None], 3, axis=2)
    if image.mode in ("RGBa", "La"):
        image = image.convert(image.mode.upper())
    return np.array(image.convert("RGB"))


def _repeat_grey(pixels: NDArray[np.uint8]) -> Tensor:
    """(h, w) or (h, w, 3) -> (3, h, w)."""
    pixels_HW3 = np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else pixels
    return torch.from_numpy(np.ascontiguousarray(pixels_HW3)).permute(2, 0, 1)


def _turn_upright(image: Tensor, orientation: int) -> Tensor:
    """(3, h, w) as stored -> (3, H, W) as viewers show it, by EXIF 2.32's table for tag Orientation."""
    if orientation >= 5:
        image = image.transpose(1, 2)
    across = orientation in (2, 3, 6, 7)
    down = orientation in (3, 4, 7, 8)
    dims = [dim for dim, mirrored in ((1, down), (2, across)) if mirrored]
    return image.flip(dims) if dims else image
