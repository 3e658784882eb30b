"""Files of several pages or frames: counted from their headers, noted once; and pixels that only a sample shows."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from retinanet.commands.predict import main as predict_main
from retinanet.data.coco import load_coco
from retinanet.data.find_images import image_suffixes
from retinanet.data.frames import SUFFIXES, frames_note
from retinanet.data.images import decode_image, read_header
from retinanet.errors import DataError
from retinanet.prepare.check import check_data_sets

FIRST, SECOND = (200, 10, 10), (10, 200, 10)
KINDS = ("a.tif", "a.gif", "a.png", "a.webp", "a.mpo", *(("a.avif",) if features.check("avif") else ()))


def several(path: Path, count: int = 3) -> Path:
    others = [Image.new("RGB", (16, 12), (SECOND[0], 60 * n, 9)) for n in range(1, count)]
    Image.new("RGB", (16, 12), FIRST).save(path, save_all=True, append_images=others)
    return path


def data_set(folder: Path, names: list[str]) -> Path:
    rows = [{"id": n, "file_name": name, "width": 16, "height": 12} for n, name in enumerate(names, 1)]
    boxes = [
        {"id": n, "image_id": n, "category_id": 1, "bbox": [1, 1, 8, 8], "area": 64, "iscrowd": 0}
        for n in range(1, len(names) + 1)
    ]
    content = {"images": rows, "annotations": boxes, "categories": [{"id": 1, "name": "dog"}]}
    (folder / "all.json").write_text(json.dumps(content))
    return folder / "all.json"


@pytest.mark.parametrize("name", KINDS)
def test_frames_are_counted_without_decoding_them(tmp_path: Path, name: str) -> None:
    path = several(tmp_path / name)
    assert read_header(path).frames == 3
    Image.new("RGB", (16, 12), FIRST).save(tmp_path / f"one{path.suffix}")
    assert read_header(tmp_path / f"one{path.suffix}").frames == 1
    assert abs(int(decode_image(path)[0, 5, 5]) - FIRST[0]) < 20, "the first one is read"
    assert SUFFIXES & image_suffixes() >= {path.suffix}


def test_more_images_of_a_phones_photograph_are_no_frames(tmp_path: Path) -> None:
    several(tmp_path / "a.mpo").rename(tmp_path / "a.jpg")
    assert read_header(tmp_path / "a.jpg").frames == 1


def test_smaller_copies_of_a_page_are_no_pages(tmp_path: Path) -> None:
    small = Image.new("RGB", (8, 6))
    small.encoderinfo = {"tiffinfo": {254: 1}}  # type: ignore[attr-defined] # where Pillow takes it from
    Image.new("RGB", (16, 12)).save(tmp_path / "a.tif", save_all=True, append_images=[small])
    assert read_header(tmp_path / "a.tif").frames == 1


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of the first frame
@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_second_frame_does_not_cost_the_first(tmp_path: Path, name: str) -> None:
    path = several(tmp_path / name)
    data = path.read_bytes()
    for cut in range(20, len(data), max(len(data) // 40, 1)):
        path.write_bytes(data[:cut])
        try:
            assert read_header(path).frames >= 1
        except DataError:
            continue


def test_a_data_set_and_a_prediction_note_them_once(
    tmp_path: Path, trained: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["a.gif", "b.tif", "c.jpg"]
    for name in names:
        several(tmp_path / (name if name != "c.jpg" else "c.mpo"), 4)
    (tmp_path / "c.mpo").rename(tmp_path / "c.jpg")
    note = "2 images have several pages or frames, of which only the first is read, such as a.gif (4)"
    file = data_set(tmp_path, names)
    assert load_coco(file, tmp_path, "header").notes == (note,)
    check_data_sets(file)
    assert " ".join(capsys.readouterr().out.split()).count(note) == 1
    monkeypatch.chdir(tmp_path)
    predict_main([str(trained / "checkpoints" / "best.pt"), *names, "--no-pictures"], "retinanet predict")
    assert capsys.readouterr().out.count(f"note: {note}") == 1
    assert frames_note({tmp_path / "c.jpg": 1}) == ""


def test_float_pixels_of_unknown_range_are_found_in_a_sample(tmp_path: Path) -> None:
    for n in range(40):
        pixels = np.full((12, 16), 300.0 + n, dtype=np.float32)
        Image.fromarray(pixels).save(tmp_path / f"{n}.tif")
    file = data_set(tmp_path, [f"{n}.tif" for n in range(40)])
    with pytest.raises(DataError, match=r"'0\.tif': float pixels must lie in 0\.\.1 or 0\.\.255; .*depth_range"):
        load_coco(file, tmp_path, "header")
