"""False positives and missed objects as pictures: which they are, what they show, and that none are mixed up."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retinanet.commands.evaluate import main
from retinanet.errors import ConfigError


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """An image with a cat that is found, a missed dog, a false dog, and a cat in a crowd."""
    pixels = np.full((100, 120, 3), 90, np.uint8)
    pixels[60:80, 70:100] = (10, 200, 30)
    (tmp_path / "images").mkdir()
    Image.fromarray(pixels).save(tmp_path / "images" / "a.png")
    boxes = {1: (1, [10, 10, 20, 20], 0), 2: (2, [70, 60, 30, 20], 0), 3: (1, [0, 80, 20, 20], 1)}
    truth = {
        "images": [{"id": 1, "file_name": "a.png", "width": 120, "height": 100}],
        "annotations": [
            {"id": n, "image_id": 1, "category_id": k, "bbox": box, "area": box[2] * box[3], "iscrowd": crowd}
            for n, (k, box, crowd) in boxes.items()
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog/wolf"}],
    }
    found = [
        {"image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20], "score": 0.9},
        {"image_id": 1, "category_id": 2, "bbox": [40, 30, 20, 20], "score": 0.95},
        {"image_id": 1, "category_id": 1, "bbox": [2, 82, 10, 10], "score": 0.92},
    ]
    for name, content in (("truth.json", truth), ("found.json", found)):
        (tmp_path / name).write_text(json.dumps(content), encoding="utf-8")
    return ["--ground-truth", str(tmp_path / "truth.json"), "--detections", str(tmp_path / "found.json")]


def test_errors_become_pictures_in_a_folder_of_their_class(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*files, "--images", str(tmp_path / "images"), "--crops", "--no-report", "--output", str(tmp_path / "out")]
    main(words, "eval")
    pictures = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.jpg"))
    assert pictures == ["false_positives/dog_wolf/0.950_a_1.jpg", "misses/dog_wolf/a_1.jpg"]
    assert "at or above score 0.900: false_positives/ (1) and misses/ (1)" in capsys.readouterr().out
    with Image.open(tmp_path / "out/misses/dog_wolf/a_1.jpg") as picture:
        assert picture.width >= 200
        green = np.asarray(picture)[..., 1] > np.asarray(picture)[..., 0].astype(int) + 100
        assert 0.1 < green.mean() < 0.5, "the object, with what is around it"
    with pytest.raises(ConfigError, match=r"--crops: .*false_positives and .*misses exist; delete them or choose"):
        main(words, "eval")


def test_files_of_detections_need_their_images(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([*files, "--crops"], "eval")
    assert "--crops needs the images: give their folder with --images" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*files, "--tile", "512"], "eval")
    assert "are for a checkpoint" in capsys.readouterr().err
