"""Config `compile`: the rule of `auto`, what CUDA graphs need, and what a compiled run shares with its evaluations."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo

from retinanet.compile import build_backend
from retinanet.config.schema import Config
from retinanet.distributed import Ranks
from retinanet.errors import ConfigError
from retinanet.run.checkpoint import load_checkpoint
from retinanet.run.metric_rows import read_rows
from retinanet.training import loop
from retinanet.training.compiling import (
    COMPILE_FROM,
    CompileCase,
    check_compile,
    choose_compile,
    compiles_evaluations,
    graph_obstacles,
    resolve_compile,
)
from retinanet.training.engine import run_training

Tiny = Callable[..., Config]
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
ALONE, FIRST_OF_TWO = Ranks(0, 0, 1), Ranks(0, 0, 2)
LONG = CompileCase(device_type="cuda", possible=True, graphs_possible=True, steps=COMPILE_FROM, saved=None)


@pytest.mark.parametrize(
    ("case", "chosen"),
    [
        (LONG, True),
        (LONG._replace(steps=COMPILE_FROM - 1), False),
        (LONG._replace(possible=False), False),
        (LONG._replace(device_type="cpu"), False),
        (LONG._replace(device_type="mps"), False),
        (LONG._replace(saved=False), False),
        (LONG._replace(steps=10, saved=True), True),
        (LONG._replace(saved="graphs"), "graphs"),
        (LONG._replace(saved="graphs", graphs_possible=False), True),
        (LONG._replace(device_type="cpu", saved=True), False),
    ],
)
def test_auto_compiles_long_runs_on_cuda_and_a_continued_run_keeps_its_choice(case: CompileCase, chosen: Any) -> None:
    assert choose_compile("auto", case) == chosen
    for asked in (True, False, "graphs"):
        assert choose_compile(asked, case) == asked  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("words", "ranks", "chosen"),
    [
        ((), ALONE, True),
        (("data.canvas=null", "data.canvases=tight"), ALONE, False),
        (("model.backbone.norm=sync_bn",), ALONE, True),
        (("model.backbone.norm=sync_bn",), FIRST_OF_TWO, False),
    ],
)
def test_auto_leaves_out_what_cannot_be_compiled(
    words: tuple[str, ...], ranks: Ranks, chosen: bool, tiny: Tiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retinanet.training.compiling.can_compile", lambda kind: kind == "cuda")
    config = tiny(*words)
    assert config.compile == "auto"
    assert resolve_compile(config, COMPILE_FROM, GPU, ranks, None).compile is chosen
    assert resolve_compile(config, COMPILE_FROM, CPU, ranks, None).compile is False
    saved = config.model_copy(update={"compile": False})
    assert resolve_compile(config, COMPILE_FROM, GPU, ranks, saved).compile is False


def test_evaluations_are_compiled_where_a_compiled_run_makes_many_on_cuda() -> None:
    assert compiles_evaluations(True, "cuda", images=COMPILE_FROM, batch_size=2, evaluations=2)
    assert not compiles_evaluations(True, "cuda", images=COMPILE_FROM, batch_size=2, evaluations=1)
    assert not compiles_evaluations(True, "cpu", images=COMPILE_FROM, batch_size=1, evaluations=9)
    assert not compiles_evaluations(False, "cuda", images=COMPILE_FROM, batch_size=1, evaluations=9)


def test_cuda_graphs_are_refused_on_a_cpu_before_the_work(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny("compile=graphs", "schedule.accumulation=2")
    with pytest.raises(ConfigError, match=r"(?s)compile: graphs cannot .*NVIDIA.*on cpu.*schedule\.accumulation=1"):
        run_training(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert len(graph_obstacles(config, CPU, FIRST_OF_TWO)) == 3
    assert graph_obstacles(tiny("compile=graphs"), GPU, ALONE) == []


def test_sync_bn_over_processes_is_not_compiled(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match="sync_bn over several processes is not compiled; use compile=false"):
        check_compile(tiny("model.backbone.norm=sync_bn", "compile=true"), GPU, FIRST_OF_TWO)
    check_compile(tiny("model.backbone.norm=sync_bn"), GPU, FIRST_OF_TWO)


@pytest.mark.parametrize(("device", "graphs", "patches"), [(CPU, False, None), (GPU, False, False), (GPU, True, True)])
def test_only_code_for_cuda_has_options(
    device: torch.device, graphs: bool, patches: bool | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    given: list[Any] = []
    monkeypatch.setattr(torch._dynamo, "lookup_backend", lambda _name: lambda *_, **options: given.append(options))
    backend = build_backend(device, lambda _: None, graphs=graphs)
    backend(torch.fx.symbolic_trace(torch.nn.ReLU()), [torch.zeros(1)])
    found = given[0].get("config_patches")
    assert found is None if patches is None else found["triton.cudagraphs"] == patches


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_evaluations_of_a_run_share_compiled_code_and_find_the_same(
    precision: str, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two evaluations of 6 images in batches of 4: one graph, in which the last two images are filled up."""
    traced = torch._dynamo.lookup_backend("eager")
    monkeypatch.setattr(torch._dynamo, "lookup_backend", lambda _name: traced)
    monkeypatch.setattr(loop, "compiles_evaluations", lambda *_: True)
    torch._dynamo.reset()
    words = ("schedule.iterations=2", "eval.every=1", "eval.unit=steps", "eval.batch_size=4", "schedule.ema=0.9")
    words = (*words, f"precision={precision}")
    rows = []
    for compiled in ("false", "true"):
        run_training(tiny(*words, f"compile={compiled}"), tmp_path / compiled)
        metrics = read_rows(tmp_path / compiled / "metrics.jsonl")
        rows.append([row["AP"] for row in metrics if row["kind"] == "eval"])
    assert rows[0] == pytest.approx(rows[1], abs=1e-6)
    assert len(rows[0]) == 2
    assert capsys.readouterr().out.count("compiling the network for 4 x 64 x 64 pixels") == 2  # training, evaluation
    assert load_checkpoint(tmp_path / "true" / "checkpoints" / "last.pt").config.compile is True
