"""Photographs and films that are not read: counted in folders, and named with the remedy."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from retinanet.data.find_images import files_passed_over, find_images
from retinanet.data.images import decode_image, depth_note
from retinanet.data.pixel_depth import DepthRange
from retinanet.errors import DataError

STARTS = {
    "b.heic": b"\0\0\0\x18ftypheic\0\0\0\0",
    "c.mov": b"\0\0\0\x14ftypqt  \0\0\0\0",
    "d.jxl": b"\xff\x0a\0\0",
    "e.nef": b"MM\0*1234",
}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg")
    for name, start in STARTS.items():
        (tmp_path / name).write_bytes(start + bytes(40))
    (tmp_path / "notes.txt").write_text("no image, and none that anybody would expect to be one")
    return tmp_path


def test_files_that_a_folder_leaves_out_are_counted_and_named(photos: Path) -> None:
    assert find_images([str(photos)]) == [photos / "a.jpg"]
    text = files_passed_over([str(photos), str(photos / "a.jpg")])
    assert text.startswith("4 files in formats that are not read (1 HEIC, 1 MOV, 1 JXL, 1 NEF)")
    assert f"ffmpeg -i {photos / 'c.mov'} -vf fps=2 " in text
    assert "notes.txt" not in text
    assert files_passed_over([str(photos / "a.jpg")]) == ""


def test_a_film_by_name_is_called_a_film(photos: Path) -> None:
    for name in ("c.mov", "b.heic"):
        with pytest.raises(DataError, match="a film, not an image; cut" if name == "c.mov" else "a HEIC image"):
            find_images([str(photos / name)])
    assert len(find_images([str(photos / "a.jpg"), str(photos / "c.mov")])) == 2, "read with the others, then reported"
    (photos / "a.jpg").unlink()
    with pytest.raises(DataError, match=r"no image in this folder, but .*1 HEIC"):
        find_images([str(photos)])


@pytest.mark.parametrize(
    ("start", "message"),
    [(b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"), (b"<!DOCTYPE html><html>", "a web page")],
)
def test_what_was_downloaded_in_place_of_an_image_is_named(tmp_path: Path, start: bytes, message: str) -> None:
    (tmp_path / "a.jpg").write_bytes(start)
    with pytest.raises(DataError, match=rf"a\.jpg: .*{message}"):
        decode_image(tmp_path / "a.jpg")


def test_the_content_of_a_file_counts_more_than_its_name(photos: Path) -> None:
    (photos / "b.heic").rename(photos / "really_heic.jpg")
    with pytest.raises(DataError, match=r"really_heic\.jpg: a HEIC image"):
        decode_image(photos / "really_heic.jpg")


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_is_read_upright(tmp_path: Path) -> None:
    tag = Image.Exif()
    tag[0x0112] = 6
    pixels = np.zeros((32, 48, 3), np.uint8)
    pixels[:16, :24] = 255
    Image.fromarray(pixels).save(tmp_path / "a.avif", quality=95, exif=tag)
    image = decode_image(tmp_path / "a.avif")
    assert tuple(image.shape) == (3, 48, 32)
    quarters = [int(image[:, y, x].float().mean()) for y, x in ((6, 6), (6, 26), (42, 6), (42, 26))]
    assert [value > 128 for value in quarters] == [False, True, False, False]
    assert find_images([str(tmp_path)]) == [tmp_path / "a.avif"]
    assert files_passed_over([str(tmp_path)]) == "", "what is read is not counted as left out"


def rising(low: int, high: int) -> np.ndarray:
    return np.linspace(low, high, 48).reshape(6, 8).astype(np.uint16)


def test_few_levels_are_noted_with_the_range_to_set(tmp_path: Path) -> None:
    for name, low, high in (("a.png", 600, 1000), ("b.tif", 700, 1400), ("c.png", 0, 65_535)):
        Image.fromarray(rising(low, high)).save(tmp_path / name)
    note = depth_note([tmp_path / "a.png", tmp_path / "b.tif"])
    assert "16-bit pixels of a.png and 1 more reach 1,400 of 65,535: 4 of 256 levels are left" in note
    assert "data.depth_range=[600, 1400]" in note
    assert depth_note([tmp_path / "c.png"]) == depth_note([]) == ""


def test_few_levels_are_logged_for_whoever_reads_one_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.fromarray(rising(600, 1400)).save(tmp_path / "a.png")
    decode_image(tmp_path / "a.png", warn=False)
    decode_image(tmp_path / "a.png", DepthRange(600, 1400))
    assert caplog.text == ""
    decode_image(tmp_path / "a.png")
    assert "data.depth_range=[600, 1400]" in caplog.text


@pytest.mark.parametrize("mode", ["grey", "float", "signed"])
def test_a_range_of_depths_maps_linearly_and_cuts(tmp_path: Path, mode: str) -> None:
    levels = np.array([[0, 100, 150, 200, 900]], np.float32)
    levels -= 150 if mode == "signed" else 0
    shape = {"grey": np.uint16, "float": np.float32, "signed": np.int32}[mode]
    Image.fromarray(levels.astype(shape)).save(tmp_path / "a.tif")
    low = -50 if mode == "signed" else 100
    image = decode_image(tmp_path / "a.tif", DepthRange(low=low, high=low + 100))
    assert image.tolist() == [[[0, 0, 128, 255, 255]]] * 3


def test_a_range_of_depths_leaves_8_bits_as_they_are(tmp_path: Path) -> None:
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8)).save(tmp_path / "a.png")
    assert decode_image(tmp_path / "a.png", DepthRange(10, 20)).equal(decode_image(tmp_path / "a.png"))


@pytest.mark.parametrize(
    ("name", "message"),
    [("https://example.com/a.jpg", "an address"), ("rtsp://camera/1", "an address"), ("a.jpg", "no such file")],
)
def test_a_name_that_is_no_path_is_answered_with_what_it_is(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_images([name])


def test_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").symlink_to("gone.jpg")
    with pytest.raises(DataError, match=r"a symbolic link to 'gone\.jpg', which does not exist"):
        find_images([str(tmp_path / "a.jpg")])
