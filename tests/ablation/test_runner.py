"""Cells that run, diverge, fail, are killed and shared: the folder ends up the same."""

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from places import PROJECT

from retinanet.ablation import ablate
from retinanet.ablation.cells import CellRecord, CellStatus, cell_folder, list_cells, read_record, write_record
from retinanet.ablation.claims import claim_path, live_owner, release, take
from retinanet.ablation.estimate import measure
from retinanet.ablation.report.collect import collect
from retinanet.ablation.run_cell import CellTaken, run_cell
from retinanet.ablation.runner import CellsFailed, Runner, Slots, build_slots, run_cells
from retinanet.ablation.runner_console import RunnerConsole
from retinanet.ablation.study import Study, load_study
from retinanet.ablation.study_folder import log_path, prepare
from retinanet.errors import CheckpointError, ConfigError, Interrupted
from retinanet.run.checkpoint import load_checkpoint

STUDY = """
base: {base}
overrides: {{log.pictures: 0, log.save_every: 2, schedule.ema: 0.9}}
arms:
  - {{name: FL}}
  - {{name: CE, overrides: {{loss.classification.kind: cross_entropy}}}}
reference: FL
seeds: [0]
budget: {{iterations: {steps}}}
test: {{annotations: annotations/train.json, images: train}}
"""
STEPS = 16
Start = Callable[..., subprocess.Popen[str]]
Make = Callable[..., Study]


@pytest.fixture
def make(tmp_path: Path, tiny_yaml: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def make(extra: str = "", *overrides: str, steps: int = 2, output: str = "out") -> Study:
        path = tmp_path / "study.yaml"
        path.write_text((STUDY + extra).format(base=tiny_yaml, steps=steps), encoding="utf-8")
        return load_study(path, [f"output={tmp_path / output}", *overrides])

    return make


def recorded(study: Study, cell: str) -> CellRecord:
    record = read_record(study.folder, cell)
    assert record is not None
    return record


def wait_for(what: Callable[[], object], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "timed out"
        time.sleep(0.05)


def test_a_cell_is_trained_and_its_final_weights_measured_on_test(
    make: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    study = make()
    ablate.run_one(study, "0")
    record = recorded(study, "FL-seed0")
    assert (record.status, record.steps, record.lr, record.seed) == ("done", 2, 0.01, 0)
    assert record.seconds > 0
    folder = cell_folder(study, list_cells(study)[0])
    found = json.loads((folder / "test" / "eval.json").read_text(encoding="utf-8"))
    assert found["metrics"] == record.test_metrics
    assert found["step"] == load_checkpoint(folder / "checkpoints" / "last.pt").progress.step == 2
    images = {row["image_id"] for row in json.loads((folder / "test" / "detections.json").read_text(encoding="utf-8"))}
    assert len(images) == 12, "the test split, not the six images of val"
    assert record.val_metrics == json.loads((folder / "eval.json").read_text(encoding="utf-8"))["metrics"]
    assert not claim_path(study.folder, "FL-seed0").exists()

    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    capsys.readouterr()
    ablate.run_one(study, "FL-seed0")
    assert "is finished: done" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    result = collect(study, study.folder)
    assert [cell.record.status for cell in result.cells] == ["done", "waiting"]
    assert result.cells[0].folder == folder


def test_val_as_test_split_needs_no_second_evaluation(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make("", "eval.every=1", "eval.unit=steps")
    study = study._replace(test=(study.base.data.val_annotations, study.base.data.val_images))
    ablate.run_one(study, "0")
    folder = cell_folder(study, list_cells(study)[0])
    assert (folder / "test" / "eval.json").exists()
    # However the best evaluation fell, test numbers are those of the last step.
    assert json.loads((folder / "test" / "eval.json").read_text(encoding="utf-8"))["step"] == 2
    assert recorded(study, "FL-seed0").test_metrics == recorded(study, "FL-seed0").val_metrics


def test_a_diverging_cell_is_a_result(make: Make) -> None:
    study = make("", "schedule.lr=1e30", "schedule.warmup=0", steps=6)
    ablate.run_one(study, "0")
    record = recorded(study, "FL-seed0")
    assert (record.status, record.test_metrics) == ("diverged", {})
    assert "step 2: " in record.message
    assert record.steps == 1
    ablate.run_one(study, "0")
    assert [cell.record.status for cell in collect(study, study.folder).cells] == ["diverged", "waiting"]


def test_a_failing_cell_is_recorded_and_tried_again(make: Make, tmp_path: Path) -> None:
    study = make("", f"model.backbone.weights={tmp_path / 'none.pt'}")
    prepare(study, resume=False, overwrite=False)
    with pytest.raises(CheckpointError):
        run_cell(study, "FL-seed0")
    record = recorded(study, "FL-seed0")
    assert record.status == "failed"
    assert "none.pt" in record.message
    assert not claim_path(study.folder, "FL-seed0").exists()
    with pytest.raises(CheckpointError):
        run_cell(study, "FL-seed0")


def test_a_claimed_cell_is_left_alone(make: Make) -> None:
    study = make()
    prepare(study, resume=False, overwrite=False)
    claim = take(study.folder, "FL-seed0")
    assert claim is not None
    with pytest.raises(CellTaken, match="is being run by process"):
        run_cell(study, "FL-seed0")
    assert read_record(study.folder, "FL-seed0") is None


def test_the_grid_rule_trains_no_cell_twice(make: Make) -> None:
    study = make("lr: {{rule: grid, values: [1.0e-4, 0.05, 1.0e+30]}}\n", "schedule.warmup=0", steps=3)
    study = study._replace(arms=study.arms[:1], seeds=(0, 1))
    prepare(study, resume=False, overwrite=False)
    with pytest.raises(ConfigError, match=r"FL-lr0\.0001-seed0, FL-lr0\.05-seed0, FL-lr1e30-seed0"):
        run_cell(study, "FL-seed1")
    for number in range(3):
        run_cell(study, str(number))
    assert [recorded(study, cell.name).status for cell in list_cells(study)[:3]] == ["tuned", "tuned", "diverged"]
    tried = [cell for cell in collect(study, study.folder).cells if cell.tuning and cell.record.status == "done"]
    assert len(tried) == 1
    chosen = next(cell for cell in list_cells(study)[:2] if cell.lr != tried[0].record.lr)
    other = recorded(study, next(cell.name for cell in list_cells(study)[:2] if cell.lr == tried[0].record.lr))
    assert recorded(study, chosen.name).val_metrics["AP"] >= other.val_metrics["AP"]
    trained = (cell_folder(study, chosen) / "checkpoints" / "last.pt").stat().st_mtime_ns
    run_cell(study, chosen.name)
    assert recorded(study, chosen.name).status == "done"
    assert (cell_folder(study, chosen) / "checkpoints" / "last.pt").stat().st_mtime_ns == trained
    run_cell(study, "3")
    final = [cell for cell in collect(study, study.folder).cells if not cell.tuning]
    found = [(cell.record.seed, cell.record.lr, cell.record.status) for cell in final]
    assert found == [(0, chosen.lr, "done"), (1, chosen.lr, "done")]
    assert other.test_metrics == {}


def test_the_measured_step_writes_nothing_into_the_study(make: Make, tmp_path: Path) -> None:
    study = make("", "schedule.batch_size=2", steps=1000)
    pace = measure(study, tmp_path / "measured")
    assert 0 < pace.step < 10
    assert 0 < pace.image < 10
    assert not study.folder.exists()


def test_a_process_killed_for_its_cell_is_recorded_for_it(make: Make) -> None:
    study = make()
    prepare(study, resume=False, overwrite=False)
    with RunnerConsole(2) as console:
        runner = Runner(study, Slots(1, ()), console)
        first, second = runner.cells
        runner.note_failure(first, -signal.SIGKILL)
        assert "signal 9 (out of memory?)" in recorded(study, first.name).message
        assert runner.failed.keys() == {first.name}
        # If another machine is running the cell, or has finished it, its record counts.
        claim = take(study.folder, second.name)
        assert claim is not None
        runner.note_failure(second, 1)
        assert read_record(study.folder, second.name) is None
        release(claim)
        done = recorded(study, first.name)._replace(cell=second.name, status=CellStatus.DONE)
        write_record(study.folder, done)
        runner.note_failure(second, 1)
        assert recorded(study, second.name).status == "done"


def test_slots_are_gpus_or_jobs(make: Make) -> None:
    study = make("jobs: 3\n")
    assert build_slots(study, None, ()) == Slots(3, ())
    assert build_slots(study, 2, ()) == Slots(2, ())
    assert build_slots(study, None, ("0", "2")) == Slots(2, ("0", "2"))
    for jobs, gpus in ((0, ()), (2, ("0",)), (None, ("0", "0")), (None, ("",))):
        with pytest.raises(ConfigError, match="--jobs" if jobs is not None else "--gpus"):
            build_slots(study, jobs, gpus)


@pytest.mark.slow
def test_a_failed_arm_does_not_stop_the_others(make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In processes of their own, two at a time."""
    path = make().folder.parent / "study.yaml"
    arms = [
        "  - {name: hot, overrides: {schedule.lr: 1.0e+9}}",
        f"  - {{name: lost, overrides: {{model.backbone.weights: {tmp_path / 'none.pt'}}}}}",
        "reference: hot",
        "may_differ: [schedule.lr, model.backbone.weights]",
    ]
    lines = [line for line in path.read_text(encoding="utf-8").splitlines() if "name:" not in line]
    text = "\n".join(lines).replace("reference: FL", "\n".join(arms))
    path.write_text(text.replace("iterations: 2", "iterations: 6"), encoding="utf-8")
    study = load_study(path, [f"output={tmp_path / 'out'}", "schedule.warmup=0"])
    prepare(study, resume=False, overwrite=False)
    with pytest.raises(CellsFailed, match=r"lost-seed0: .*none\.pt"):
        run_cells(study, Slots(2, ()))
    states = {cell.record.arm: cell.record.status for cell in collect(study, study.folder).cells}
    assert states == {"hot": "diverged", "lost": "failed"}
    assert "step " in recorded(study, "hot-seed0").message
    out = capsys.readouterr().out
    assert "start hot-seed0" in out
    assert "[1/2]" in out
    assert "none.pt" in log_path(study.folder, "lost-seed0").read_text(encoding="utf-8")


@pytest.fixture
def start(tmp_path: Path, start_tool: Start) -> Iterator[Start]:
    """start("--resume") starts a runner of the study in tmp_path."""
    begun: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        output = f"output={tmp_path / 'out'}"
        begun.append(start_tool("ablate.py", tmp_path / "study.yaml", output, *arguments))
        return begun[-1]

    yield start
    for process in begun:
        if process.poll() is None:
            process.kill()
        process.communicate()


def final_numbers(study: Study) -> list[tuple[str, bytes, bytes]]:
    """All that must not depend on interruptions."""
    found = []
    for cell in list_cells(study):
        test = cell_folder(study, cell) / "test"
        found.append((cell.name, (test / "eval.json").read_bytes(), (test / "detections.json").read_bytes()))
    return found


@pytest.mark.slow
def test_killed_and_shared_by_two_runners_the_numbers_are_the_same(make: Make, start: Start) -> None:
    unbroken = make(steps=STEPS, output="unbroken")
    for number in "01":
        ablate.run_one(unbroken, number)
    study = make(steps=STEPS)
    first = start("--jobs", "1")
    last = cell_folder(study, list_cells(study)[0]) / "checkpoints" / "last.pt"
    wait_for(last.exists)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    # The cell's process notices that its runner has ended, saves and stops.
    wait_for(lambda: live_owner(study.folder, "FL-seed0") is None)
    assert read_record(study.folder, "FL-seed0") is None
    step = load_checkpoint(last).progress.step
    assert 0 < step < STEPS

    other = start("--resume")
    prepare(study, resume=True, overwrite=False)
    run_cells(study, Slots(1, ()))
    out, err = other.communicate(timeout=120)
    assert other.returncode == 0, err
    assert final_numbers(study) == final_numbers(unbroken)
    assert "report" in out
    for cell in list_cells(study):
        log = log_path(study.folder, cell.name).read_text(encoding="utf-8")
        assert log.count(f"{cell.name}: done") == 1, log
        steps = [int(step) for step in re.findall(r"^step +(\d+)/", log, re.MULTILINE)]
        repeated = len(steps) - len(set(steps))
        assert repeated <= 2, "at most one save interval is trained again"


@contextmanager
def sigterm_after_a_save(study: Study) -> Iterator[None]:
    """SIGTERM comes to this process once the first cell has saved."""
    last = cell_folder(study, list_cells(study)[0]) / "checkpoints" / "last.pt"

    def send() -> None:
        wait_for(last.exists)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_an_interrupted_cell_is_no_failed_one(make: Make) -> None:
    study = make(steps=400)
    prepare(study, resume=False, overwrite=False)
    with pytest.raises(Interrupted), sigterm_after_a_save(study):
        run_cell(study, "0")
    assert read_record(study.folder, "FL-seed0") is None
    assert not claim_path(study.folder, "FL-seed0").exists()


@pytest.mark.slow
def test_a_signal_is_passed_on_and_what_runs_is_saved(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    study = make(steps=400)
    prepare(study, resume=False, overwrite=False)
    with pytest.raises(Interrupted, match="--resume") as raised, sigterm_after_a_save(study):
        run_cells(study, Slots(1, ()))
    assert raised.value.exit_code == 143
    assert "stopping: 1 cells are saving" in capsys.readouterr().out
    assert live_owner(study.folder, "FL-seed0") is None
    assert read_record(study.folder, "FL-seed0") is None
    assert "Interrupted by SIGTERM" in log_path(study.folder, "FL-seed0").read_text(encoding="utf-8")
