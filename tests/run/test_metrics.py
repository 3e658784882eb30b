"""MetricsLog: what is written, what a resume keeps, what TensorBoard and the console show."""

import io
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from retinanet.display import progress
from retinanet.display.console import evaluation_table, format_ap, format_seconds
from retinanet.errors import CheckpointError, NumericalError, ResourceError
from retinanet.run.metric_rows import read_rows, without_clock
from retinanet.run.metrics import MetricsLog, RunLog, SilentLog

COCO = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")


def open_log(folder: Path, resume_step: int | None = None, tensorboard: bool = False) -> MetricsLog:
    return MetricsLog(folder, resume_step=resume_step, tensorboard=tensorboard, total_steps=100, terminal=False)


def run_steps(log: RunLog, first: int, last: int, speed: float = 1.0) -> None:
    """Training rows every step, an evaluation and a note after every fourth."""
    for step in range(first, last + 1):
        loss = 1 / 3 + 1 / step
        values = {"loss": loss, "loss_class": loss / 2, "loss_box": loss / 2, "lr": 0.01, "grad_norm": 2.0}
        log.train(step, step / 10, values, {"time": speed * step, "images_per_second": speed})
        if step % 4 == 0:
            evaluate(log, step, speed)


def evaluate(log: RunLog, step: int, speed: float) -> None:
    log.evaluation(step, dict.fromkeys(COCO, step / 100), {"time": speed * step})
    log.note(step, f"evaluated after {step}")


@pytest.mark.parametrize(("crash", "checkpoint"), [(11, 6), (11, 8), (8, 8), (3, 0)])
def test_an_interrupted_run_equals_an_uninterrupted_one(tmp_path: Path, crash: int, checkpoint: int) -> None:
    with open_log(tmp_path / "unbroken") as log:
        run_steps(log, 1, 12)
    with open_log(tmp_path / "broken") as log:
        run_steps(log, 1, crash, speed=7.5)
    with (tmp_path / "broken/metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"kind": "train", "step": 12, "epo')
    with open_log(tmp_path / "broken", resume_step=checkpoint) as log:
        if checkpoint and checkpoint % 4 == 0:
            evaluate(log, checkpoint, 3.0)
        run_steps(log, checkpoint + 1, 12, speed=3.0)
    broken, unbroken = tmp_path / "broken/metrics.jsonl", tmp_path / "unbroken/metrics.jsonl"
    assert without_clock(broken) == without_clock(unbroken)
    assert broken.read_bytes() != unbroken.read_bytes()
    assert [path.name for path in (tmp_path / "broken").iterdir()] == ["metrics.jsonl"]


def test_a_resume_keeps_training_rows_of_its_step_and_evaluations_before(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        run_steps(log, 1, 10)
    before = (tmp_path / "metrics.jsonl").read_bytes()
    open_log(tmp_path, resume_step=8).close()
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows if row["kind"] == "train"] == list(range(1, 9))
    assert [row["step"] for row in rows if row["kind"] != "train"] == [4, 4]
    assert before.startswith((tmp_path / "metrics.jsonl").read_bytes())


def test_a_new_run_starts_empty_and_a_missing_file_is_not_an_error(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        run_steps(log, 1, 2)
    open_log(tmp_path).close()
    assert (tmp_path / "metrics.jsonl").read_bytes() == b""
    open_log(tmp_path / "elsewhere", resume_step=5).close()
    assert read_rows(tmp_path / "elsewhere/metrics.jsonl") == []


def test_rows_do_not_depend_on_the_order_of_the_values(tmp_path: Path) -> None:
    values = {"loss": 0.1, "zeta": 1.0, "alpha": 2.0, "loss_box": 1e-17, "lr": 0.1 + 0.2}
    for name, items in (("a", values.items()), ("b", reversed(values.items()))):
        with open_log(tmp_path / name) as log:
            log.train(1, 0.5, dict(items), {"time": 1.0})
    assert (tmp_path / "a/metrics.jsonl").read_bytes() == (tmp_path / "b/metrics.jsonl").read_bytes()
    row = read_rows(tmp_path / "a/metrics.jsonl")[0]
    assert list(row) == ["kind", "step", "epoch", "loss", "loss_box", "lr", "alpha", "zeta", "clock"]
    assert (row["lr"], row["loss_box"]) == (0.1 + 0.2, 1e-17)


def test_every_row_is_on_disk_before_the_log_is_closed(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    run_steps(log, 1, 3)
    assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    log.close()
    log.close()


def test_values_that_are_not_finite_are_refused_and_the_clock_may_be_unknown(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        with pytest.raises(NumericalError, match=r"step 3.*2 errors(.|\n)*loss is nan(.|\n)*grad_norm is inf"):
            log.train(3, 0.1, {"loss": float("nan"), "loss_box": 1.0, "grad_norm": float("inf")}, {})
        with pytest.raises(NumericalError, match="AP is nan"):
            log.evaluation(3, {"AP": float("nan")}, {})
        log.train(4, 0.1, {"loss": np.float32(0.5)}, {"time": 2.0, "seconds_left": float("inf")})
    (row,) = read_rows(tmp_path / "metrics.jsonl")
    assert (row["step"], row["loss"], row["clock"]) == (4, 0.5, {"time": 2.0, "seconds_left": None})


def test_every_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    good = json.dumps({"kind": "train", "step": 1, "epoch": 0.1, "clock": {}})
    path.write_bytes(f"{good}\nnonsense\n{good}\n[1]\n".encode() + b"\xff\xfe\n" + f"{good}\n".encode())
    with pytest.raises(CheckpointError, match=r"metrics.jsonl.*3 errors(.|\n)*line 2(.|\n)*line 4(.|\n)*line 5"):
        open_log(tmp_path, resume_step=1)
    assert path.read_bytes().count(b"\n") == 6


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        '{"kind": "train", "step": 1, "loss": "abc"}',
        '{"kind": "note", "step": 1}',
        '{"kind": "eval"}',
        '{"kind": "train", "step": true}',
        '{"kind": "train", "step": 1, "clock": 3}',
        '{"kind": ["train"], "step": 1}',
    ],
)
def test_a_line_that_is_no_row_is_named_whatever_it_is(line: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(f'{line}\n{{"kind": "eval", "step": 1}}\n', encoding="utf-8")
    with pytest.raises(CheckpointError, match="line 1 is not a row of metrics"):
        read_rows(tmp_path / "metrics.jsonl")


def test_a_folder_that_cannot_be_written_to_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(ResourceError, match=r"metrics\.jsonl: cannot be written"):
        open_log(tmp_path / "file")


def test_tensorboard_has_the_numbers_and_drops_what_a_resumed_run_repeats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Files of one second are read in the order of their names, which end in a number: 10 would come before 9.
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))
    with open_log(tmp_path, tensorboard=True) as log:
        run_steps(log, 1, 7)
        log.image(4, "predictions/0", np.full((8, 6, 3), 200, dtype=np.uint8))
    with open_log(tmp_path, resume_step=4, tensorboard=True) as log:
        log.evaluation(4, {"AP": 0.5, "APs": -1.0}, {})
        log.train(5, 0.5, {"loss": 9.0, "class_loss_foreground_share": 0.25}, {"images_per_second": 3.0})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss/total")] == [1, 2, 3, 4, 5]
    assert [event.value for event in events.Scalars("loss/total")][-1] == 9.0
    assert [(event.step, event.value) for event in events.Scalars("eval/AP")] == [(4, 0.5)]
    assert events.Scalars("data/class_loss_foreground_share")[0].value == 0.25
    assert {"loss/class", "loss/box", "schedule/lr", "schedule/epoch", "speed/images_per_second"} <= set(
        events.Tags()["scalars"]
    )
    assert events.Scalars("eval/APs") == []


def test_pictures_reach_tensorboard(tmp_path: Path) -> None:
    with open_log(tmp_path, tensorboard=True) as log:
        log.image(4, "predictions/0", np.full((8, 6, 3), 200, dtype=np.uint8))
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    (picture,) = events.Images("predictions/0")
    assert (picture.step, picture.width, picture.height) == (4, 6, 8)


def test_without_tensorboard_a_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with open_log(tmp_path, tensorboard=True) as log:
        run_steps(log, 1, 1)
        log.image(1, "picture", np.zeros((4, 4, 3), dtype=np.uint8))
    assert "pip install tensorboard" in capsys.readouterr().out
    assert len(read_rows(tmp_path / "metrics.jsonl")) == 1


def test_plain_lines_carry_what_fits_and_align(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    values = {"loss": 0.8123, "loss_class": 0.512, "loss_box": 0.3, "lr": 0.01, "grad_norm": 2.1}
    clock = {"images_per_second": 31.2, "data_wait": 0.02, "memory_mb": 1234.0, "seconds_left": 250.0}
    for columns in ("120", "80"):
        monkeypatch.setenv("COLUMNS", columns)
        with open_log(tmp_path) as log:
            log.begin(0, 0.0)
            log.step(4, 0.1, values, clock)
            log.train(5, 0.1, values, clock)
            log.train(90, 1.3, {**values, "loss": 12.5, "lr": 1e-5, "grad_norm": 1234.0}, {**clock, "memory_mb": 80.0})
            log.evaluation(90, {**dict.fromkeys(COCO, 0.25), "APs": -1.0}, {})
    wide, wide_too, _, first, second, evaluation = capsys.readouterr().out.splitlines()
    assert wide == (
        "step   5/100  epoch 0.1  loss 0.812  class 0.512  box 0.300  lr 0.0100   31.2 images/s  wait  2%  1.2 GB"
        "  left 4m10s"
    )
    assert first == "step   5/100  epoch 0.1  loss 0.812  lr 0.0100   31.2 images/s  left 4m10s"
    assert (len(wide), len(first)) == (len(wide_too), len(second))
    assert first.index("images") == second.index("images")
    assert evaluation == "eval  90/100  AP 0.250  AP50 0.250  AP75 0.250  APs -  APm 0.250  APl 0.250"


def test_live_lines_redraw_and_evaluations_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "REFRESHES", 200.0)
    shown = ""

    def appears(text: str) -> bool:
        nonlocal shown
        deadline = time.monotonic() + 5
        while text not in shown and time.monotonic() < deadline:
            time.sleep(0.002)
            shown += capsys.readouterr().out
        return text in shown

    with MetricsLog(tmp_path, resume_step=None, tensorboard=False, total_steps=100, terminal=True) as log:
        log.begin(0, 0.0)
        assert appears("step 0/100")
        log.train(50, 1.3, {"loss": 0.5, "lr": 0.01}, {"seconds_left": 61.0})
        assert appears("step 50/100")
        assert appears("left 1m00s"), "time goes on without a step"
        log.say("[bold]taken literally[/bold]")
        log.step(51, 1.3, {"loss": 0.75, "lr": 0.01}, {"seconds_left": 60.4})
        assert appears("loss 0.750")
        log.evaluating(51, 3, 7, 30.4)
        assert appears("evaluating 3/7 images")
        log.last_words("the end")
    assert appears("the end")
    assert shown.rindex("the end") > shown.rindex("evaluating")
    assert "[bold]taken literally[/bold]" in shown
    assert "\x1b[" in shown


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_evaluation_table_shows_every_class_at_any_width(width: int) -> None:
    per_class = [
        {"id": i, "name": f"class[{i}]", "AP": -1.0 if i == 7 else 0.5, "AP50": 0.75, "instances": i} for i in range(80)
    ]
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(evaluation_table(dict.fromkeys(COCO, 0.25), per_class))
    lines = console.export_text().splitlines()
    assert all(len(line) <= width for line in lines)
    words = " ".join(lines).split()
    assert all(f"class[{i}]" in words for i in range(80))
    assert words.count("0.250") == 12
    assert words[words.index("class[7]") + 1] == "-"
    assert (len(lines) < 60) == (width == 200 or width == 80)


def test_the_evaluation_table_without_classes_has_the_numbers() -> None:
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(evaluation_table({"AP": 0.125, "APs": -1.0}, []))
    assert "0.125" in console.export_text()


def test_durations_and_absent_numbers() -> None:
    seconds = [0, 59.4, 60, 250, 7500, 273600, None, -1, float("nan")]
    assert [format_seconds(value) for value in seconds] == [
        "0s",
        "59s",
        "1m00s",
        "4m10s",
        "2h05m",
        "3d04h",
        "-",
        "-",
        "-",
    ]
    assert (format_ap(-1), format_ap(None), format_ap(0.0)) == ("-", "-", "0.000")


def test_a_silent_log_has_the_methods_of_a_log_and_does_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with SilentLog() as log:
        run_steps(log, 1, 4)
        log.say("text")
        log.image(4, "picture", np.zeros((4, 4, 3), dtype=np.uint8))
    assert capsys.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ZeroDivisionError), SilentLog():
        raise ZeroDivisionError


def test_importing_metrics_and_drawing_imports_neither_torch_nor_matplotlib() -> None:
    modules = "retinanet.run.metrics, retinanet.display.drawing"
    code = f"import sys, {modules}; sys.exit(bool({{'torch', 'matplotlib'}} & {{*sys.modules}}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
