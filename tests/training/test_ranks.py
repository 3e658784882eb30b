"""Two ranks under torchrun and one process agree at the same global batch."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from forked_tools import ToolServer
from places import PROJECT

from retinanet.config.schema import Config
from retinanet.distributed import Ranks
from retinanet.errors import CheckpointError, ConfigError
from retinanet.run.checkpoint import load_checkpoint
from retinanet.run.metric_rows import read_rows
from retinanet.training.engine import run_training
from retinanet.training.state import build_state

STEPS = 12
WORDS = (
    f"schedule.iterations={STEPS}",
    *("schedule.batch_size=8", "schedule.reference_batch=8", "schedule.lr=0.00005", "schedule.warmup=5"),
    *("schedule.clip_norm=10.0", "data.canvas=[32, 32]", "data.color_jitter=0.1", "log.pictures=0"),
    *("eval.batch_size=2", "model.backbone.name=resnet18"),
)
"""Rounding differs between the runs; neither this learning rate nor these 18 layers amplify it to 1e-5 in 12 steps."""
RUNS = {
    "accumulation 1": (*WORDS, "schedule.accumulation=1"),
    "accumulation 4": (*WORDS, "schedule.accumulation=4"),
    "running means": ("loss.normaliser=running_positives", "schedule.iterations=2", "log.pictures=0"),
}
ONE_AFTER_ANOTHER = """
import runpy, shlex, sys
from retinanet import distributed
stop, distributed.stop = distributed.stop, lambda: None
for line in sys.argv[1:]:
    sys.argv = shlex.split(line)
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as ended:
        if ended.code:
            raise
stop()
"""
"""Runs command lines within one process group: starting two processes takes longer than training."""
LOSSES = ("loss", "loss_class", "loss_box", "positives_per_image", "class_loss_foreground_share")


@pytest.fixture(scope="module")
def alone(tiny: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process without accumulation."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    run_training(tiny(*WORDS), folder)
    return folder


@pytest.fixture(scope="module")
def on_two_ranks(
    tiny_yaml: Path, tool_server: ToolServer, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """The folder of all RUNS, trained by two processes under torchrun, and what they printed."""
    folder = tmp_path_factory.mktemp("two")
    program = folder / "program.py"
    program.write_text(ONE_AFTER_ANOTHER, encoding="utf-8")
    tool = [str(PROJECT / "tools" / "train.py"), str(tiny_yaml)]
    lines = [shlex.join([*tool, *words, f"output={folder / name}"]) for name, words in RUNS.items()]
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)
    done = tool_server.start_python(*launcher, program, *lines)
    out, err = done.communicate(timeout=180)
    assert done.returncode == 0, err
    return folder, out


def assert_equal_runs(folder: Path, expected: Path) -> None:
    rows, wanted = (
        [row for row in read_rows(path / "metrics.jsonl") if row["kind"] == "train"] for path in (folder, expected)
    )
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    for row, reference in zip(rows, wanted, strict=True):
        for name in LOSSES:
            assert row[name] == pytest.approx(reference[name], abs=1e-5), (row["step"], name)
        assert row["lr"] == reference["lr"]
        assert row["epoch"] == reference["epoch"]
        assert row["grad_norm"] == pytest.approx(reference["grad_norm"], rel=1e-3)
    evaluation, reference = (
        json.loads((path / "eval.json").read_text(encoding="utf-8"))["metrics"] for path in (folder, expected)
    )
    assert evaluation == pytest.approx(reference, abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("accumulation", [1, 4])
def test_two_ranks_log_the_losses_of_one_process(
    alone: Path, on_two_ranks: tuple[Path, str], accumulation: int
) -> None:
    folder, printed = on_two_ranks
    assert printed.count("2 processes x") == printed.count("from step 0") == len(RUNS), "only one rank prints"
    assert_equal_runs(folder / f"accumulation {accumulation}", alone)


@pytest.mark.slow
def test_each_rank_keeps_a_running_mean_that_a_resumed_run_of_as_many_continues(
    tiny: Callable[..., Config], on_two_ranks: tuple[Path, str]
) -> None:
    folder = on_two_ranks[0] / "running means"
    means_R = load_checkpoint(folder / "checkpoints" / "last.pt").running_positives_R
    assert means_R is not None
    assert means_R.shape == (2,)
    assert means_R[0] != means_R[1]
    per_image = [row["positives_per_image"] for row in read_rows(folder / "metrics.jsonl") if row["kind"] == "train"]
    # Both ranks' means obey the same rule, so their sum follows the sum of positives, 4 images a step.
    assert means_R.sum().item() == pytest.approx((200 * 0.9 + 0.4 * per_image[0]) * 0.9 + 0.4 * per_image[1])
    with pytest.raises(CheckpointError, match=r"the file holds 2, not 1; resume with the number of processes of the"):
        run_training(tiny(*RUNS["running means"], f"output={folder}"), folder, resume=True)


def test_statistics_over_ranks_need_gpus(tiny: Callable[..., Config]) -> None:
    config = tiny("model.backbone.norm=sync_bn")
    with pytest.raises(ConfigError, match=r"model\.backbone\.norm: sync_bn over several processes needs GPUs"):
        build_state(config, 3, torch.device("cpu"), Ranks(0, 0, 2))
    build_state(config, 3, torch.device("cpu"), Ranks(0, 0, 1))
