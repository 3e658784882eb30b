"""Cells that run, diverge, fail, are killed and shared: the folder ends up the same."""

import json
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from forked_tools import ToolServer
from places import PROJECT

from retinanet.ablation import ablate, local
from retinanet.ablation import run_cell as run_cell_module
from retinanet.ablation import runner as runner_module
from retinanet.ablation.cell_process import RUNNER_VARIABLE
from retinanet.ablation.cells import Cell, CellRecord, CellStatus, cell_folder, list_cells, read_record, write_record
from retinanet.ablation.claims import ClaimTaken, claim_owner, claimed
from retinanet.ablation.estimate import measure
from retinanet.ablation.local import Slots, ThisMachine, build_slots
from retinanet.ablation.placement import CellProcess, Ended
from retinanet.ablation.report.collect import collect
from retinanet.ablation.run_cell import run_cell
from retinanet.ablation.runner import LOSSES, CellsFailed, Child, Runner, run_cells
from retinanet.ablation.runner_console import RunnerConsole
from retinanet.ablation.study import Study, load_study
from retinanet.ablation.study_folder import log_path, prepare_study, study_file
from retinanet.errors import CheckpointError, ConfigError, Interrupted, ResourceError
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
Make = Callable[..., Study]
Script = Callable[..., Study]


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


@pytest.mark.slow
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
    assert claim_owner(study.folder, "FL-seed0") == ""

    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    capsys.readouterr()
    ablate.run_one(study, "FL-seed0")
    assert "is finished: done" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}
    result = collect(study, study.folder)
    assert [cell.record.status for cell in result.cells] == ["done", "waiting"]
    assert result.cells[0].folder == folder


@pytest.mark.slow
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
    prepare_study(study, resume=False, overwrite=False)
    with pytest.raises(CheckpointError):
        run_cell(study, "FL-seed0")
    record = recorded(study, "FL-seed0")
    assert record.status == "failed"
    assert "none.pt" in record.message
    assert claim_owner(study.folder, "FL-seed0") == ""
    with pytest.raises(CheckpointError):
        run_cell(study, "FL-seed0")


@pytest.mark.slow
def test_a_claimed_cell_is_left_alone(make: Make) -> None:
    study = make()
    prepare_study(study, resume=False, overwrite=False)
    with claimed(study.folder, "FL-seed0"), pytest.raises(ClaimTaken, match="FL-seed0 is being run by process"):
        run_cell(study, "FL-seed0")
    assert read_record(study.folder, "FL-seed0") is None


@pytest.mark.slow
def test_the_grid_rule_trains_no_cell_twice(make: Make) -> None:
    study = make("lr: {{rule: grid, values: [1.0e-4, 0.05, 1.0e+30]}}\n", "schedule.warmup=0", steps=3)
    study = study._replace(arms=study.arms[:1], seeds=(0, 1))
    prepare_study(study, resume=False, overwrite=False)
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


def test_a_runners_cell_waits_for_a_choice_that_another_machine_recorded(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make("lr: {{rule: grid, values: [0.1, 0.2]}}\n")
    prepare_study(study, resume=False, overwrite=False)
    *tuning, cell = list_cells(study._replace(arms=study.arms[:1], seeds=(0, 1)))
    study = study._replace(arms=study.arms[:1], seeds=(0, 1))
    monkeypatch.setenv(RUNNER_VARIABLE, str(os.getppid()))
    monkeypatch.setattr(run_cell_module, "APPEARS_SECONDS", 0.05)
    monkeypatch.setattr(run_cell_module, "POLL_SECONDS", 0.01)
    with pytest.raises(ConfigError, match="first run the cells that select its learning rate"):
        run_cell_module.known_lr(study, cell)

    def record() -> None:
        for one, ap in zip(tuning, (0.2, 0.3), strict=True):
            found = record_of("FL", CellStatus.TUNED)._replace(cell=one.name, lr=one.lr, val_metrics={"AP": ap})
            write_record(study.folder, found)

    monkeypatch.setattr(run_cell_module, "APPEARS_SECONDS", 60.0)
    timer = threading.Timer(0.1, record)
    timer.start()
    assert run_cell_module.known_lr(study, cell) == 0.2
    timer.join()


@pytest.mark.slow
def test_the_measured_step_writes_nothing_into_the_study(make: Make, tmp_path: Path) -> None:
    study = make("", "schedule.batch_size=2", steps=1000)
    pace = measure(study, tmp_path / "measured")
    assert 0 < pace.step < 10
    assert 0 < pace.image < 10
    assert not study.folder.exists()


@pytest.mark.slow
def test_a_process_killed_for_its_cell_is_recorded_for_it(make: Make) -> None:
    study = make()
    prepare_study(study, resume=False, overwrite=False)
    with RunnerConsole(2) as console:
        runner = Runner(study, ThisMachine(study, Slots(1, ())), console)
        first, second = runner.cells
        runner.note_failure(first, Ended(-signal.SIGKILL))
        assert "signal 9 (out of memory?)" in recorded(study, first.name).message
        assert runner.failed.keys() == {first.name}
        # If another machine is running the cell, or has finished it, its record counts.
        with claimed(study.folder, second.name):
            runner.note_failure(second, Ended(1))
        assert read_record(study.folder, second.name) is None
        done = recorded(study, first.name)._replace(cell=second.name, status=CellStatus.DONE)
        write_record(study.folder, done)
        runner.note_failure(second, Ended(1))
        assert recorded(study, second.name).status == "done"


def test_slots_are_gpus_or_jobs(make: Make) -> None:
    study = make("jobs: 3\n")
    assert build_slots(study, None, ()) == Slots(3, ())
    assert build_slots(study, 2, ()) == Slots(2, ())
    assert build_slots(study, None, ("0", "2")) == Slots(2, ("0", "2"))
    assert build_slots(study, 3, ("0",)) == build_slots(study, None, ("0", "0", "0")) == Slots(3, ("0", "0", "0"))
    assert build_slots(study, 3, ("0", "2")) == Slots(3, ("0", "2", "0"))
    for jobs, gpus in ((0, ()), (1, ("0", "2")), (None, ("",))):
        with pytest.raises(ConfigError, match="--jobs" if jobs is not None else "--gpus"):
            build_slots(study, jobs, gpus)


@pytest.fixture
def script(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Script:
    """script(text, record, ...) makes a study whose cells' processes are a shell script, and runs it.

    The script has the cell's name in $cell; `record` copies the given record of the cell into its folder.
    """

    def run(text: str, *records: CellRecord) -> Study:
        study = make()
        prepare_study(study, resume=False, overwrite=False)
        for record in records:
            write_record(tmp_path / "given", record)
        cells, given = study.folder / "cells", tmp_path / "given" / "cells"
        path = tmp_path / "python"
        function = f'record() {{ mkdir -p "{cells}/$cell"; cp "{given}/$cell/cell.json" "{cells}/$cell/"; }}'
        path.write_text(f"#!/bin/sh\ncell=$6\n{function}\n{text}\n", encoding="utf-8")
        path.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(path))
        monkeypatch.setattr(local, "can_fork", lambda: False)
        monkeypatch.setattr(runner_module, "POLL_SECONDS", 0.02)
        return study

    return run


def record_of(arm: str, status: CellStatus, message: str = "") -> CellRecord:
    return CellRecord(cell=f"{arm}-seed0", arm=arm, seed=0, lr=0.01, status=status, message=message)


def test_a_failed_arm_does_not_stop_the_others(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    study = script(
        'record; case $cell in CE-*) echo "no file none.pt" >&2; exit 4;; esac',
        record_of("FL", CellStatus.DIVERGED, "step 2: the loss is nan"),
        record_of("CE", CellStatus.FAILED, "no file none.pt"),
    )
    with pytest.raises(CellsFailed, match=r"CE-seed0: no file none\.pt"):
        run_cells(study, ThisMachine(study, Slots(2, ())))
    states = {cell.record.arm: cell.record.status for cell in collect(study, study.folder).cells}
    assert states == {"FL": "diverged", "CE": "failed"}
    out = capsys.readouterr().out
    assert "start FL-seed0" in out
    assert "[1/2]" in out
    assert log_path(study.folder, "CE-seed0").read_text(encoding="utf-8") == "no file none.pt\n"


def full_disk(*_arguments: object) -> None:
    raise ResourceError("cell.json: cannot be written (No space left on device)")


def test_a_cell_without_space_does_not_stop_the_others_even_if_its_record_has_none(
    script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = script("case $cell in FL-*) exit 6;; esac; record", record_of("CE", CellStatus.DONE))
    monkeypatch.setattr(runner_module, "write_record", full_disk)
    with pytest.raises(
        CellsFailed, match=r"FL-seed0: .* exit code 6 \(disk full\? [\d,.]+ MB are free\); see .*FL-seed0"
    ):
        run_cells(study, ThisMachine(study, Slots(1, ())))
    assert recorded(study, "CE-seed0").status == "done"
    assert read_record(study.folder, "FL-seed0") is None, "--resume tries it again"


def test_the_error_of_a_cell_without_space_is_not_hidden_by_that_of_its_record(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = make()
    prepare_study(study, resume=False, overwrite=False)
    monkeypatch.setattr(run_cell_module, "write_record", full_disk)

    def train(*_arguments: object) -> None:
        raise ResourceError("last.pt: cannot be written (No space left on device)")

    monkeypatch.setattr(run_cell_module, "train_and_measure", train)
    with pytest.raises(ResourceError, match=r"last\.pt"):
        run_cell(study, "0")


def test_a_killed_process_fails_its_cell_and_a_taken_cell_is_tried_again(
    script: Script, capsys: pytest.CaptureFixture[str]
) -> None:
    study = script(
        'case $cell in CE-*) kill -9 $$;; esac; if ! [ -e "$0.$cell" ]; then touch "$0.$cell"; exit 8; fi; record',
        record_of("FL", CellStatus.DONE),
    )
    with pytest.raises(CellsFailed, match=r"CE-seed0: its process ended with signal 9 \(out of memory\?\)"):
        run_cells(study, ThisMachine(study, Slots(1, ())))
    assert recorded(study, "CE-seed0").status == "failed"
    assert recorded(study, "FL-seed0").status == "done"
    assert capsys.readouterr().out.count("start FL-seed0") == 2


def test_cells_share_gpus(script: Script) -> None:
    text = 'while ! [ -e "$0.go" ]; do sleep 0.02; done; record; echo "$CUDA_VISIBLE_DEVICES"'
    study = script(text, *(record_of(arm, CellStatus.DONE) for arm in ("FL", "CE")))
    machine = ThisMachine(study, Slots(3, ("0", "1", "0")))
    first = [machine.start(cell) for cell in list_cells(study)]
    assert [process.location() for process in first] == [" on GPU 0", " on GPU 1"]
    (study.folder.parent / "python.go").touch()
    wait_for(lambda: all(process.poll() == Ended(0) for process in first))
    assert machine.has_room(2)
    assert not machine.has_room(3)
    texts = [log_path(study.folder, cell.name).read_text(encoding="utf-8") for cell in list_cells(study)]
    assert texts == ["0\n", "1\n"]


def test_a_signal_is_passed_on_and_awaited(script: Script, capsys: pytest.CaptureFixture[str]) -> None:
    study = script('trap "echo saved; exit 143" TERM; touch "$0.started"; while :; do sleep 0.05; done')
    started = study.folder.parent / "python.started"
    with pytest.raises(Interrupted, match="--resume") as raised, sigterm_when(started.exists):
        run_cells(study, ThisMachine(study, Slots(1, ())))
    assert raised.value.exit_code == 143
    assert "stopping: waiting for FL-seed0 to save" in capsys.readouterr().out
    assert read_record(study.folder, "FL-seed0") is None
    assert log_path(study.folder, "FL-seed0").read_text(encoding="utf-8") == "saved\n"


class Nodes:
    """A placement whose processes have ended before they are looked at."""

    def __init__(self, *endings: Ended) -> None:
        self.endings, self.started = list(endings), 0

    def has_room(self, running: int) -> bool:
        return running == 0

    def start(self, cell: Cell) -> CellProcess:
        self.started += 1
        return Gone(self.endings.pop(0))


class Gone:
    def __init__(self, ended: Ended) -> None:
        self.ended = ended

    def location(self) -> str:
        return " on node3"

    def poll(self) -> Ended:
        return self.ended

    def send_signal(self, number: int) -> None:
        raise AssertionError


def run_on(study: Study, nodes: Nodes) -> Runner:
    """A runner of the study's first arm, when it has nothing left to do."""
    with RunnerConsole(1) as console:
        runner = Runner(study._replace(arms=study.arms[:1]), nodes, console)
        wait_for(lambda: not runner.step())
    return runner


def test_a_cell_goes_on_when_its_node_is_lost_but_not_for_ever(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    study = make()
    prepare_study(study, resume=False, overwrite=False)
    nodes = Nodes(*[Ended(None, "the node died")] * (LOSSES + 1))
    runner = run_on(study, nodes)
    assert nodes.started == LOSSES
    assert runner.failed == {"FL-seed0": f"{LOSSES} nodes in a row were lost while they ran it: the node died"}
    out = capsys.readouterr().out
    assert out.count("FL-seed0 on node3: lost the node; the cell continues from its last checkpoint") == LOSSES - 1
    # A step of progress between two losses starts the count anew.
    metrics = cell_folder(study, list_cells(study)[0]) / "metrics.jsonl"
    metrics.parent.mkdir()

    class Progressing(Nodes):
        def start(self, cell: Cell) -> CellProcess:
            process = super().start(cell)
            row = {"kind": "train", "step": self.started, "epoch": self.started, "clock": {}}
            metrics.write_text(json.dumps(row) + "\n", encoding="utf-8")
            return process

    nodes = Progressing(*[Ended(None)] * LOSSES, Ended(1, "out of luck"))
    assert run_on(study, nodes).failed == {"FL-seed0": "out of luck"}


def test_a_record_that_another_machine_wrote_may_appear_late(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make()
    prepare_study(study, resume=False, overwrite=False)
    monkeypatch.setattr(runner_module, "APPEARS_SECONDS", 0.1)
    runner = run_on(study, Nodes(Ended(0)))
    assert "has no record of it" in runner.failed["FL-seed0"]
    monkeypatch.setattr(runner_module, "APPEARS_SECONDS", 60.0)
    with RunnerConsole(1) as console:
        runner = Runner(study._replace(arms=study.arms[:1]), Nodes(Ended(0)), console)
        assert runner.step()
        assert runner.step()
        write_record(study.folder, record_of("FL", CellStatus.DONE))
        assert not runner.step()
    assert not runner.failed


@pytest.mark.parametrize(("status", "counted"), [(CellStatus.DONE, 1), (CellStatus.DIVERGED, 0)])
def test_a_cell_that_diverges_says_nothing_about_the_time_of_others(
    status: CellStatus, counted: int, make: Make
) -> None:
    study = make("")
    with RunnerConsole(1) as console:
        runner = Runner(study._replace(arms=study.arms[:1]), Nodes(Ended(0)), console)
        assert runner.step()
        write_record(study.folder, record_of("FL", status))
        assert not runner.step()
    assert len(runner.walls) == counted


def test_the_time_left_counts_the_steps_of_cells(make: Make) -> None:
    levels = "levels: [{{name: short}}, {{name: long, overrides: {{schedule.iterations: 6}}}}]\n"
    study = make(levels)
    with RunnerConsole(4) as console:
        runner = Runner(study, Nodes(Ended(0)), console)
        assert runner.seconds_left({}) is None
        runner.walls = [(10.0, 2.0)]  # two steps took ten seconds
        process = Gone(Ended(0))
        runner.running = [Child(list_cells(study)[0], process, step=0, began=time.monotonic())]
        assert runner.seconds_left({}) == pytest.approx(5 * (2 + 2 + 6 + 6), abs=1.0)


def final_numbers(study: Study) -> list[tuple[str, bytes, bytes]]:
    """All that must not depend on interruptions."""
    found = []
    for cell in list_cells(study):
        test = cell_folder(study, cell) / "test"
        found.append((cell.name, (test / "eval.json").read_bytes(), (test / "detections.json").read_bytes()))
    return found


RUNNER_THAT_IS_KILLED = f"""
import os, runpy, sys
os.environ["{RUNNER_VARIABLE}"] = str(os.getpid())
if os.fork():
    os.wait()
    sys.exit()
os.setsid()
os.dup2(os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND), 1)
sys.argv = ["retinanet", "ablate", sys.argv[1], "--cell", "0"]
runpy.run_module("retinanet", run_name="__main__")
"""


@pytest.mark.slow
def test_killed_and_shared_by_two_runners_the_numbers_are_the_same(make: Make, tool_server: ToolServer) -> None:
    real = "model.backbone.name=resnet18"  # the processes of cells do not have this one's small network
    unbroken = make("", real, steps=STEPS, output="unbroken")
    for number in "01":
        ablate.run_one(unbroken, number)
    study = make("", real, steps=STEPS)
    prepare_study(study, resume=False, overwrite=False)
    last = cell_folder(study, list_cells(study)[0]) / "checkpoints" / "last.pt"
    log = log_path(study.folder, "FL-seed0")
    log.touch()
    runner = tool_server.start_python("-c", RUNNER_THAT_IS_KILLED, study_file(study.folder), log)
    wait_for(last.exists)
    assert claim_owner(study.folder, "FL-seed0")
    runner.kill()
    # The cell's process notices that its runner has ended, saves and stops.
    wait_for(lambda: not claim_owner(study.folder, "FL-seed0"))
    assert read_record(study.folder, "FL-seed0") is None
    step = load_checkpoint(last).progress.step
    assert 0 < step < STEPS

    with RunnerConsole(2) as console:
        runners = [Runner(study, ThisMachine(study, Slots(1, ())), console) for _ in range(2)]
        runners[0].step()
        wait_for(lambda: claim_owner(study.folder, "FL-seed0"))
        wait_for(lambda: [one.step() for one in runners] == [False, False], seconds=120)
    assert runners[1].elsewhere == {"FL-seed0"}
    assert all(one.failed == {} for one in runners)
    assert final_numbers(study) == final_numbers(unbroken)
    for cell in list_cells(study):
        text = log_path(study.folder, cell.name).read_text(encoding="utf-8")
        assert text.count(f"{cell.name}: done") == 1, text
        steps = [int(step) for step in re.findall(r"^step +(\d+)/", text, re.MULTILINE)]
        repeated = len(steps) - len(set(steps))
        assert repeated <= 2, "at most one save interval is trained again"


@contextmanager
def sigterm_when(ready: Callable[[], object]) -> Iterator[None]:
    """SIGTERM is sent to this process once it is ready."""

    def send() -> None:
        wait_for(ready)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        thread.join()


@pytest.mark.slow
def test_an_interrupted_cell_has_not_failed(make: Make) -> None:
    study = make(steps=400)
    prepare_study(study, resume=False, overwrite=False)
    last = cell_folder(study, list_cells(study)[0]) / "checkpoints" / "last.pt"
    with pytest.raises(Interrupted), sigterm_when(last.exists):
        run_cell(study, "0")
    assert read_record(study.folder, "FL-seed0") is None
    assert claim_owner(study.folder, "FL-seed0") == ""
    assert claim_owner(study.folder, "FL-seed0") == ""
