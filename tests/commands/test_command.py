"""`retinanet COMMAND`: one command line, from any folder, on any system."""

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from places import PROJECT

from retinanet.__main__ import COMMANDS, command_main, main
from retinanet.config.shipped import find_config, find_study, shipped_configs

Command = Callable[..., tuple[int, str, str]]

MISTAKES: list[tuple[list[str], str]] = [
    (["train", "quickstart", "schedule.learning_rate=1"], "schedule.lr"),
    (["train", "quikstart"], "did you mean quickstart"),
    (["ablate", "quickstart", "schedule.iterations=x"], "schedule.iterations"),
    (["anchors", "quickstart", "model.anchors.size=[1]"], "model.anchors.sizes"),
    (["eval", "best.pt", "eval.topk=-3"], "eval.topk"),
    (["predict", "best.pt", "nowhere/*.jpg"], "nowhere/*.jpg"),
    (["predict", "best.pt", ".", "evla.topk=3"], "eval"),
    (["export", "best.pt", "a.onnx", "evla.topk=3"], "eval"),
    (["convert", "detectron2", "a.pkl", "b.pt", "modle.head.depth=3"], "model"),
    (["loss-distribution", "best.pt", "data.rot=x"], "data.root"),
    (["config", "show", "quickstrat"], "quickstart"),
]
"""Words of a command line, and a part of its message."""
WITHOUT_TORCH = """
import contextlib, io, json, sys
from retinanet.__main__ import main
outcomes = []
for words in json.loads(sys.argv[1]):
    sys.argv, err, code = ["retinanet", *words], io.StringIO(), 0
    with contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    outcomes.append([code, err.getvalue(), sorted({"torch", "torchvision", "numpy"} & set(sys.modules))])
print(json.dumps(outcomes))
"""

WITHOUT_POSIX = """
import os, sys
for name in ("fcntl", "resource", "termios", "pwd"):
    sys.modules[name] = None  # as on Windows, where Python has no such modules
os.environ["USERNAME"] = "user"  # as Windows sets it, and torch 2.11 needs it there
import retinanet.ablation.ablate, retinanet.ablation.report.report
from retinanet.__main__ import command_main
run, data, out = sys.argv[1:4]
truth, found = f"{data}/annotations/val.json", f"{run}/detections.json"
short = ["model.backbone.name=resnet18", "model.backbone.norm=frozen_bn", "model.head.norm=none"]  # to trace
keys = [f"data.root={data}", "schedule.iterations=1", f"output={run}", *short]
command_main("train")([sys.argv[4], *keys], "retinanet train")
last = f"{run}/checkpoints/last.pt"
command_main("predict")([last, f"{data}/val", "--output", f"{out}/p"], "retinanet predict")
files = ["--ground-truth", truth, "--output", f"{out}/e"]
command_main("eval")([*files, "--detections", found, "--no-report"], "retinanet eval")
command_main("compare")([found, found, "--ground-truth", truth, "--output", f"{out}/c"], "retinanet compare")
command_main("export")([last, f"{out}/net.pt2", "--skip-check"], "retinanet export")
"""


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """command("train", argument, ...) runs `retinanet train argument ...` within this process."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["retinanet", *map(str, words)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return call


def run_python(program: str, *words: object, cwd: Path = PROJECT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, words)],
        cwd=cwd,
        env={"PYTHONPATH": str(PROJECT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "HOME": str(cwd)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_help_lists_every_command(command: Command) -> None:
    for words in ([], ["--help"], ["-h"]):
        code, out, err = command(*words)
        assert (code, err) == (0, "")
        assert re.findall(r"^  ([a-z-]+) ", out, flags=re.MULTILINE) == list(COMMANDS)
        assert max(map(len, out.splitlines())) <= 100


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_under_its_own_name(command: Command, name: str) -> None:
    code, out, err = command(name, "--help")
    assert (code, err) == (0, "")
    assert out.startswith(f"usage: retinanet {name} ")
    assert "tools/" not in out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("word", ["--help", "--version"])
def test_a_page_that_cannot_be_written_is_no_bug(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    full = Path("/dev/full").open("w", encoding="utf-8")  # noqa: SIM115 - closing it fails
    monkeypatch.setattr(sys, "argv", ["retinanet", word])
    monkeypatch.setattr(sys, "stdout", full)
    with pytest.raises(SystemExit) as ended:
        main()
    with contextlib.suppress(OSError):
        full.close()
    assert ended.value.code == 6


def test_an_unknown_command_suggests_the_nearest(command: Command) -> None:
    code, out, err = command("trian")
    assert (code, out) == (2, "")
    assert "there is no command 'trian'; did you mean train?" in err
    with pytest.raises(ValueError, match="no command"):
        command_main("trian")


def test_the_version_is_the_packages(command: Command) -> None:
    code, out, _ = command("--version")
    assert code == 0
    assert re.fullmatch(r"retinanet \d+\.\d+\.\d+\n", out)


def test_shipped_configs_are_found_by_name_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    configs = PROJECT / "configs"
    assert find_config("quickstart") == configs / "quickstart.yaml"
    assert find_config("configs/quickstart.yaml") == configs / "quickstart.yaml"
    assert find_config("recipes/paper") == find_config("paper") == configs / "recipes" / "paper.yaml"
    assert find_study("quickstart") == configs / "ablations" / "quickstart.yaml"
    assert find_study("ablations/paper_1a") == find_study("paper_1a") == configs / "ablations" / "paper_1a.yaml"
    assert find_config("none") == Path("none")
    (tmp_path / "quickstart").write_text("", encoding="utf-8")
    assert find_config("quickstart") == Path("quickstart"), "a file that is there comes first"
    assert {"quickstart", "ablations/quickstart", "coco/r50_600_1x"} <= set(shipped_configs())


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, str, list[str]]]:
    """Of each of MISTAKES, one after the other in one process: exit code, stderr, and tensor libraries imported."""
    words = json.dumps([words for words, _ in MISTAKES])
    done = run_python(WITHOUT_TORCH, words, cwd=tmp_path_factory.mktemp("mistakes"))
    assert done.returncode == 0, done.stderr
    return [tuple(outcome) for outcome in json.loads(done.stdout)]


@pytest.mark.parametrize("number", range(len(MISTAKES)), ids=[words[0] for words, _ in MISTAKES])
def test_a_mistake_is_reported_before_a_tensor_library_is_imported(
    number: int, outcomes: list[tuple[int, str, list[str]]]
) -> None:
    code, err, imported = outcomes[number]
    assert code in (2, 3), err
    assert "Traceback" not in err
    assert err.count("error: ") >= 1
    assert MISTAKES[number][1] in err
    assert imported == []


@pytest.mark.slow
def test_no_command_needs_modules_that_only_posix_has(tiny_yaml: Path, shapes: Path, tmp_path: Path) -> None:
    done = run_python(WITHOUT_POSIX, tmp_path / "run", shapes, tmp_path / "out", tiny_yaml, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    for name in ("p/detections.json", "e/eval.json", "c/compare.json", "net.pt2"):
        assert (tmp_path / "out" / name).is_file(), name
