"""Error messages of retinanet export for unusable command lines."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from forked_tools import ToolServer
from places import PROJECT

WITHOUT = """
import sys, importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name.startswith("onnx") else find(name, *rest)
sys.argv = ["export.py", *sys.argv[1:]]
import runpy
runpy.run_path({tool!r}, run_name="__main__")
"""


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["OUT.pth"], 2, "must end in .onnx (ONNX) or .pt2 (torch.export)"),
        (["OUT.onnx", "--format", "aoti"], 2, "of format aoti must end in .pt2"),
        (["OUT.pt2", "--nms"], 2, "--nms and --int8 are for ONNX files"),
        (
            ["OUT.onnx", "--device", "cuda"],
            2,
            "--device cuda is for --format aoti; a GPU runs ONNX files with eval.onnx",
        ),
        (["OUT.onnx", "--int8"], 2, "--int8 and --calibrate must be given together"),
        (["OUT.onnx", "--calibrate", "photos"], 2, "--int8 and --calibrate must be given together"),
        (["OUT.onnx", "--int8", "--calibrate", "no/such/folder"], 3, "no/such/folder: no such file, folder or pattern"),
        (["OUT.onnx", "--limit", "0"], 2, "'0' is not a whole number above 0"),
        (["OUT.onnx", "--latency-runs", "-3"], 2, "'-3' is not a whole number of 0 or more"),
        (["OUT.onnx", "model.anchrs.offset=0"], 2, "model.anchrs"),
        (["OUT.onnx", "data.root=nowhere"], 3, "nowhere/annotations/val.json: no such file"),
    ],
)
def test_errors(
    trained: Path, tmp_path: Path, tool: Callable[..., Any], words: list[str], code: int, message: str
) -> None:
    words = [word.replace("OUT", str(tmp_path / "out")) for word in words]
    done = tool("export.py", trained / "checkpoints" / "best.pt", *words)
    assert done.code == code, done.err
    assert message in done.err
    assert "Traceback" not in done.err
    assert not list(tmp_path.iterdir())


def test_compiling_for_a_gpu_that_is_not_there(
    trained: Path, tmp_path: Path, tool: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    words = (tmp_path / "out.pt2", "--format", "aoti", "--device", "cuda")
    done = tool("export.py", trained / "checkpoints" / "best.pt", *words)
    assert done.code == 6
    assert "torch finds none here; export on the machine that will run the file, or leave out --device" in done.err
    assert not list(tmp_path.iterdir())


def test_checkpoint_that_is_missing(tmp_path: Path, tool: Callable[..., Any]) -> None:
    done = tool("export.py", tmp_path / "none.pt", tmp_path / "out.onnx")
    assert done.code == 4
    assert "none.pt: no such checkpoint" in done.err


def test_existing_files_are_not_replaced_without_overwrite(
    trained: Path, tmp_path: Path, tool: Callable[..., Any]
) -> None:
    for name in ("out.onnx", "out.onnx.json", "out.pt2"):
        (tmp_path / name).write_text("dear", encoding="utf-8")
    done = tool("export.py", trained / "checkpoints" / "best.pt", tmp_path / "out.onnx")
    assert done.code == 2
    assert "(2 errors)" in done.err
    assert "add --overwrite" in done.err
    assert (tmp_path / "out.onnx").read_text() == "dear"
    done = tool("export.py", trained / "checkpoints" / "best.pt", tmp_path / "out.pt2")
    assert "(1 error)" in done.err, "the report of the ONNX file does not block that of a .pt2"


@pytest.mark.slow
def test_missing_packages_are_named_with_the_remedy(trained: Path, tmp_path: Path, tool_server: ToolServer) -> None:
    program = WITHOUT.format(tool=str(PROJECT / "tools" / "export.py"))
    done = tool_server.start_python("-c", program, trained / "checkpoints" / "best.pt", tmp_path / "out.onnx")
    _, err = done.communicate(timeout=60)
    assert done.returncode == 6
    assert "install with `pip install onnx onnxscript onnxruntime`" in err
    assert "Traceback" not in err
