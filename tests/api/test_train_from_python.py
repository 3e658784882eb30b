"""`retinanet.train`, `evaluate` and `compare`: results, stops, threads and errors."""

import json
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import retinanet
from retinanet.api.words import override_words
from retinanet.config.load import load_config


def test_a_training_returns_its_result_and_restores_torch(tiny_yaml: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = []
    random = torch.get_rng_state()
    run = retinanet.train(
        tiny_yaml,
        output=tmp_path / "run",
        overrides={"schedule.iterations": 2, "data": {"canvas": [64, 64]}},
        on_row=rows.append,
    )
    assert run.rows() == rows
    assert [(row["kind"], row["step"]) for row in rows] == [("train", 1), ("train", 2), ("eval", 2)]
    assert run.best == tmp_path / "run" / "checkpoints" / "best.pt"
    assert run.last.is_file()
    assert run.best_ap == run.metrics["AP"] == rows[-1]["AP"]
    assert not run.stopped
    assert torch.equal(random, torch.get_rng_state())


@pytest.mark.slow
def test_a_thread_trains_is_stopped_and_goes_on(tiny_yaml: Path, tmp_path: Path) -> None:
    """Outside the main thread, where signal handlers cannot be set; the resumed run ends as an unbroken one."""
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    words = ["schedule.iterations=4", "log.pictures=0"]

    def first(row: dict[str, Any]) -> bool:
        return row["step"] < 1

    with ThreadPoolExecutor(1) as pool:
        stopped = pool.submit(retinanet.train, tiny_yaml, output=tmp_path / "a", overrides=words, on_row=first).result()
        assert (stopped.stopped, stopped.best, stopped.best_ap, stopped.metrics) == (True, None, None, {})
        assert [row["step"] for row in stopped.rows()] == [1, 2], "the step after the one that it answered"
        run = pool.submit(retinanet.train, tiny_yaml, output=tmp_path / "a", overrides=words, resume=True).result()
    unbroken = retinanet.train(tiny_yaml, output=tmp_path / "b", overrides=words)
    assert [row["kind"] for row in run.rows()] == ["train"] * 4 + ["eval"]
    assert run.metrics == unbroken.metrics
    assert [row.get("loss") for row in run.rows()] == [row.get("loss") for row in unbroken.rows()]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_an_error_of_on_row_is_passed_on(tiny_yaml: Path, tmp_path: Path) -> None:
    def fail(row: dict[str, Any]) -> None:
        raise KeyError(row["step"])

    with pytest.raises(KeyError, match="1"):
        retinanet.train(tiny_yaml, output=tmp_path / "run", on_row=fail)


def test_errors_are_those_of_the_command_line(tiny_yaml: Path, tmp_path: Path, trained: Path) -> None:
    with pytest.raises(retinanet.ConfigError, match=r"schedule\.epocs.*did you mean.*epochs"):
        retinanet.train("own", data=tmp_path, overrides={"schedule.epocs": 20})
    with pytest.raises(retinanet.ConfigError, match="there is no config onw"):
        retinanet.train("onw")
    with pytest.raises(retinanet.DataError, match="nowhere"):
        retinanet.train("own", data=tmp_path / "nowhere", output=tmp_path / "run")
    with pytest.raises(retinanet.ConfigError, match="already holds a run"):
        retinanet.train(tiny_yaml, output=trained)
    with pytest.raises(retinanet.ConfigError, match="not one text"):
        retinanet.train(tiny_yaml, output=tmp_path / "run", overrides="schedule.epochs=20")


def test_overrides_mean_what_they_mean_on_the_command_line(tiny_yaml: Path) -> None:
    given: dict[str, Any] = {
        "schedule": {"lr": 1e-05, "milestones": (2, np.int64(3))},
        "schedule.clip_norm": None,
        "data.root": Path("a folder/ü"),
        "data.canvas": np.array([64, 96]),
        "model.channels_last": False,
        "data.depth_range": [0, 4095.5],
        "output": 'no "true" 1',
    }
    config = load_config(tiny_yaml, override_words(given))
    assert config.schedule.lr == 1e-05
    assert config.schedule.milestones == (2, 3)
    assert config.schedule.clip_norm is None
    assert config.data.root == "a folder/ü"
    assert config.data.canvas == (64, 96)
    assert config.model.channels_last is False
    assert config.data.depth_range == (0, 4095.5)
    assert config.output == 'no "true" 1'
    assert override_words(["schedule.lr=1"], data="photos/") == ['data.source="photos/"', "schedule.lr=1"]
    with pytest.raises(retinanet.ConfigError, match=r"data\.root: .*object.* is not a number"):
        override_words({"data.root": object()})


@pytest.mark.slow
def test_a_run_is_evaluated_and_compared(
    tiny_yaml: Path, trained_resnet: Path, shapes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = shapes / "annotations" / "val.json"
    wanted = json.loads((trained_resnet / "eval.json").read_text(encoding="utf-8"))
    detector = retinanet.load(trained_resnet)
    for number, source in enumerate((trained_resnet, detector, str(trained_resnet / "checkpoints" / "best.pt"))):
        found = retinanet.evaluate(source, output=tmp_path / f"eval{number}", report=False)
        assert found.metrics == wanted["metrics"]
        assert found.ap == wanted["metrics"]["AP"]
    again = retinanet.evaluate(found.detections, ground_truth=truth, output=tmp_path / "files", report=False)
    assert again.ap == pytest.approx(found.ap, abs=1e-6)
    assert again.per_class[0].keys() == found.per_class[0].keys()
    few = retinanet.evaluate(trained_resnet, overrides={"eval.detections": 1}, output=tmp_path / "few", report=False)
    assert few.metrics["AR100"] < found.metrics["AR100"]
    result = retinanet.compare(found, few.detections, truth, output=tmp_path / "compare", resamples=40)
    assert result.difference == pytest.approx(few.ap - found.ap, abs=1e-6)
    assert (result.folder / "report.html").is_file()
    assert result.verdict == json.loads((result.folder / "compare.json").read_text(encoding="utf-8"))["verdict"]
    same = retinanet.compare(found, found, truth, output=tmp_path / "same")
    assert (same.difference, same.p) == (0.0, None)
    with pytest.raises(retinanet.ConfigError, match="with ground_truth, give a file"):
        retinanet.evaluate(detector, ground_truth=truth)
