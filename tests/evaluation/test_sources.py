"""Training and evaluating on `data.source`: one's own data in the three commands of the README."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from retinanet.errors import DataError
from retinanet.evaluation.sources import resolve_data
from retinanet.evaluation.splits import load_split

Tool = Callable[..., tuple[int, str, str]]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A YOLO folder of eight images, each with one square."""
    monkeypatch.setenv("RETINANET_CACHE", str(tmp_path / "cache"))
    root = tmp_path / "photos"
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    for n in range(8):
        image = Image.new("RGB", (64, 64), (20 * n, 30, 90))
        ImageDraw.Draw(image).rectangle((8 + n, 16, 39 + n, 47), fill=(250, 250, 20))
        image.save(root / "images" / f"{n}.png")
        (root / "labels" / f"{n}.txt").write_text(f"0 {(24 + n) / 64} 0.5 0.5 0.5\n")
    (root / "data.yaml").write_text("train: images\nnames: [square]\n")
    return root


def test_both_splits_of_a_source_are_loaded(tiny: Callable[..., object], photos: Path) -> None:
    data = tiny(f"data={photos}", "data.hold_out=0.25").data  # type: ignore[attr-defined]
    train_set, val_set = (load_split(data, split, "header") for split in ("train", "val"))
    assert (len(train_set.images), len(val_set.images)) == (6, 2)
    assert {r.path for r in train_set.images} & {r.path for r in val_set.images} == set()
    assert val_set.images[0].boxes_G4[0, 2] - val_set.images[0].boxes_G4[0, 0] == 32
    assert resolve_data(data).root == str(photos)


def test_the_test_split_of_a_source_is_loaded(tiny: Callable[..., object], photos: Path) -> None:
    (photos / "two.txt").write_text("images/0.png\nimages/1.png\n")
    (photos / "rest.txt").write_text("".join(f"images/{n}.png\n" for n in range(2, 8)))
    (photos / "data.yaml").write_text("train: rest.txt\nval: rest.txt\ntest: two.txt\nnames: [square]\n")
    data = tiny(f"data={photos}").data  # type: ignore[attr-defined]
    assert [record.path.name for record in load_split(data, "test", "header").images] == ["0.png", "1.png"]
    (photos / "data.yaml").write_text("train: rest.txt\nval: two.txt\nnames: [square]\n")
    with pytest.raises(DataError, match=f"--split test: {photos} has no test split"):
        load_split(data, "test", "header")
    with pytest.raises(DataError, match=r"data\.root names no test split; data\.val_annotations=FILE"):
        load_split(tiny().data, "test", "header")  # type: ignore[attr-defined]


def test_data_without_a_source_stay_as_they_are(tiny: Callable[..., object]) -> None:
    data = tiny().data  # type: ignore[attr-defined]
    assert resolve_data(data) is data


def test_check_split_and_convert_take_the_same_folder(tool: Tool, photos: Path, tmp_path: Path) -> None:
    code, out, err = tool("prepare_data.py", "check", photos)
    assert (code, err) == (0, "")
    assert out.startswith(f"YOLO labels in {photos}\n")
    assert "2 of 8 images are held out" in out
    first, second = out.splitlines()[-2:]
    assert first.startswith("train with: python ")
    assert first.endswith(f"train.py own data={photos}")
    assert second.startswith("on a CPU:   python ")
    assert second.endswith(f"train.py own_cpu data={photos}")
    code, out, err = tool("prepare_data.py", "split", photos, "--output", tmp_path / "out", "--hold-out", 0.5)
    assert (code, err) == (0, "")
    counts = [len(json.loads((tmp_path / "out" / f"{side}.json").read_text())["images"]) for side in ("train", "val")]
    assert counts == [4, 4]
    assert f"data.root={tmp_path / 'out'}" in out
    code, _, err = tool("prepare_data.py", "split", photos, "--output", tmp_path / "out")
    assert code == 3
    assert "--overwrite replaces it" in err
    code, out, _ = tool("prepare_data.py", "convert", photos, "--output", tmp_path / "more", "--hold-out", 0.25)
    assert code == 0
    assert "data.val_annotations=val.json" in out.splitlines()[-1]
    assert "data.train_annotations=train.json" in out.splitlines()[-1]


@pytest.mark.slow
def test_the_three_commands_of_the_readme(tool: Tool, tiny_yaml: Path, photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    code, out, err = tool("train.py", tiny_yaml, f"data={photos}", "schedule.iterations=2", f"output={run}")
    assert (code, err) == (0, "")
    assert f"data: YOLO labels in {photos}" in out
    assert "2 of 8 images are held out" in " ".join(out.split())
    code, out, err = tool("train.py", tiny_yaml, f"data={photos}", f"output={run}", "schedule.iterations=3", "--resume")
    assert (code, err) == (0, "")
    code, out, err = tool("eval.py", run / "checkpoints" / "best.pt", "--no-report")
    assert (code, err) == (0, "")
    code, out, err = tool("predict.py", run / "checkpoints" / "best.pt", photos / "images", "--output", run / "p")
    assert (code, err) == (0, "")
    assert "8 pictures" in out
