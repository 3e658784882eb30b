"""Decoding and header reading against Pillow, on small files of every kind that data sets hold."""

import contextlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from retinanet.data import images
from retinanet.data.images import decode_image, image_header, read_header
from retinanet.errors import DataError

HEIGHT, WIDTH = 40, 64
CORRUPT_EXIF = pytest.mark.filterwarnings("ignore:(Corrupt EXIF|Tag data|Metadata Warning|Truncated)")


def smooth_rgb() -> np.ndarray:
    """(H, W, 3) uint8, smooth so that JPEG preserves it, and different under every flip and rotation."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    return np.stack([x * 3, y * 5, 200 - x - y], axis=-1).astype(np.uint8)


def noisy_jpeg(path: Path, **options: object) -> bytes:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (160, 200, 3), dtype=np.uint8)).save(path, "JPEG", **options)
    return path.read_bytes()


def pixels(path: Path) -> np.ndarray:
    """(H, W, 3) int of `decode_image`, after checking its contract and that the header agrees."""
    image = decode_image(path)
    assert image.dtype == torch.uint8
    assert image.ndim == 3
    assert image.shape[0] == 3
    assert image_header(path) == tuple(image.shape[1:])
    return image.permute(1, 2, 0).numpy().astype(int)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_every_exif_orientation_is_rotated_as_by_pillow(tmp_path: Path, kind: str, orientation: int) -> None:
    path = tmp_path / f"turned.{kind.lower()}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 95} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    Image.fromarray(smooth_rgb()).save(path, kind, exif=exif, **options)
    with Image.open(path) as image:
        expected = np.array(ImageOps.exif_transpose(image).convert("RGB")).astype(int)
    np.testing.assert_allclose(pixels(path), expected, atol=2)
    assert image_header(path) == ((WIDTH, HEIGHT) if orientation >= 5 else (HEIGHT, WIDTH))


@CORRUPT_EXIF
@pytest.mark.parametrize("order", ["<", ">"])
def test_orientation_is_read_in_both_byte_orders_and_junk_is_upright(tmp_path: Path, order: str) -> None:
    path = tmp_path / "a.jpg"
    exif = Image.Exif()
    exif.endian = order
    exif[0x0112] = 6
    Image.fromarray(smooth_rgb()).save(path, exif=exif)
    assert read_header(path).orientation == 6
    for block in (b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff\x01\x12"):
        Image.fromarray(smooth_rgb()).save(path, exif=block)
        assert pixels(path).shape == (HEIGHT, WIDTH, 3)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content), kind) + content + struct.pack(">I", zlib.crc32(kind + content))


def test_the_exif_block_of_a_png_may_come_after_its_pixels(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(smooth_rgb()).save(path)
    exif = Image.Exif()
    exif[0x0112] = 6
    data = path.read_bytes()
    at = data.index(b"IEND") - 4
    path.write_bytes(data[:at] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + data[at:])
    np.testing.assert_array_equal(pixels(path), np.rot90(smooth_rgb(), -1))


@CORRUPT_EXIF
def test_a_damaged_exif_block_does_not_spoil_a_jpeg(tmp_path: Path) -> None:
    """Pillow alone refuses some of these, as it looks for the resolution in the block."""
    path, exif = tmp_path / "a.jpg", Image.Exif()
    exif[0x0112], exif[0x011A], exif[0x0128] = 6, (72, 1), 2
    Image.fromarray(smooth_rgb()).save(path, exif=exif)
    data = path.read_bytes()
    data = data[:2] + data[2 + 2 + int.from_bytes(data[4:6], "big") :]  # without JFIF's own resolution
    start, rng = data.index(b"Exif"), np.random.default_rng(0)
    for _ in range(300):
        damaged = bytearray(data)
        for at in rng.integers(start + 6, start + len(exif.tobytes()), 3):
            damaged[at] = rng.integers(0, 256)
        path.write_bytes(damaged)
        assert sorted(image_header(path)) == [HEIGHT, WIDTH]


def test_of_several_pictures_in_a_jpeg_the_first_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    second = Image.new("RGB", (20, 10), "red")
    Image.fromarray(smooth_rgb()).save(path, "MPO", save_all=True, append_images=[second])
    with Image.open(path) as image:
        assert image.format == "MPO"
        expected = np.array(image.convert("RGB")).astype(int)
    np.testing.assert_allclose(pixels(path), expected, atol=2)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_modes(tmp_path: Path, mode: str, progressive: bool) -> None:
    path = tmp_path / "a.jpg"
    source = Image.fromarray(smooth_rgb()).convert(mode)
    source.save(path, quality=95, progressive=progressive)
    np.testing.assert_allclose(pixels(path), np.array(source.convert("RGB")).astype(int), atol=12)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA"])
def test_png_modes(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "a.png"
    source = Image.fromarray(smooth_rgb()).convert(mode)
    source.save(path)
    np.testing.assert_array_equal(pixels(path), np.array(source.convert("RGB")))


def test_alpha_is_dropped_and_colours_stay(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.new("RGBA", (5, 4), (10, 200, 30, 0)).save(path)
    assert (pixels(path) == (10, 200, 30)).all()


@pytest.mark.parametrize("suffix", ["png", "tif", "pgm"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    values = np.linspace(0, 65_535, HEIGHT * WIDTH).astype(np.uint16).reshape(HEIGHT, WIDTH)
    Image.fromarray(values).save(path)
    expected = np.rint(values / 257.0).astype(int)
    got = pixels(path)
    np.testing.assert_array_equal(got, np.repeat(expected[..., None], 3, axis=2))
    assert len(np.unique(got)) == 256


@pytest.mark.parametrize("most", [1.0, 255.0])
def test_float_tiff_is_scaled(tmp_path: Path, most: float) -> None:
    path = tmp_path / "a.tif"
    values = np.linspace(0, most, HEIGHT * WIDTH, dtype=np.float32).reshape(HEIGHT, WIDTH)
    Image.fromarray(values).save(path)
    np.testing.assert_allclose(pixels(path)[..., 1], values * 255 / most, atol=0.51)


@pytest.mark.parametrize("worst", [np.nan, 1000.0, -1.0])
def test_float_tiff_of_unknown_range_is_refused(tmp_path: Path, worst: float) -> None:
    path = tmp_path / "a.tif"
    values = np.full((4, 4), 0.5, dtype=np.float32)
    values[1, 1] = worst
    Image.fromarray(values).save(path)
    with pytest.raises(DataError, match=r"a\.tif.*0\.\.1 or 0\.\.255"):
        decode_image(path)


@pytest.mark.parametrize("suffix", ["bmp", "webp", "gif", "tif"])
def test_other_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    source = Image.fromarray(smooth_rgb())
    source.save(path, **({"lossless": True} if suffix == "webp" else {}))
    with Image.open(path) as stored:
        np.testing.assert_array_equal(pixels(path), np.array(stored.convert("RGB")))


def test_cmyk_tiff(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    source = Image.fromarray(smooth_rgb()).convert("CMYK")
    source.save(path)
    np.testing.assert_array_equal(pixels(path), np.array(source.convert("RGB")))


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    frames = [Image.new("RGB", (6, 5), color) for color in ("red", "lime", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    assert (pixels(path) == (255, 0, 0)).all()


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.0005, 0.02, 0.3, 0.5, 0.9, 0.999, 1.0])
def test_truncated_jpeg_is_refused_by_header_and_decoder(tmp_path: Path, share: float, progressive: bool) -> None:
    path = tmp_path / "cut.jpg"
    data = noisy_jpeg(path, progressive=progressive)
    path.write_bytes(data[: min(int(len(data) * share), len(data) - 1)])
    for read in (image_header, decode_image):
        with pytest.raises(DataError, match=r"cut\.jpg: .*(truncated|damaged)"):
            read(path)


def test_truncated_jpeg_with_a_whole_thumbnail_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    thumbnail = io.BytesIO()
    Image.fromarray(smooth_rgb()).save(thumbnail, "JPEG")
    data = noisy_jpeg(path, exif=b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0" + thumbnail.getvalue())
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"cut\.jpg: .*truncated"):
        image_header(path)


@pytest.mark.parametrize("trailing", [1, 100, 200_000])
def test_bytes_after_the_end_of_a_jpeg_are_tolerated(tmp_path: Path, trailing: int) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(noisy_jpeg(path) + b"\0" * trailing)
    assert pixels(path).shape == (160, 200, 3)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_truncated_png_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "cut.png"
    Image.fromarray(smooth_rgb()).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    for read in (image_header, decode_image):
        with pytest.raises(DataError, match=r"cut\.png: .*truncated"):
            read(path)


@pytest.mark.parametrize("suffix", ["bmp", "webp", "gif", "tif"])
def test_other_truncated_formats_do_not_decode(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut.{suffix}"
    Image.fromarray(smooth_rgb()).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(DataError, match=rf"cut\.{suffix}: "):
        decode_image(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"hello, I am a text\n" * 9, "not an image"),
        (b"\xff\xd8\xff\xe0", "truncated"),
        (b"\0" * 99, ""),
    ],
)
def test_files_that_are_not_images(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "odd.jpg"
    path.write_bytes(content)
    for read in (image_header, decode_image):
        with pytest.raises(DataError, match=rf"odd\.jpg: .*{message}"):
            read(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for read in (image_header, decode_image):
        with pytest.raises(DataError, match=r"none\.jpg: no such image file"):
            read(tmp_path / "none.jpg")
        with pytest.raises(DataError, match="cannot be read"):
            read(tmp_path)


@CORRUPT_EXIF
def test_no_damage_escapes_as_another_error(tmp_path: Path) -> None:
    """Any byte may be wrong in any format: the outcome is an image or a DataError, nothing else."""
    rng = np.random.default_rng(1)
    source = Image.fromarray(smooth_rgb())
    for kind in ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "JPEG2000", "TGA"):
        stream = io.BytesIO()
        source.save(stream, kind)
        path = tmp_path / f"a.{kind}"
        for _ in range(40):
            data = bytearray(stream.getvalue())
            for at in rng.integers(0, min(len(data), 400), 4):
                data[at] = rng.integers(0, 256)
            path.write_bytes(data)
            with contextlib.suppress(DataError):
                assert decode_image(path).shape[0] == 3
            with contextlib.suppress(DataError):
                assert min(image_header(path)) > 0


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp"])
def test_too_many_pixels_are_refused_before_decoding(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"huge.{suffix}"
    Image.fromarray(smooth_rgb()).save(path)
    data = bytearray(path.read_bytes())
    if suffix == "jpg":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = b"\xff\xff\xff\xff"
    elif suffix == "png":
        data[16:24] = b"\0\1\0\0\0\1\0\0"
    else:
        data[18:26] = b"\0\0\1\0\0\0\1\0"
    path.write_bytes(data)
    for read in (image_header, decode_image):
        with pytest.raises(DataError, match=rf"huge\.{suffix}: .*{images.MAX_PIXELS:,}"):
            read(path)
