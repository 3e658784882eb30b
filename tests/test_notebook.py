"""The notebook runs from its first cell to its last, as a user runs it, only shorter."""

import os
from pathlib import Path

import pytest
from places import PROJECT

NOTEBOOK = PROJECT / "docs" / "notebooks" / "own_data.ipynb"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Kernel is running over TCP:UserWarning")
def test_notebook_runs_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_python: str) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    command = tmp_path / "bin" / "retinanet"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {warm_python} -m retinanet "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    shorter = {"SMALL_EPOCHS = 40": "SMALL_EPOCHS = 1", "--train 96 --val 24": "--train 16 --val 8"}
    for long, short in shorter.items():
        assert sum(cell.source.count(long) for cell in notebook.cells) == 1
        for cell in notebook.cells:
            cell.source = cell.source.replace(long, short)
    client = nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in shown) == 3
    text = "".join(output.get("text", "") for output in shown)
    assert "no errors found in 2 annotation files" in text
    assert "report: runs/notebook/eval-best-val/report.html" in text
    assert "Traceback" not in text
    assert "UserWarning" not in text


def test_notebook_is_kept_without_output() -> None:
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert not any(cell.outputs or cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
