"""Notes on transparent pixels, and on one file under two names."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retinanet.data.coco import load_coco
from retinanet.data.images import decode_image
from retinanet.data.transparency import MOST_READ, hides_pixels, transparency_note
from retinanet.errors import DataError

PIXELS = Image.fromarray(np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3))


def clear(alpha: int, share: float = 0.5) -> Image.Image:
    """The image with a part of its pixels of this alpha, the others opaque."""
    channel = np.full((48, 64), 255, np.uint8)
    channel[: int(48 * share)] = alpha
    image = PIXELS.copy()
    image.putalpha(Image.fromarray(channel))
    return image


def test_transparent_pixels_are_noted_and_opaque_ones_are_not(tmp_path: Path) -> None:
    for name, image in (("clear", clear(0)), ("opaque", clear(255)), ("faint", clear(130)), ("few", clear(0, 0))):
        image.save(tmp_path / f"{name}.png")
    PIXELS.convert("P").save(tmp_path / "palette.png", transparency=PIXELS.convert("P").getpixel((0, 0)))
    hidden = {path.stem for path in tmp_path.iterdir() if hides_pixels(path)}
    assert hidden - {"palette"} == {"clear"}
    note = transparency_note(sorted(tmp_path.iterdir()))
    assert "transparent pixels, which" in note
    assert "such as clear.png; put them on a background" in note


def test_of_many_files_a_sample_is_opened_and_damaged_ones_are_left_to_others(tmp_path: Path) -> None:
    paths = [tmp_path / f"{n:03}.png" for n in range(3 * MOST_READ)]
    for path in paths:
        clear(0).resize((4, 4)).save(path)
    note = transparency_note(paths)
    assert note.startswith(f"{MOST_READ} images have transparent pixels")
    assert f"({MOST_READ} of {len(paths)} such files were read)" in note
    paths[0].write_bytes(b"\x89PNG\r\n")
    assert transparency_note(paths[:1]) == ""
    assert transparency_note([tmp_path / "photo.jpg"]) == ""


def test_a_data_set_has_the_notes(tmp_path: Path) -> None:
    clear(0).save(tmp_path / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 48}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 40]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content), encoding="utf-8")
    assert "transparent" in "; ".join(load_coco(tmp_path / "a.json", tmp_path, "header").notes)
    assert "transparent" not in "; ".join(load_coco(tmp_path / "a.json", tmp_path).notes)


@pytest.mark.parametrize("second", ["./a.png", "link.png", "b.png"])
def test_one_file_under_two_names_is_noted(tmp_path: Path, second: str) -> None:
    PIXELS.save(tmp_path / "a.png")
    PIXELS.save(tmp_path / "b.png")
    (tmp_path / "link.png").symlink_to("a.png")
    size = {"width": 64, "height": 48}
    content = {
        "images": [{"id": n, "file_name": name, **size} for n, name in enumerate(("a.png", second), start=1)],
        "annotations": [{"id": n, "image_id": n, "category_id": 1, "bbox": [n, 2, 30, 40]} for n in (1, 2)],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(content), encoding="utf-8")
    notes = "; ".join(load_coco(tmp_path / "a.json", tmp_path, "header").notes)
    same = "1 image is the file of another one under a second name"
    assert (same in notes, f"for example a.png and {second}" in notes) == (second != "b.png",) * 2


def test_arrays_and_icons_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((4, 4)))
    PIXELS.save(tmp_path / "b.ico")
    for name, words in (("a.npy", "a NumPy array, which is not read; write it as PNG"), ("b.ico", "an icon, which")):
        with pytest.raises(DataError, match=words):
            decode_image(tmp_path / name)
