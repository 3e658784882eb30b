"""YOLO labels as other programs leave them: angles, tracks, names of uploads, other words for splits."""

from pathlib import Path

import pytest
from test_yolo import bboxes, small

from retinanet.errors import DataError
from retinanet.prepare.yolo import convert_yolo


def test_an_angle_is_not_taken_for_a_confidence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"sixth value, 1\.57, is no confidence \(0 to 1\): an angle"):
        convert_yolo(small(tmp_path / "set", "0 0.5 0.5 0.4 0.1 1.57"), tmp_path / "out")


@pytest.mark.parametrize(
    ("image", "label", "note"),
    [
        ("photo.jpg", "photo.jpg.txt", ""),
        ("photo.jpg", "1a2b3c4d-photo.txt", "1 label file differs from the names of images"),
        ("1a2b3c4d-photo.jpg", "photo.txt", "differ"),
        ("my photo.jpg", "my%20photo.txt", "differ"),
    ],
)
def test_label_files_under_other_names_of_their_images(tmp_path: Path, image: str, label: str, note: str) -> None:
    folder = small(tmp_path / "set", "0 0.5 0.5 0.4 0.4")
    for kind, name in (("images", image), ("labels", label)):
        file = next((folder / kind / "train").iterdir())
        file.rename(file.with_name(name))
    written = convert_yolo(folder, tmp_path / "out")
    assert bboxes(tmp_path / "out/train.json") == [[60, 30, 80, 40]]
    assert note in written[-1].summary
    assert "have no image" not in written[-1].summary


def test_a_split_under_another_word_is_the_split(tmp_path: Path) -> None:
    folder = small(tmp_path / "set", "0 0.5 0.5 0.4 0.4", "names: [ant]\nvalidation: images/train\n")
    convert_yolo(folder, tmp_path / "out")
    assert bboxes(tmp_path / "out/val.json") == [[60, 30, 80, 40]]


def test_lines_that_may_be_two_key_points_are_noted(tmp_path: Path) -> None:
    pose = [f"0 0.5 0.5 0.4 0.4 0.5 0.6 0.4 0.{n}" for n in (35, 40, 45)]
    oriented = "0 0.3 0.3 0.7 0.3 0.7 0.7 0.3 0.7"
    for lines, expected in ((pose, True), (pose[:2], False), ([*pose, oriented], False), ([oriented] * 3, False)):
        folder = small(tmp_path / "set", "\n".join(lines))
        written = convert_yolo(folder, tmp_path / "out", overwrite=True)
        assert ("add kpt_shape: [2, 2]" in written[-1].summary) == expected
