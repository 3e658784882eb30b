"""`retinanet doctor` on real runs: one that works, and the same with one thing spoiled."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from retinanet.config.schema import Config
from retinanet.diagnostics.doctor.report import as_typed, report_run, wrapped
from retinanet.errors import ConfigError
from retinanet.run.checkpoint import load_checkpoint, save_checkpoint

Tiny = Callable[..., Config]
Doctor = Callable[..., str]
OVER_TRAIN = ("data.val_annotations=annotations/train.json", "data.val_images=train")


@pytest.fixture(scope="module")
def learned(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that finds the objects of its val split, which are those of its training; read only."""
    from retinanet.training.engine import run_training

    folder = tmp_path_factory.mktemp("learned") / "run"
    longer = ("schedule.iterations=120", "schedule.warmup=5", "schedule.ema=0.9", "log.every=10")
    optimizer = ("schedule.optimizer=adamw", "schedule.lr=0.002", "schedule.clip_norm=10", "assign.low_quality=true")
    words = (*longer, *optimizer, "eval.score_threshold=0.05")
    run_training(tiny(*OVER_TRAIN, *words), folder)
    return folder


@pytest.fixture
def doctor(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """doctor(folder, key=value, ...) is what the command prints at 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")

    def examine(folder: Path, *overrides: str, images: int = 6) -> str:
        capsys.readouterr()
        report_run(folder, list(overrides), images=images)
        return capsys.readouterr().out

    return examine


def causes(out: str) -> list[str]:
    """The titles of the findings."""
    return [line[3:] for line in out.splitlines() if line[:1].isdigit() and line[1:3] == ". "]


@pytest.mark.slow
def test_a_run_that_works_is_reported_as_such(learned: Path, doctor: Doctor) -> None:
    out = doctor(learned)
    assert causes(out) == []
    assert "No cause of a low AP was found." in out
    assert "Not checked" not in out
    assert all(len(line) <= 80 for line in out.splitlines() if str(learned) not in line)


@pytest.mark.slow
def test_class_ids_that_differ(learned: Path, doctor: Doctor, shapes: Path, tmp_path: Path) -> None:
    truth = json.loads((shapes / "annotations" / "train.json").read_text())
    ids = sorted(category["id"] for category in truth["categories"])
    other = dict(zip(ids, ids[1:] + ids[:1]))
    for row in truth["annotations"]:
        row["category_id"] = other[row["category_id"]]
    (tmp_path / "ids.json").write_text(json.dumps(truth))
    assert causes(doctor(learned, f"data.val_annotations={tmp_path / 'ids.json'}")) == [
        "the class ids of val are not those of train"
    ]


@pytest.mark.slow
def test_a_score_threshold_that_is_too_high(learned: Path, doctor: Doctor) -> None:
    out = doctor(learned, "eval.score_threshold=0.9999")
    assert causes(out) == ["eval.score_threshold is above every score"]
    assert "retinanet eval" in out


@pytest.mark.slow
def test_val_images_of_another_kind(learned: Path, doctor: Doctor, shapes: Path, tmp_path: Path) -> None:
    for file in (shapes / "train").iterdir():
        pixels = np.asarray(Image.open(file).convert("RGB"))
        Image.fromarray((255 - pixels // 8).astype(np.uint8)).save(tmp_path / file.name, quality=95)
    assert causes(doctor(learned, f"data.val_images={tmp_path}")) == [
        "val images are of another kind than the training images"
    ]


@pytest.mark.slow
def test_a_moving_average_that_lags(learned: Path, doctor: Doctor, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(learned, run)
    saved = load_checkpoint(run / "checkpoints" / "last.pt")
    average = {
        key: torch.zeros_like(value) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
        for key, value in saved.average.items()
    }
    save_checkpoint(run / "checkpoints" / "last.pt", saved._replace(average=average))
    assert causes(doctor(run)) == ["the moving average lags behind the weights"]


@pytest.mark.slow
def test_anchors_far_from_the_objects(learned: Path, doctor: Doctor) -> None:
    out = doctor(learned, "assign.low_quality=false", "model.anchors.sizes=[300, 400, 500, 600, 700]", images=0)
    assert causes(out) == ["the anchors do not reach the objects"]
    assert "set 'model.anchors.sizes=[" in out
    assert "retinanet train" in out


def test_a_run_of_two_steps(trained: Path, doctor: Doctor) -> None:
    out = doctor(trained, images=0)
    assert causes(out) == ["warmup is never left"]
    assert f"  retinanet train {trained}/config.yaml schedule.warmup=1 output={trained}-again" in out
    assert "Not checked: score threshold" in out
    assert "--images 0" in out


def test_data_that_are_gone(trained: Path, doctor: Doctor, tmp_path: Path) -> None:
    out = " ".join(doctor(trained / "checkpoints" / "best.pt", f"data.root={tmp_path / 'gone'}").split())
    assert causes(doctor(trained, f"data.root={tmp_path / 'gone'}")) == ["warmup is never left"]
    assert out.count("data.root: no folder") == 1


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        report_run(tmp_path, [], images=0)
    with pytest.raises(ConfigError, match="no such folder"):
        report_run(tmp_path / "nowhere", [], images=0)


def test_lines_break_between_words_and_commands_not_at_all() -> None:
    long = "word " * 30 + "data.val_annotations=annotations/instances_val2017.json"
    assert all(len(line) <= 60 for line in wrapped(long, 60).splitlines())
    assert wrapped(f"   set {long}", 60) == f"   set {long}"
    assert wrapped("1. " + long, 60).splitlines()[1].startswith("   word")


def test_commands_are_those_of_where_the_doctor_was_called() -> None:
    called = "python -m retinanet {}".format
    assert as_typed("  retinanet train CONFIG lr=1", called) == "  python -m retinanet train CONFIG lr=1"
    assert as_typed("what retinanet train writes", called) == "what retinanet train writes"
