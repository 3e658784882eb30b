"""The first and the last lines of a run."""

import io
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from retinanet import distributed
from retinanet.commands.train import command_lines
from retinanet.config.schema import Config
from retinanet.display.facts import Facts
from retinanet.run.command_lines import CommandLines
from retinanet.run.folder import RunFolder
from retinanet.training.batches import load_data
from retinanet.training.closing import Ending, describe_end
from retinanet.training.opening import Opening, describe_run
from retinanet.training.optim import build_plan
from retinanet.training.state import build_state

Tiny = Callable[..., Config]


def text_of(what: RenderableType, width: int = 80) -> str:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(what, crop=False)
    return console.export_text()


@pytest.mark.parametrize("width", [80, 120])
def test_the_first_lines_name_everything_that_decides_a_run(tiny: Tiny, tmp_path: Path, width: int) -> None:
    words = ("schedule.batch_size=8", "schedule.ema=0.9", "schedule.accumulation=2", "data.scale_jitter=[0.8, 1.2]")
    words += ("log.pictures=1",)
    config, ranks = tiny(*words, "schedule.shape=steps", "schedule.milestones=[4]"), distributed.read_ranks()
    device = distributed.choose_device("cpu", ranks)
    train_set, val_set = load_data(config, ranks)
    state = build_state(config, len(train_set.categories), device, ranks)
    opening = Opening(
        config=config,
        plan=build_plan(config.schedule, len(train_set.images)),
        train_set=train_set,
        val_set=val_set,
        epoch_images=12,
        evaluations=3,
        model=state.model,
        step=0,
        device=device,
        ranks=ranks,
        folder=tmp_path / "run",
    )
    shown = text_of(Facts(describe_run(opening)), width)
    assert all(len(line) <= width for line in shown.splitlines() if "/" not in line)
    words_shown = " ".join(shown.split())
    one_line = "".join(
        line.strip() for line in shown.splitlines()
    )  # a path that is longer than a line continues on the next
    count = sum(p.numel() for p in state.model.parameters())
    for part in (
        *("mobilenet_v2", f"{count:,} parameters, all of them train", "random weights"),
        *("12 images", "6 images", "annotations/train.json", "annotations/val.json", "of 3 classes"),
        *("64 x 64 (height x width)", "horizontal flip 0.5", "zoom 0.8 to 1.2"),
        *("8 images a step: 1 process x 2 micro-batches of 4", "3 steps (2 epochs) from step 0, 3 evaluations"),
        *("SGD, lr 0.02", "warmup 1 step", "x 0.1 at steps 2", "EMA 0.9"),
        *("batch size 8 instead of 4: lr 0.01 -> 0.02", "cpu: ", "thread", "float32"),
        *(str(tmp_path / "run"), "pictures/data.png"),
    ):
        assert part in words_shown or part in one_line, part
    resumed = text_of(Facts(describe_run(opening._replace(step=2))))
    assert "weights of the run so far" in resumed
    assert "from step 2" in resumed
    assert "data.png" not in resumed


def evaluated(folder: Path, classes: int, ap: float) -> RunFolder:
    """A run folder with a best checkpoint and its eval.json; class k has AP k / 100."""
    run = RunFolder(folder)
    run.best.parent.mkdir(parents=True)
    run.best.touch()
    rows: list[dict[str, Any]] = [
        {"name": f"class{k}", "AP": k / 100, "AP50": 0.9, "instances": 3} for k in range(classes)
    ]
    rows.append({"name": "absent", "AP": -1.0, "AP50": -1.0, "instances": 0})
    content = {"metrics": {"AP": ap, "AP50": 0.75, "AP75": 0.25}, "per_class": rows, "step": 1200}
    run.eval.write_text(json.dumps(content), encoding="utf-8")
    return run


ENDING = Ending(first_step=0, step=1500, seconds=250.0, evaluating=12.0)


def test_the_last_lines_have_the_result_the_files_and_what_to_type(tmp_path: Path) -> None:
    run = evaluated(tmp_path / "my run", 3, ap=0.466)
    shown = text_of(describe_end(run, ENDING, CommandLines(predict="python tools/predict.py")), 400)
    assert "1,500 steps in 4m10s, 12s of it for evaluation" in shown
    assert "AP 0.466  AP50 0.750  AP75 0.250  at step 1,200" in shown
    rows = [line.split() for line in shown.splitlines()]
    assert ["class2", "0.020", "0.900", "3"] in rows
    assert ["absent", "-", "-", "0"] in rows
    _, after = shown.split("\nnext")
    best = str(run.best)
    assert [shlex.split(line) for line in after.splitlines()] == [
        ["python", "tools/predict.py", best, "PHOTOS/", "--thresholds", str(run.eval)],
        ["retinanet", "eval", best],
        ["retinanet", "export", best, str(run.path / "best.onnx")],
    ]
    assert "doctor" not in shown


@pytest.mark.parametrize(("ap", "hint"), [(0.0, True), (0.009, True), (0.01, False), (-1.0, False)])
def test_an_ap_near_zero_names_the_command_that_looks_for_the_cause(tmp_path: Path, ap: float, hint: bool) -> None:
    shown = text_of(describe_end(evaluated(tmp_path / "run", 1, ap), ENDING, CommandLines()), 200)
    assert (f"retinanet doctor {tmp_path / 'run'}" in shown) == hint
    assert ("AP is near 0" in shown) == hint


def test_of_many_classes_the_lowest_and_the_highest_are_shown(tmp_path: Path) -> None:
    words = text_of(describe_end(evaluated(tmp_path / "run", 50, 0.3), ENDING, CommandLines()), 100).split()
    names = [int(word.removeprefix("class")) for word in words if word.startswith("class") and word[5:].isdecimal()]
    assert sorted(names) == [*range(10), *range(40, 50)]


def test_a_run_without_anything_to_do_says_so(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    ending = Ending(first_step=7, step=7, seconds=1.0, evaluating=0.0)
    assert "after 7 steps; there was nothing left to do" in text_of(describe_end(run, ending, CommandLines()))
    resumed = ENDING._replace(first_step=900)
    assert "steps 901 to 1,500 in" in text_of(describe_end(run, resumed, CommandLines()))


@pytest.mark.parametrize(
    ("prog", "script", "processes", "resume", "predict"),
    [
        ("retinanet train", "bin/retinanet", 1, "retinanet train", "retinanet predict"),
        ("retinanet train", "x/__main__.py", 1, "python -m retinanet train", "python -m retinanet predict"),
        ("retinanet train", "bin/retinanet", 4, "torchrun --nproc-per-node 4 -m retinanet train", "retinanet predict"),
        (None, "SCRIPT", 1, "python SCRIPT", "python PREDICT"),
        (None, "SCRIPT", 2, "torchrun --nproc-per-node 2 SCRIPT", "python PREDICT"),
    ],
)  # fmt: skip
def test_commands_are_called_as_this_one_was(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    prog: str | None,
    script: str,
    processes: int,
    resume: str,
    predict: str,
) -> None:
    (tmp_path / "predict.py").touch()
    names = {"SCRIPT": str(tmp_path / "train.py"), "PREDICT": str(tmp_path / "predict.py")}
    for name, path in names.items():
        script, resume, predict = (text.replace(name, path) for text in (script, resume, predict))
    monkeypatch.setattr("sys.argv", [script])
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    lines = command_lines(prog, ["a b.yaml", "--overwrite", "--resume", "seed=1"])
    assert lines.resume == f"{resume} 'a b.yaml' seed=1 --resume"
    assert lines.predict == predict
    assert lines.doctor.endswith("retinanet doctor")
