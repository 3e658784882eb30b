"""Every command line as a user types it: help, configs, ten kinds of wrong input, and one whole training."""

import json
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from forked_tools import ForkedTool
from PIL import Image
from places import PROJECT

from retinanet.ablation.study import load_study
from retinanet.config.load import load_config
from retinanet.errors import ConfigError
from retinanet.prepare.shapes import generate_shapes
from retinanet.run.folder import claim

TOOLS = ("train.py", "eval.py", "predict.py", "prepare_data.py", "ablate.py", "loss_distribution.py", "config.py")
FILES = ("--ground-truth", "g.json", "--detections", "d.json")
Tool = Callable[..., tuple[int, str, str]]

WITHOUT_TORCH = """
import runpy, sys
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as ended:
    assert not ended.code, ended.code
heavy = {"torch", "torchvision", "numpy", "pycocotools", "matplotlib", "PIL"} & sys.modules.keys()
assert not heavy, heavy
"""


@pytest.mark.parametrize("name", TOOLS)
def test_help_is_quick(name: str, tool_environment: dict[str, str]) -> None:
    command = [sys.executable, str(PROJECT / "tools" / name), "--help"]
    seconds = []
    for _ in range(3):
        started = time.monotonic()
        done = subprocess.run(command, env=tool_environment, capture_output=True, text=True, timeout=60, check=True)
        seconds.append(time.monotonic() - started)
        assert done.stdout.startswith("usage: ")
    assert statistics.median(seconds) < 0.5


@pytest.mark.parametrize("name", TOOLS)
def test_help_needs_no_heavy_import(name: str, tool_environment: dict[str, str]) -> None:
    command = [sys.executable, "-c", WITHOUT_TORCH, str(PROJECT / "tools" / name), "--help"]
    done = subprocess.run(command, env=tool_environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_a_printed_config_loads_back(tool: Tool, tiny_yaml: Path, tmp_path: Path) -> None:
    told = ["schedule.lr=0.125", "model.head.prior=0.02", "output=runs/it's a [test]: no. 5"]
    code, out, err = tool("train.py", tiny_yaml, *told, "--print-config")
    assert (code, err) == (0, "")
    (tmp_path / "printed.yaml").write_text(out, encoding="utf-8")
    assert load_config(tmp_path / "printed.yaml", []) == load_config(tiny_yaml, told)
    assert out.count("  # ") > 50, "every key is explained"


STUDIES = sorted((PROJECT / "configs" / "ablations").glob("*.yaml"))
CONFIGS = sorted(set((PROJECT / "configs").rglob("*.yaml")) - set(STUDIES))


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_config_of_the_project_resolves(tool: Tool, config: Path) -> None:
    code, out, err = tool("train.py", config, "--print-config")
    assert (code, err) == (0, "")
    assert out.startswith("model:")


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_of_the_project_resolves(path: Path) -> None:
    """Each arm's keys fit its loss's kind, and no arm differs in what the study does not name."""
    study = load_study(path)
    assert len(study.arms) >= 4
    assert len(study.seeds) >= 3
    assert study.base.data.root.startswith("data/")
    assert path.read_text(encoding="utf-8").startswith("# ")
    assert all(text in path.read_text(encoding="utf-8") for text in (f"configs/ablations/{path.name}", "# Measured"))


def told_once(outcome: tuple[int, str, str], code: int, *parts: str) -> None:
    """One clear message with these parts, this exit code and no traceback."""
    given, out, err = outcome
    assert given == code, err
    assert "Traceback" not in err + out
    assert err.count("error: ") == 1
    assert len(err) < 2000
    for part in parts:
        assert part in err


@pytest.mark.parametrize(
    ("name", "arguments", "parts"),
    [
        ("train.py", ["TINY", "schedule.learning_rate=0.1"], ["schedule.learning_rate", "schedule"]),
        ("train.py", ["TINY", "shedule.lr=0.1"], ["shedule", "schedule"]),
        ("train.py", ["TINY", "schedule.lr=fast"], ["schedule.lr"]),
        ("train.py", ["TINY", "schedule.lr"], ["schedule.lr"]),
        ("train.py", ["TINY", "schedule.accumulation=3"], ["schedule.batch_size", "multiple of 3"]),
        ("train.py", ["none.yaml"], ["none.yaml"]),
        ("train.py", ["TINY", "--over", "--print-config"], ["--over"]),
        ("train.py", [], ["config"]),
        ("eval.py", ["--ground-truth", "gt.json"], ["both --ground-truth and --detections"]),
        ("eval.py", ["--detections", "dt.json"], ["both --ground-truth and --detections"]),
        ("eval.py", [], ["give a checkpoint"]),
        ("eval.py", ["a.pt", *FILES], ["give a checkpoint, or"]),
        ("eval.py", ["a.pt", "--detections", "d.json"], ["not a.pt and files together"]),
        ("eval.py", ["a.pt", "--engine", "fast"], ["eval.engine=NAME"]),
        ("eval.py", ["eval.engine=fast"], ["eval.engine=fast: key=value words need a checkpoint"]),
        ("eval.py", [*FILES, "eval.engine=fast"], ["--engine"]),
        ("eval.py", [*FILES, "--images", ".", "--no-report"], ["--no-report"]),
        ("predict.py", ["a.pt"], ["INPUT"]),
        ("prepare_data.py", [], ["check|split|convert|fetch|shapes"]),
        ("prepare_data.py", ["shapes", "--train", "0"], ["train_images is 0"]),
    ],
)
def test_a_wrong_command_line_or_config_is_2(
    tool: Tool, tiny_yaml: Path, name: str, arguments: list[str], parts: list[str]
) -> None:
    told_once(tool(name, *(tiny_yaml if word == "TINY" else word for word in arguments)), 2, *parts)


@pytest.fixture
def data(shapes: Path, tmp_path: Path) -> Path:
    """A data set of one's own to break."""
    return Path(shutil.copytree(shapes, tmp_path / "mine"))


def edit(path: Path, change: Callable[[dict], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_a_broken_data_set_is_3_with_all_its_errors(tool: Tool, tiny_yaml: Path, data: Path, tmp_path: Path) -> None:
    missing, cut, *_ = sorted((data / "train").iterdir())
    missing.unlink()
    cut.write_bytes(cut.read_bytes()[:-200])

    def change(content: dict) -> None:
        content["annotations"][0]["category_id"] = 77
        content["annotations"][1]["bbox"] = [1, 2, 3]
        content["images"][5]["width"] = 63

    edit(data / "annotations/train.json", change)
    outcome = tool("train.py", tiny_yaml, f"data.root={data}", f"output={tmp_path / 'run'}")
    parts = (missing.name, cut.name, "truncated", "'category_id' 77", "'bbox'", "63 x 64", "5 errors")
    told_once(outcome, 3, str(data / "annotations/train.json"), *parts)
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize(
    ("content", "part"),
    [("", "the file is empty"), ("[]", "a list"), ("{}", "images"), ('{"images": [', "truncated"), ("text", "JSON")],
)
def test_an_annotation_file_that_is_none_is_3(
    tool: Tool, tiny_yaml: Path, data: Path, tmp_path: Path, content: str, part: str
) -> None:
    file = data / "annotations/val.json"
    file.write_text(content, encoding="utf-8")
    told_once(tool("train.py", tiny_yaml, f"data.root={data}", f"output={tmp_path / 'run'}"), 3, str(file), part)
    told_once(tool("eval.py", "--ground-truth", file, "--detections", file, "--output", tmp_path / "e"), 3, str(file))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_breaks_during_training_is_3_and_named(
    tool: Tool, tiny_yaml: Path, data: Path, tmp_path: Path, workers: int
) -> None:
    cut = sorted((data / "train").iterdir())[3]
    cut.write_bytes(cut.read_bytes()[:300])
    told = (f"data.root={data}", "data.check_images=none", f"data.workers={workers}", f"output={tmp_path / 'run'}")
    told_once(tool("train.py", tiny_yaml, *told), 3, cut.name, "truncated")


def test_data_that_is_not_there_is_3(tool: Tool, tiny_yaml: Path, tmp_path: Path, trained: Path) -> None:
    told_once(tool("train.py", tiny_yaml, "data.root=nowhere", f"output={tmp_path / 'r'}"), 3, "nowhere", "data.root")
    best = trained / "checkpoints" / "best.pt"
    told_once(tool("eval.py", best, "data.root=nowhere", "--output", tmp_path / "e"), 3, "nowhere")
    told_once(tool("predict.py", best, tmp_path / "*.jpg", "--output", tmp_path / "p"), 3, "*.jpg", "pattern")
    assert not (tmp_path / "p").exists()


def test_detections_of_another_data_set_are_3(tool: Tool, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "found.json"
    rows = [{"image_id": 999, "category_id": 1, "bbox": [0, 0, 5, 5], "score": 0.5}]
    file.write_text(json.dumps(rows), encoding="utf-8")
    outcome = tool("eval.py", "--ground-truth", data / "annotations/val.json", "--detections", file)
    told_once(outcome, 3, str(file), "999")


@pytest.mark.parametrize("content", ["plain text", "", None])
def test_what_is_no_checkpoint_is_4(
    tool: Tool, tiny_yaml: Path, shapes: Path, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "run" / "checkpoints" / "last.pt"
    file.parent.mkdir(parents=True)
    if content is not None:
        file.write_text(content, encoding="utf-8")
        told_once(tool("train.py", tiny_yaml, f"output={tmp_path / 'run'}", "--resume"), 4, str(file))
    told_once(tool("eval.py", file), 4, str(file))
    told_once(tool("predict.py", file, shapes / "val", "--output", tmp_path / "p"), 4, str(file))
    told_once(tool("train.py", tiny_yaml, f"model.backbone.weights={file}", f"output={tmp_path / 'r'}"), 4, str(file))


def test_a_loss_that_explodes_is_5(tool: Tool, tiny_yaml: Path, tmp_path: Path) -> None:
    told = ("schedule.lr=1e30", "schedule.warmup=0", f"output={tmp_path / 'run'}")
    told_once(tool("train.py", tiny_yaml, *told), 5, "step 2: ", "not finite", "schedule.lr")


@pytest.mark.slow
def test_a_folder_in_use_or_in_a_files_place_is_6(
    tool: Tool,
    tiny_yaml: Path,
    tmp_path: Path,
    start_tool: Callable[..., ForkedTool],
    trained: Path,
) -> None:
    with claim(tmp_path / "run", resume=False, overwrite=False):
        done = start_tool("train.py", tiny_yaml, f"output={tmp_path / 'run'}")
        out, err = done.communicate(timeout=120)
    told_once((done.returncode or 0, out, err), 6, "in use by process", "output=")
    (tmp_path / "file").write_text("", encoding="utf-8")
    told_once(tool("train.py", tiny_yaml, f"output={tmp_path / 'file' / 'run'}"), 6, "cannot write", str(tmp_path))
    best, val = trained / "checkpoints" / "best.pt", trained.parent
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    for name, arguments in (("eval.py", [best]), ("predict.py", [best, tmp_path / "a.png"])):
        outcome = tool(name, *arguments, "--output", tmp_path / "file" / "below")
        told_once(outcome, 6, "cannot create the folder", "below")
    assert val.is_dir()


def test_a_folder_with_a_run_is_2(tool: Tool, tiny_yaml: Path, trained: Path) -> None:
    told_once(tool("train.py", tiny_yaml, f"output={trained}"), 2, str(trained), "--resume", "--overwrite")
    told = ("schedule.momentum=0.3", f"output={trained}", "--resume")
    told_once(tool("train.py", tiny_yaml, *told), 2, "schedule.momentum", "another config")


def test_predictions_over_ones_own_photographs_are_2(tool: Tool, trained: Path, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.jpg")
    before = (tmp_path / "a.jpg").read_bytes()
    outcome = tool("predict.py", trained / "checkpoints/best.pt", tmp_path / "a.jpg", "--output", tmp_path)
    told_once(outcome, 2, "a.jpg", "another folder")
    assert (tmp_path / "a.jpg").read_bytes() == before


def test_the_config_of_a_checkpoint_is_checked_like_any_other(trained: Path, tool: Tool) -> None:
    told_once(tool("eval.py", trained / "checkpoints/best.pt", "eval.topk=-3"), 2, "eval.topk")
    with pytest.raises(ConfigError):
        load_config(trained / "config.yaml", ["eval.topk=-3"])


E2E_YAML = """
data:
  root: {root}
  train_annotations: annotations/train.json
  train_images: train
  val_annotations: annotations/train.json
  val_images: train
  canvas: [64, 64]
  flip: 0.0
  workers: 1
model:
  backbone: {{name: resnet18, weights: none, norm: bn, frozen_stages: 0}}
  fpn: {{channels: 64}}
  head: {{depth: 1, norm: gn}}
  anchors: {{sizes: [8, 16, 32, 64, 128]}}
assign: {{low_quality: true}}
schedule: {{iterations: 40, batch_size: 8, reference_batch: 8, optimizer: adamw, lr: 0.002, weight_decay: 0.05,
  norm_decay: false, warmup: 10, shape: cosine, clip_norm: 10.0}}
eval: {{every: 0}}
log: {{every: 20, pictures: 2}}
threads: 1
device: cpu
"""


@pytest.mark.slow
def test_training_evaluating_and_predicting_from_end_to_end(
    tmp_path: Path, tool: Tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """8 cluttered scenes are learned by heart. Measured with two seeds: AP 0.92, AP50 0.98."""
    generate_shapes(tmp_path / "scenes", train_images=8, val_images=1, size=(64, 64), seed=5)
    (tmp_path / "scenes.yaml").write_text(E2E_YAML.format(root="scenes"), encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    code, _, err = tool("train.py", "scenes.yaml")
    assert code == 0, err
    run = tmp_path / "runs" / "scenes"
    metrics = json.loads((run / "eval.json").read_text(encoding="utf-8"))["metrics"]
    assert metrics["AP50"] > 0.9
    assert metrics["AP"] > 0.75

    code, _, err = tool("eval.py", run / "checkpoints/best.pt", "--output", "scored")
    assert code == 0, err
    assert json.loads((tmp_path / "scored/eval.json").read_text(encoding="utf-8"))["metrics"] == metrics

    code, _, err = tool("predict.py", run / "checkpoints/best.pt", "scenes/train", "eval.shown_score=0.5")
    assert code == 0, err
    found = json.loads((tmp_path / "runs/predict/detections.json").read_text(encoding="utf-8"))
    truth = json.loads((tmp_path / "scenes/annotations/train.json").read_text(encoding="utf-8"))
    sure = sum(row["score"] >= 0.5 for row in found)
    assert 0.6 * len(truth["annotations"]) < sure < 1.3 * len(truth["annotations"])
    assert len(list((tmp_path / "runs/predict").glob("*.jpg"))) == 8
