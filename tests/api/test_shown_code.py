"""The code that introduces the Python API, as a script, in a thread and in a notebook."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from forked_tools import SMALL_NETWORK
from places import PROJECT

CODE = """
import numpy as np
from PIL import Image
from pathlib import Path
import torch

import retinanet
detector = retinanet.load("best.pt")
with Image.open("photos/000001.jpg") as file:
    picture = file.copy()
array = np.asarray(picture)
tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
of_all = [detector(image) for image in ("photos/000001.jpg", Path("photos/000001.jpg"), picture, array, tensor)]
of_all += [detector([array, picture])[1], detector("photos")[0]]
found = of_all[0]
found.boxes, found.scores, found.labels, found.names
found.plot(); found.to_coco(); found
run = retinanet.train("tiny.yaml", output="runs/mine", overrides={"schedule.iterations": 1}, on_row=print)
run.best_ap, run.best, run.metrics
a, b = retinanet.evaluate(run.best, output="a", report=False), retinanet.evaluate("best.pt", output="b", report=False)
result = retinanet.compare(a, b, "val.json", output="c", resamples=40)
"""
"""That of the issue which asked for this API, on tiny data."""


@pytest.fixture
def place(trained: Path, shapes: Path, tiny_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working folder that the code needs."""
    monkeypatch.chdir(tmp_path)
    links = {
        "best.pt": trained / "checkpoints" / "best.pt",
        "photos": shapes / "val",
        "tiny.yaml": tiny_yaml,
        "val.json": shapes / "annotations" / "val.json",
    }
    for name, target in links.items():
        (tmp_path / name).symlink_to(target)


def check(names: dict[str, object]) -> None:
    of_all = names["of_all"]
    assert isinstance(of_all, list)
    assert len(of_all) == 7
    assert len(of_all[0])
    for found in of_all[1:]:
        assert np.array_equal(found.boxes, of_all[0].boxes)
        assert np.array_equal(found.scores, of_all[0].scores)
    assert Path("runs/mine/checkpoints/best.pt").is_file()
    assert names["result"].verdict  # type: ignore[attr-defined]


@pytest.mark.slow
@pytest.mark.usefixtures("place")
def test_the_code_runs_in_a_thread() -> None:
    names: dict[str, object] = {}
    with ThreadPoolExecutor(1) as pool:
        pool.submit(exec, CODE, names).result()
    check(names)


@pytest.mark.slow
@pytest.mark.usefixtures("place", "warm_python")
@pytest.mark.filterwarnings("ignore:Kernel is running over TCP:UserWarning")
def test_the_code_runs_in_a_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(PROJECT))
    monkeypatch.setenv(SMALL_NETWORK, "1")  # as in this process, which trained the detector
    cells = [nbformat.v4.new_code_cell(code) for code in (CODE, "found")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    (shown,) = notebook.cells[1].outputs
    assert "image/png" in shown["data"]
    assert "<FoundObjects in photos/000001.jpg" in shown["data"]["text/plain"]
    assert (tmp_path / "runs/mine/checkpoints/best.pt").is_file()
