"""A run that was killed, interrupted and resumed equals an uninterrupted one to the bit."""

import hashlib
import json
import os
import random
import re
import shlex
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest
import torch
from forked_tools import ForkedTool
from places import PROJECT

from retinanet.config.schema import Config
from retinanet.errors import ConfigError, NumericalError
from retinanet.run.checkpoint import load_checkpoint, not_finite_parts, save_checkpoint
from retinanet.run.metric_rows import read_rows, without_clock
from retinanet.training import step as engine_step
from retinanet.training.engine import run_training
from retinanet.training.state import TrainState

STEPS = 18
WORDS = (
    f"schedule.iterations={STEPS}",
    *("schedule.ema=0.9", "schedule.optimizer=adamw", "schedule.lr=0.001", "model.backbone.norm=bn"),
    *("model.fpn.channels=32", "model.head.norm=none"),
    "loss.normaliser=running_positives",
    *("log.save_every=2", "eval.every=5", "eval.unit=steps", "data.color_jitter=0.2", "data.scale_jitter=[0.8, 1.2]"),
)
Start = Callable[..., ForkedTool]


def run_hash(folder: Path) -> dict[str, str]:
    """SHA-256 of all that must not depend on interruptions."""
    found = {}
    for name in ("last", "best"):
        saved = load_checkpoint(folder / "checkpoints" / f"{name}.pt")
        parts: list[bytes] = []
        for part in (saved.model, saved.average, saved.optimizer, saved.progress._asdict(), saved.running_positives_R):
            collect(part, parts)
        found[name] = hashlib.sha256(b"|".join(parts)).hexdigest()
    found["metrics"] = hashlib.sha256(without_clock(folder / "metrics.jsonl")).hexdigest()
    for name in ("eval.json", "detections.json"):
        found[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    return found


def collect(value: object, parts: list[bytes]) -> None:
    """Bytes of every tensor and plain value, in a fixed order."""
    if isinstance(value, torch.Tensor):
        parts += [str((value.dtype, tuple(value.shape))).encode(), value.contiguous().numpy().tobytes()]
    elif isinstance(value, dict):
        for key in value:
            parts.append(repr(key).encode())
            collect(value[key], parts)
    elif isinstance(value, list | tuple):
        for item in value:
            collect(item, parts)
    else:
        parts.append(repr(value).encode())


def last_step(folder: Path) -> int:
    """Step of the last training row, 0 while there is none."""
    file = folder / "metrics.jsonl"
    rows = re.findall(rb'"kind": "train", "step": (\d+)', file.read_bytes()) if file.exists() else []
    return int(rows[-1]) if rows else 0


def log_inode(folder: Path) -> int:
    """Changes when a process continues the run, since that replaces its metrics.jsonl; 0 while there is none."""
    file = folder / "metrics.jsonl"
    return file.stat().st_ino if file.exists() else 0


def wait_for_step(process: ForkedTool, folder: Path, step: int, inode_before: int) -> None:
    """Until this process, not one before it, has continued the run and logged `step`."""
    deadline = time.monotonic() + 60
    while log_inode(folder) == inode_before or last_step(folder) < step:
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise AssertionError(f"ended before step {step}: {process.communicate(timeout=30)}")
        time.sleep(0.005)


@pytest.fixture(scope="module")
def unbroken(tiny: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    run_training(tiny(*WORDS), folder)
    return folder


@pytest.mark.slow
def test_a_run_killed_five_times_and_interrupted_twice_equals_an_uninterrupted_one(
    unbroken: Path, tiny_yaml: Path, start_tool: Start, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    delays = random.Random(7)
    arguments = (tiny_yaml, *WORDS, f"output={run}", "data.workers=1", "--resume")
    for step, number in (
        *((0, signal.SIGKILL), (1, signal.SIGKILL), (4, signal.SIGKILL), (6, signal.SIGTERM), (7, signal.SIGKILL)),
        *((9, signal.SIGINT), (11, signal.SIGKILL)),
    ):
        before, first = log_inode(run), last_step(run) + 1
        process = start_tool("train.py", *arguments)
        # A step that this process has made, so that it listens to signals.
        wait_for_step(process, run, max(step, first), before)
        if number == signal.SIGKILL:
            time.sleep(delays.uniform(0, 0.02))
            process.kill()
            process.communicate(timeout=30)
            continue
        # To the whole process group, as a terminal and batch systems do.
        seen = last_step(run)
        os.killpg(process.pid, number)
        _, err = process.communicate(timeout=30)
        assert process.returncode == 128 + number, err
        assert "Traceback" not in err
        message = re.fullmatch(
            rf"Interrupted by {number.name}\. Saved step (\d+) of {STEPS} to .*last\.pt\. Continue with: (.+)\n", err
        )
        assert message is not None, err
        assert shlex.split(message[2]) == ["python", str(PROJECT / "tools" / "train.py"), *map(str, arguments)]
        saved = load_checkpoint(run / "checkpoints" / "last.pt").progress.step
        assert saved == int(message[1]) == last_step(run)
        assert seen <= saved <= seen + 2
    # The run must end its loader threads itself: a collector that comes too late would let it hang.
    process = start_tool("train.py", *arguments, collector=False)
    out, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    assert f"{STEPS} steps (6 epochs) from step" in out
    assert run_hash(run) == run_hash(unbroken)
    assert [row["step"] for row in read_rows(run / "metrics.jsonl") if row["kind"] == "train"] == [*range(1, STEPS + 1)]


@pytest.mark.slow
def test_sigusr1_saves_and_the_run_goes_on(
    tiny: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    saved: list[int] = []

    def signal_itself(_: object, lr: float) -> None:
        if lr == 0.01 and not saved:
            os.kill(os.getpid(), signal.SIGUSR1)

    monkeypatch.setattr("retinanet.training.loop.set_lr", signal_itself)
    monkeypatch.setattr("retinanet.training.loop.save_last", lambda _, state, __: saved.append(state.progress.step))
    run_training(tiny("schedule.iterations=5"), tmp_path / "run")
    assert saved == [3, 5]
    assert re.search(
        r"SIGUSR1: saving after this step, then going on\n(.*\n)?saved step 3 to ", capsys.readouterr().out
    )


@pytest.mark.slow
def test_a_terminal_that_closes_stops_the_run_after_saving(tiny_yaml: Path, start_tool: Start, tmp_path: Path) -> None:
    run, (outer, inner) = tmp_path / "run", os.openpty()
    words = (tiny_yaml, "schedule.iterations=100000", f"output={run}")
    process = start_tool("train.py", *words, environment={"TERM": "xterm"}, terminal=os.ttyname(inner))
    Thread(target=lambda: [None for _ in iter(lambda: read_terminal(outer), b"")], daemon=True).start()
    try:
        deadline = time.monotonic() + 60
        while last_step(run) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        os.close(inner)  # not before the run has opened it, or the thread above would read the end of the terminal
        os.kill(process.pid, signal.SIGSTOP)  # or the thread above would keep the terminal open
        seen = last_step(run)
        os.close(outer)
        os.kill(process.pid, signal.SIGHUP)
        os.kill(process.pid, signal.SIGCONT)
        assert process.poll(60) == 129
    finally:
        process.kill()  # or it would go on for all its steps
    assert seen <= load_checkpoint(run / "checkpoints/last.pt").progress.step == last_step(run)


def read_terminal(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""


@pytest.mark.slow
def test_the_hash_notices_one_changed_bit(unbroken: Path, tmp_path: Path) -> None:
    copied = tmp_path / "run"
    for name in ("metrics.jsonl", "eval.json", "detections.json", "checkpoints/last.pt", "checkpoints/best.pt"):
        (copied / name).parent.mkdir(parents=True, exist_ok=True)
        (copied / name).write_bytes((unbroken / name).read_bytes())
    assert run_hash(copied) == run_hash(unbroken)
    last = load_checkpoint(copied / "checkpoints/last.pt")
    moment = next(iter(last.optimizer["state"].values()))["exp_avg"]
    first = (0,) * moment.ndim
    moment[first] = torch.nextafter(moment[first], torch.tensor(10.0))
    save_checkpoint(copied / "checkpoints/last.pt", last)
    differs = [name for name, value in run_hash(copied).items() if value != run_hash(unbroken)[name]]
    assert differs == ["last"]


@pytest.mark.slow
def test_resuming_a_finished_run_changes_nothing(unbroken: Path, tiny: Callable[..., Config]) -> None:
    before = run_hash(unbroken)
    run_training(tiny(*WORDS), unbroken, resume=True)
    assert run_hash(unbroken) == before


@pytest.mark.slow
def test_resuming_without_a_run_starts_a_new_one(tiny: Callable[..., Config], tmp_path: Path) -> None:
    run_training(tiny("schedule.iterations=1"), tmp_path / "run", resume=True)
    assert last_step(tmp_path / "run") == 1


@pytest.mark.slow
def test_resuming_with_another_config_lists_what_differs(unbroken: Path, tiny: Callable[..., Config]) -> None:
    before = run_hash(unbroken)
    config_text = (unbroken / "config.yaml").read_text(encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        run_training(
            tiny(*WORDS, "schedule.ema=0.5", "data.flip=0.25", "log.every=1", "data.workers=1"), unbroken, resume=True
        )
    message = str(caught.value)
    assert "schedule.ema: was 0.9, now 0.5" in message
    assert "data.flip: was 0.5, now 0.25" in message
    assert "workers" not in message
    assert "2 errors" in message
    assert run_hash(unbroken) == before
    assert (unbroken / "config.yaml").read_text(encoding="utf-8") == config_text


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["cut", "gone", "infinite"])
def test_a_run_whose_last_checkpoint_cannot_be_used_continues_from_the_one_before(
    damage: str, unbroken: Path, tiny: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(unbroken, run)
    last = run / "checkpoints/last.pt"
    assert sorted(file.name for file in last.parent.iterdir()) == ["best.pt", "last.pt", "step-16.pt"]
    match damage:
        case "cut":
            last.write_bytes(last.read_bytes()[:9999])
        case "gone":
            last.unlink()
        case _:
            saved = load_checkpoint(last)
            next(iter(saved.model.values()))[0, 0] = torch.inf
            save_checkpoint(last, saved)
    run_training(tiny(*WORDS), run, resume=True)
    assert re.search(r"last\.pt: .+ Continuing from .*step-16\.pt, step 16\.", capsys.readouterr().out)
    assert run_hash(run) == run_hash(unbroken)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("events", "text"), [(True, "16 restored from TensorBoard, rounded to float32"), (False, "16 lost")]
)
def test_lost_rows_are_noticed_and_restored(
    events: bool, text: str, unbroken: Path, tiny: Callable[..., Config], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(unbroken, run)
    metrics, before = run / "metrics.jsonl", read_rows(unbroken / "metrics.jsonl")
    lines = metrics.read_bytes().splitlines(keepends=True)
    metrics.write_bytes(b"".join(lines[:3] + lines[19:-1]) + lines[-1][:20])
    if not events:
        shutil.rmtree(run / "tensorboard")
    run_training(tiny(*WORDS), run, resume=True)
    rows = read_rows(metrics)
    assert [row["text"] for row in rows if row["kind"] == "note"] == [
        f"16 of 21 rows up to step 18 were missing from metrics.jsonl: {text}"
    ]
    numbers = [row for row in rows if row["kind"] != "note"]
    assert len(numbers) == (22 if events else 6)
    if events:
        assert [(row["kind"], row["step"]) for row in numbers] == [(row["kind"], row["step"]) for row in before]
        for row, original in zip(numbers, before, strict=True):
            numbers_of = [{k: v for k, v in some.items() if k not in ("clock", "kind")} for some in (row, original)]
            assert numbers_of[0] == pytest.approx(numbers_of[1], rel=1e-6)


@pytest.mark.slow
def test_a_run_whose_weights_explode_saves_none_of_it_and_continues_with_another_rate(
    tiny: Callable[..., Config], tmp_path: Path
) -> None:
    run, words = tmp_path / "run", ("schedule.iterations=4", "log.save_every=1", "eval.every=1", "eval.unit=steps")
    update = engine_step.apply_gradients

    def explode(state: TrainState) -> None:
        update(state)
        if state.progress.step == 2:
            next(iter(state.model.parameters())).data[0, 0] = torch.inf

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_step, "apply_gradients", explode)
        with pytest.raises(
            NumericalError, match=r"step 3: 1 tensors hold .* Saved step 2 of 4 .* schedule\.lr=0\.001$"
        ):
            run_training(tiny(*words), run)
    for name in ("last", "best"):
        assert not not_finite_parts(load_checkpoint(run / "checkpoints" / f"{name}.pt"))
    run_training(tiny(*words, "schedule.lr=0.001"), run, resume=True)
    rows = read_rows(run / "metrics.jsonl")
    assert [row["text"] for row in rows if row["kind"] == "note"] == [
        "continued at step 2 with schedule.lr=0.001 (was 0.01)"
    ]
    assert [row["lr"] for row in rows if row["kind"] == "train"][2:] == [0.001, 0.001]


@pytest.mark.slow
def test_a_damaged_last_checkpoint_is_refused_and_nothing_lost(
    unbroken: Path, tiny: Callable[..., Config], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    (run / "metrics.jsonl").write_bytes((unbroken / "metrics.jsonl").read_bytes())
    whole = (unbroken / "checkpoints/last.pt").read_bytes()
    (run / "checkpoints/last.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"last\.pt: not a checkpoint, or cut short"):
        run_training(tiny(*WORDS), run, resume=True)
    assert (run / "metrics.jsonl").read_bytes() == (unbroken / "metrics.jsonl").read_bytes()
    assert json.loads((unbroken / "eval.json").read_text(encoding="utf-8"))["step"] > 0
