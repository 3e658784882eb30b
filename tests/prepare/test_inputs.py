"""Files that name pictures: lists, archives, data sets; and what is no picture, with what to give instead."""

import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retinanet.commands.predict import main as predict_main
from retinanet.data.find_images import find_images
from retinanet.data.loose_images import read_image
from retinanet.errors import DataError
from retinanet.prepare.inputs import named_pictures


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three pictures in photos/ of the current folder."""
    (tmp_path / "photos").mkdir()
    for number, name in enumerate("abc"):
        Image.new("RGB", (16, 12), (number * 80, 9, 9)).save(tmp_path / "photos" / f"{name}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RETINANET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "photos"


def found(*inputs: str) -> list[str]:
    paths = find_images(named_pictures(list(inputs), 0.2).paths)
    assert all(path.is_file() for path in paths)
    return [path.name for path in paths]


@pytest.mark.parametrize(
    "content",
    [
        b"photos/a.png\nphotos/b.png\n",
        b"\xef\xbb\xbf# a comment\r\n\r\nphotos\\a.png\r\n  photos/b.png  \r\n",
        b'"C:\\Users\\me\\photos\\a.png"\n/home/me/set/photos/b.png\n',
        "photos/a.png\nphotos/b.png\n".encode("utf-16"),
    ],
)
def test_a_list_names_pictures_as_any_program_writes_it(photos: Path, content: bytes) -> None:
    (photos.parent / "list.txt").write_bytes(content)
    assert found("list.txt") == ["a.png", "b.png"]


def test_a_list_is_relative_to_its_folder_or_the_current_one(photos: Path) -> None:
    (photos.parent / "lists").mkdir()
    (photos.parent / "lists" / "one.txt").write_text(f"../photos/a.png\nphotos/b.png\n{photos / 'c.png'}\n")
    assert found("lists/one.txt", "photos/a.png") == ["a.png", "b.png", "c.png"], "each once"


def test_lines_without_a_file_are_listed_together(photos: Path) -> None:
    (photos / "a.txt").write_text("0 0.5 0.5 0.1 0.1\nb.png\ngone.png\n")
    (photos / "empty.txt").write_text("# nothing\n")
    with pytest.raises(DataError) as caught:
        named_pictures(["photos/a.txt", "photos/empty.txt"], 0.2)
    for part in (
        "taken for a list of pictures",
        "line 1: no file 0 0.5",
        "line 3: no file gone.png",
        "no picture in its",
    ):
        assert part in str(caught.value)


def test_all_pictures_of_a_zip_are_taken(photos: Path) -> None:
    with zipfile.ZipFile("photos.zip", "w") as archive:
        for name in ("a.png", "b.png"):
            archive.write(photos / name, f"2024/{name}")
        archive.writestr("__MACOSX/._a.png", b"x")
        archive.writestr("2024/c.heic", b"x")
    assert found("photos.zip") == ["a.png", "b.png"]
    assert "2 pictures in it, unpacked into" in named_pictures(["photos.zip"], 0.2).notes[0]
    assert "1 HEIC" in named_pictures(["photos.zip"], 0.2).notes[0]
    for name, content, message in (("none.zip", None, "no picture in it"), ("bad.zip", b"PK\x03\x04", "cannot be unp")):
        if content is None:
            with zipfile.ZipFile(name, "w") as archive:
                archive.writestr("readme.md", b"x")
        else:
            Path(name).write_bytes(content)
        with pytest.raises(DataError, match=message):
            named_pictures([name], 0.2)


@pytest.mark.parametrize(
    ("splits", "taken"), [(("train", "val", "test"), "val"), (("train", "test"), "test"), (("train",), "train")]
)
def test_of_a_data_yaml_the_split_to_evaluate_on_is_taken(photos: Path, splits: tuple[str, ...], taken: str) -> None:
    for split, name in zip(("train", "val", "test"), "abc"):
        Path(f"set/images/{split}").mkdir(parents=True)
        shutil.copy(photos / f"{name}.png", f"set/images/{split}/{split}.png")
    lines = [f"{split}: images/{split}" for split in splits]
    Path("set/data.yaml").write_text("\n".join(["path: /content/set", "names: [dog]", *lines]))
    assert found("set/data.yaml") == [f"{taken}.png"], "without any label"
    assert f"1 picture of its {taken} split" in named_pictures(["set/data.yaml"], 0.2).notes[0]


def test_the_pictures_of_coco_files_are_taken_with_and_without_annotations(photos: Path) -> None:
    rows = [{"id": n, "file_name": f"{name}.png", "width": 16, "height": 12} for n, name in enumerate("ab", 1)]
    content = {"images": rows, "categories": [{"id": 1, "name": "dog"}]}
    (photos / "info.json").write_text(json.dumps(content))
    (photos / "all.json").write_text(json.dumps({**content, "annotations": []}))
    assert found("photos/info.json") == found("photos/all.json") == ["a.png", "b.png"]
    rows[0]["file_name"] = "gone.png"
    (photos / "all.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"images that it names cannot be found .*\n.*gone\.png"):
        named_pictures(["photos/all.json"], 0.2)
    (photos / "results.json").write_text(json.dumps([{"image_id": 1, "score": 0.5, "bbox": [1, 2, 3, 4]}]))
    with pytest.raises(DataError, match="detections"):
        named_pictures(["photos/results.json"], 0.2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("0", "a camera, which is not read; .*ffmpeg -f v4l2 -i /dev/video0"),
        ("/dev/null", "a camera, which is not read"),
        ("rtsp://camera/1", "an address of a stream, which is not read; .*ffmpeg -i 'rtsp://camera/1'"),
    ],
)
def test_cameras_and_streams_are_answered_with_how_to_save_their_frames(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_images([name])


def test_an_array_of_pixels_is_a_picture(photos: Path, trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels_HW3 = np.array(Image.open(photos / "b.png"))
    np.save("b.npy", pixels_HW3)
    assert read_image("b.npy", "b.npy").equal(read_image(photos / "b.png", ""))
    best = str(trained / "checkpoints" / "best.pt")
    predict_main([best, "b.npy", "--output", "out"], "retinanet predict")
    assert Path("out/b.jpg").is_file()
    np.save("float.npy", pixels_HW3 / 255)
    np.save("objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    Path("half.npy").write_bytes(Path("b.npy").read_bytes()[:300])
    Path("text.npy").write_text("no array")
    Path("zip.npy").write_bytes(b"PK\x05\x06" + bytes(18))
    messages = ("has type float64, not uint8", *["not an array of pixels"] * 3, "several arrays")
    for name, message in zip(("float.npy", "objects.npy", "half.npy", "text.npy", "zip.npy"), messages):
        with pytest.raises(DataError, match=message):
            read_image(name, name)
