"""Names of image files that were written for another machine, program or folder, and the files that they mean."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from retinanet.data.coco import CocoDataset, load_coco
from retinanet.data.file_names import FolderIndex
from retinanet.errors import DataError


def load(root: Path, files: list[str], names: list[str], folder: str = "images") -> CocoDataset:
    """A data set with one image for each name, in a folder with `files`, which are relative to the root."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith((".jpg", ".JPG", ".png")):
            Image.new("RGB", (8, 6)).save(root / name)
        else:
            (root / name).write_text("a label")
    images = [{"id": n, "file_name": name, "width": 8, "height": 6} for n, name in enumerate(names, start=1)]
    box = {"category_id": 1, "bbox": [1, 1, 4, 4], "area": 16, "iscrowd": 0}
    boxes = [{"id": row["id"], "image_id": row["id"], **box} for row in images]
    data: dict[str, Any] = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}
    (root / "a.json").write_text(json.dumps(data), encoding="utf-8")
    return load_coco(root / "a.json", root / folder, "header", root=root)


@pytest.mark.parametrize(
    ("file", "name", "note"),
    [
        ("images/sub/cat.jpg", "sub\\cat.jpg", "has backslashes"),
        ("images/sub/cat.jpg", "D:\\photos\\sub\\cat.jpg", "absolute paths"),
        ("images/cat.jpg", "/home/ann/photos/cat.jpg", "absolute paths"),
        ("images/cat.jpg", "../images/cat.jpg", "repeats the image folder's name"),
        ("images/cat.jpg", "project-3/cat.jpg", "in a folder that is not there"),
        ("images/my cat.jpg", "my%20cat.jpg", "percent-encoded"),
        ("images/cat.jpg", "upload/cat.jpg?alt=media&token=7", "rest of an upload's URL"),
        ("images/cat.jpg", "/data/local-files/?d=photos/cat.jpg", "absolute paths"),
        ("images/cat.jpg", "1a2b3c4d-cat.jpg", "prefix of an upload that the files do not have"),
        ("images/1a2b3c4d-cat.jpg", "cat.jpg", "lacks the prefix of an upload"),
        ("images/cat.JPG", "cat.jpg", "upper and lower case"),
        ("images/cat.jpg", "cat", "another ending or none"),
        ("images/cat.jpg", "cat.heic", "another ending or none"),
        (f"images/{unicodedata.normalize('NFD', 'käfer')}.jpg", "käfer.jpg", "another Unicode form"),
        ("images/batch1/cat.jpg", "cat.jpg", "lacks the folder that the files are in"),
        ("other/cat.jpg", "other/cat.jpg", "outside the image folder"),
        ("other/cat.jpg", "cat.jpg", "outside the image folder"),
    ],
)
def test_the_file_that_a_name_obviously_means_is_used_and_noted(
    tmp_path: Path, file: str, name: str, note: str
) -> None:
    dataset = load(tmp_path, [file], [name])
    assert dataset.images[0].path.samefile(tmp_path / file)
    assert [note in text for text in dataset.notes] == [True], dataset.notes


def test_a_kind_is_noted_once_with_its_count(tmp_path: Path) -> None:
    files = [f"images/{n}.jpg" for n in range(3)]
    (note,) = load(tmp_path, files, [f"images\\{n}.jpg" for n in range(3)]).notes
    assert note.startswith("3 file names ")
    assert "'images\\0.jpg' is 0.jpg" in note


def test_labels_next_to_the_images_are_no_images(tmp_path: Path) -> None:
    dataset = load(tmp_path, ["images/cat.txt", "images/cat.jpg"], ["cat"])
    assert dataset.images[0].path.name == "cat.jpg"


@pytest.mark.parametrize(
    ("files", "names", "message"),
    [
        (["images/a/cat.jpg", "images/b/cat.jpg"], ["c/cat.jpg"], "2 files fit, such as a/cat.jpg and b/cat.jpg"),
        (["images/cat.jpg"], ["cat.jpg", "new/cat.jpg"], "another image has that file_name"),
        (["images/cat.jpg"], ["old/cat.jpg", "new/cat.jpg"], "2 images have that last name"),
        (["images/a/1.jpg", "images/a/2.jpg"], ["b/1.jpg"], "a/1.jpg is called so"),
        (["train/1.jpg", "train/2.jpg"], ["1.jpg"], r"a file of that name is .*train/1\.jpg"),
        (["images/a/1.jpg", "images/b/7.jpg"], ["a/1.jpg", "a/7.jpg"], "no such file in the image folder"),
        (["images/cat.jpg"], ["dog.jpg"], "'dog.jpg': no such file in the image folder"),
    ],
)
def test_names_that_may_mean_another_image_are_refused(
    tmp_path: Path, files: list[str], names: list[str], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        load(tmp_path, files, names)


def test_a_link_out_of_the_folder_is_not_found(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "secret.jpg")
    (tmp_path / "set" / "images").mkdir(parents=True)
    (tmp_path / "set" / "images" / "cat.jpg").symlink_to(tmp_path / "secret.jpg")
    with pytest.raises(DataError, match="leads outside"):
        load(tmp_path / "set", [], ["x\\cat.jpg"])


def test_a_missing_image_folder_is_named_with_the_one_that_has_the_images(tmp_path: Path) -> None:
    load(tmp_path, ["photos/cat.jpg"], ["cat.jpg"], "photos")
    with pytest.raises(DataError, match=r"the image folder does not exist.*cat\.jpg is .*photos/cat\.jpg"):
        load_coco(tmp_path / "a.json", tmp_path / "images", root=tmp_path)


def test_of_several_files_the_one_with_most_folders_in_common_is_meant(tmp_path: Path) -> None:
    for name in ("a/x/cat.jpg", "b/x/cat.jpg", "b/y/cat.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = FolderIndex(str(tmp_path)).find("/mnt/b/x/cat.jpg")
    assert found is not None
    assert (found.paths, found.is_moved) == (["b/x/cat.jpg"], False)
