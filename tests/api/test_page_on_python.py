"""docs/python.md: its code runs as it is written, in one go."""

import re
import shutil
from pathlib import Path

import pytest
from places import PROJECT


@pytest.mark.slow
def test_the_code_of_the_page_runs(
    trained: Path,
    shapes: Path,
    tiny_yaml: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """With a tiny config under the name `own`, the generated scenes as photographs, and one epoch."""
    blocks = re.findall(r"^```python\n(.*?)^```", (PROJECT / "docs/python.md").read_text("utf-8"), re.M | re.S)
    assert len(blocks) == 7
    monkeypatch.chdir(tmp_path)
    shutil.copytree(shapes / "val", "photos")
    for name in ("train", "annotations"):
        shutil.copytree(shapes / name, Path("photos") / name)
    shutil.copytree(shapes / "val", "photos/val")
    (tmp_path / "data").mkdir()
    (tmp_path / "data/shapes").symlink_to(shapes)
    shutil.copytree(trained, "runs/quickstart")
    shutil.copy(tiny_yaml, "own")
    names: dict[str, object] = {}
    for block in blocks:
        exec(block.replace('"schedule.epochs": 20', '"schedule.epochs": 1'), names)
    out = capsys.readouterr().out
    assert "<FoundObjects in photos/000001.jpg, 64 x 64 pixels: nothing (score 0.3 or more)" in out
    assert "{'kind': 'eval', 'step': 3, 'AP':" in out
    assert "Stopped by on_row. Saved step" in out
    assert (tmp_path / "found.jpg").is_file()
    assert len(names["everything"]) == 6  # type: ignore[arg-type]
    assert names["rows"][0]["image_id"] == 17  # type: ignore[index]
