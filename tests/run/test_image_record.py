"""A run goes on with the images that it began with, although its data set has changed."""

import json
from pathlib import Path

import pytest
from PIL import Image

from retinanet.data.coco import CocoDataset, load_coco
from retinanet.errors import DataError
from retinanet.run.folder import RunFolder
from retinanet.run.image_record import check_same_images, trained_note, write_images


def dataset(folder: Path, *names: str) -> CocoDataset:
    """A data set of images with one object each."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        Image.new("RGB", (40, 30)).save(folder / name)
    content = {
        "images": [{"id": n, "file_name": name, "width": 40, "height": 30} for n, name in enumerate(names)],
        "annotations": [
            {"id": n, "image_id": n, "category_id": 1, "bbox": [1, 1, 9, 9], "area": 81, "iscrowd": 0}
            for n in range(len(names))
        ],
        "categories": [{"id": 1, "name": "dog"}],
    }
    file = folder / f"{'-'.join(names)}.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    return load_coco(file, folder)


def test_a_resumed_run_refuses_other_images_and_says_which(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    began = dataset(tmp_path, "a.png", "b.png"), dataset(tmp_path, "c.png")
    write_images(folder.images, *began)
    check_same_images(folder.images, *began, "photos")
    grown = dataset(tmp_path, "a.png", "c.png", "e.png"), dataset(tmp_path, "b.png")
    with pytest.raises(DataError) as caught:
        check_same_images(folder.images, *grown, "photos")
    message = str(caught.value)
    assert message.startswith("photos: the data set is not the one that this run began with")
    assert "1 new (such as e.png), 2 on the other side of the split (such as b.png)" in message
    assert f"model.weights={folder.best}" in message


def test_a_run_of_before_the_record_goes_on(tmp_path: Path) -> None:
    one = dataset(tmp_path, "a.png")
    check_same_images(tmp_path / "images.json", one, one, "photos")


def test_an_evaluation_on_training_images_is_noted(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    train, val = dataset(tmp_path, "a.png", "b.png", "d.png"), dataset(tmp_path, "c.png")
    write_images(folder.images, train, val)
    assert trained_note(folder.images, val, tmp_path, "photos") == ""
    assert trained_note(tmp_path / "none.json", val, tmp_path, "photos") == ""
    note = trained_note(folder.images, dataset(tmp_path, "b.png", "c.png"), tmp_path, "photos")
    assert "photos has changed since the training: 1 of these 2 images were training images (such as b.png)" in note


def test_images_of_two_folders_may_have_the_same_names(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    train, val = dataset(tmp_path / "train", "1.png", "2.png"), dataset(tmp_path / "val", "1.png")
    write_images(folder.images, train, val)
    assert json.loads(folder.images.read_text()) == {"train": ["train/1.png", "train/2.png"], "val": ["val/1.png"]}
    check_same_images(folder.images, train, val, "photos")
    assert trained_note(folder.images, val, tmp_path / "train", "photos") == ""


def test_a_record_of_names_alone_is_still_understood(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    train, val = dataset(tmp_path / "train", "1.png"), dataset(tmp_path / "val", "1.png")
    folder.path.mkdir()
    folder.images.write_text('{"train": ["1.png"], "val": ["1.png"]}')
    check_same_images(folder.images, train, val, "photos")
