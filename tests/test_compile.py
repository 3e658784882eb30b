"""A compiled network: the same training as the plain one up to rounding, one graph per canvas, and its messages."""

import ctypes
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._dynamo
from small_networks import small_backbone
from torch._dynamo.exc import BackendCompilerFailed
from torch._inductor.exc import InductorError
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from retinanet.build import network
from retinanet.compile import (
    DIGESTS,
    can_compile,
    check_compiler,
    compiler_errors,
    prepare_compiler,
    record_code,
    remove_damaged,
)
from retinanet.config.load import config_to_dict
from retinanet.config.schema import Config
from retinanet.errors import ConfigError, ResourceError
from retinanet.run.checkpoint import load_checkpoint
from retinanet.run.metric_rows import read_rows, without_clock
from retinanet.training import engine, loop
from retinanet.training.state import TrainState, config_differences

Tiny = Callable[..., Config]
needs_compiler = pytest.mark.skipif(not can_compile("cpu"), reason="no C++ compiler here")


ONE_CANVAS = ("data.canvas=[64, 64]", "model.head.norm=none", "model.head.depth=0")
TWO_CANVASES = ("data.canvas=null", "data.shorter_side=[62, 94]", "data.longer_side=96", "model.backbone.name=resnet18")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "words", "sides"),
    [
        pytest.param(*("inductor", ONE_CANVAS, (64,)), marks=[needs_compiler, pytest.mark.slow]),
        ("eager", TWO_CANVASES, (64, 96)),
    ],
    ids=["compiler", "graphs"],
)
def test_a_compiled_run_is_the_plain_one_up_to_rounding_and_resumes_to_the_bit(
    backend: str,
    words: tuple[str, ...],
    sides: tuple[int, ...],
    tiny: Tiny,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Four steps, uninterrupted, and killed after three of which two are saved.

    Once with the real compiler on a small network and one canvas; once with a ResNet on two canvases, whose graphs are
    traced but not compiled, which would take minutes.
    """
    words = (*words, "schedule.iterations=4", "model.fpn.channels=32", "log.pictures=0")
    if backend == "inductor":
        monkeypatch.setattr(network, "build_backbone", small_backbone)  # a fused kernel costs the compiler a second
    else:
        traced = torch._dynamo.lookup_backend(backend)
        monkeypatch.setattr(torch._dynamo, "lookup_backend", lambda _name: traced)
    torch._dynamo.reset()
    engine.run_training(tiny(*words), tmp_path / "plain")
    capsys.readouterr()
    engine.run_training(tiny(*words, "compile=true"), tmp_path / "whole")
    printed = capsys.readouterr().out
    assert printed.count("compiling the network for") == len(sides), printed
    for side in sides:
        assert printed.count(f"compiling the network for 4 x {side} x {side} pixels") == 1, printed

    halves = tiny(*words, "compile=true", "log.save_every=2")
    step = loop.train_step

    def killed_in_the_fourth(state: TrainState, *rest: Any) -> Any:
        if state.progress.step == 3:
            raise KeyboardInterrupt
        return step(state, *rest)

    monkeypatch.setattr(loop, "train_step", killed_in_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        engine.run_training(halves, tmp_path / "halves")
    monkeypatch.setattr(loop, "train_step", step)
    assert load_checkpoint(tmp_path / "halves" / "checkpoints" / "last.pt").progress.step == 2
    torch._dynamo.reset()  # as in a new process
    engine.run_training(halves, tmp_path / "halves", resume=True)
    plain, whole = (
        [row for row in read_rows(tmp_path / name / "metrics.jsonl") if row["kind"] == "train"]
        for name in ("plain", "whole")
    )
    for row, expected in zip(whole, plain, strict=True):
        assert row["loss"] == pytest.approx(expected["loss"], rel=1e-4)
        assert row["grad_norm"] == pytest.approx(expected["grad_norm"], rel=1e-3)
    assert without_clock(tmp_path / "halves" / "metrics.jsonl") == without_clock(tmp_path / "whole" / "metrics.jsonl")

    states = [
        load_checkpoint(tmp_path / name / "checkpoints" / "last.pt").model for name in ("plain", "whole", "halves")
    ]
    assert states[0].keys() == states[1].keys()
    for name, tensor in states[0].items():
        torch.testing.assert_close(states[1][name], tensor, rtol=1e-3, atol=1e-5)
        assert torch.equal(states[1][name], states[2][name])


def test_a_machine_that_cannot_compile_is_refused_before_the_work(tiny: Tiny, tmp_path: Path, fresh: None) -> None:
    os.environ["CXX"] = "no-such-compiler"
    with pytest.raises(ResourceError, match=r"compile: .*C\+\+ compiler.*compile=false"):
        engine.run_training(tiny("compile=true"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(ResourceError, match="for mps; set compile=false"):
        check_compiler(torch.device("mps"))


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CXX", "")
    can_compile.cache_clear()
    yield
    can_compile.cache_clear()


def test_tight_canvases_are_not_compiled(tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match=r"compile needs data\.canvases=groups"):
        tiny("compile=true", "data.canvases=tight", "data.canvas=null")


def failing(error: Exception) -> None:
    with compiler_errors():
        raise error


def test_the_message_of_a_failed_compiler_has_its_reason_and_how_to_continue_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # what fails deletes code from the user's cache
    reason = RuntimeError("\nC++ compile error\nmany lines")
    for error in (BackendCompilerFailed(failing, reason, None), InductorError(reason, None)):
        with pytest.raises(
            ResourceError,
            match=r"torch.compile failed: C\+\+ compile error\nContinue without it: compile=false --resume",
        ):
            failing(error)
    with pytest.raises(ZeroDivisionError):
        failing(ZeroDivisionError())


def test_a_compiled_run_may_continue_uncompiled(tiny: Tiny) -> None:
    both = [config_to_dict(tiny(f"compile={flag}")) for flag in ("true", "false")]
    assert config_differences(*both) == []


def test_compiled_code_is_cached_where_the_user_chose_or_in_the_users_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "elsewhere")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    prepare_compiler()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "elsewhere"
    assert list(tmp_path.iterdir()) == []
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    prepare_compiler()
    folder = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])
    assert folder.parent == tmp_path / "retinanet" / "compiled"
    assert folder.is_dir()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", default_cache_dir())  # as importing torchvision does
    prepare_compiler()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(folder)


def test_processors_that_share_a_home_share_no_compiled_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel of AVX512 that is loaded with AVX2 computes other numbers."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def folder() -> str:
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", default_cache_dir())
        prepare_compiler()
        return os.environ["TORCHINDUCTOR_CACHE_DIR"]

    found = {folder()}
    assert found == {folder()}
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "NO AVX")
    found.add(folder())
    features = torch.cpu.get_capabilities()
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {**features, "another": True})
    found.add(folder())
    assert len(found) == 3


@pytest.mark.parametrize("trouble", ["a file in its place", "not writable", "no home"])
def test_without_a_writable_cache_torch_chooses(trouble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if trouble == "a file in its place":
        (tmp_path / "cache").write_text("", encoding="utf-8")
    elif trouble == "not writable":
        monkeypatch.setattr(os, "access", lambda path, mode: False)  # root can write everywhere
    else:
        monkeypatch.delenv("XDG_CACHE_HOME")

        def nowhere() -> Path:
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(Path, "home", nowhere)
    prepare_compiler()
    assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ


def test_damaged_and_half_written_code_is_deleted_and_the_rest_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import _ctypes

    monkeypatch.setenv("RETINANET_CACHE", str(tmp_path))
    folder = tmp_path / "compiled" / "avx2-1"
    (folder / "ab").mkdir(parents=True)
    loaded, half, script = folder / "ab/loaded.so", folder / "ab/half.so", folder / "ab/c.py"
    shutil.copyfile(_ctypes.__file__, loaded)
    handle = ctypes.CDLL(str(loaded))
    half.write_bytes(loaded.read_bytes()[:5000])
    script.write_text("x = 1\n", encoding="utf-8")
    assert remove_damaged(folder) == 0
    record_code(folder)
    assert remove_damaged(folder) == 0, "nothing has changed"

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
    with pytest.raises(
        ResourceError, match=r"half\.so: file too short\n1 files that may be damaged .*: try --resume\."
    ):
        failing(OSError(f"{half}: file too short"))  # as torch raises it where the graph is cached
    with pytest.raises(OSError, match="another file"):
        failing(OSError("another file"))
    assert sorted(path.name for path in folder.rglob("*.*")) == ["c.py", "loaded.so", DIGESTS]

    del handle
    for path in (loaded, script):
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.unlink()  # else the library in memory changes, too
        path.write_bytes(data)
    assert remove_damaged(folder) == 2
    assert not loaded.exists()
    assert remove_damaged(folder) == 0
    (folder / DIGESTS).write_text("{", encoding="utf-8")
    assert remove_damaged(folder) == 0, "a damaged record is as none"
    record_code(folder)
