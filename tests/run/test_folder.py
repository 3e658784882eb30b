"""Who may write into a run folder, and what overwriting deletes."""

import subprocess
import sys
from pathlib import Path

import pytest
from places import PROJECT

from retinanet.errors import ConfigError, ResourceError
from retinanet.files import make_folder, write_text
from retinanet.run.folder import RunFolder, claim

HOLD = """
import os
import sys
import time
from pathlib import Path
from retinanet.run.folder import claim
with claim(Path(sys.argv[1]), resume=True, overwrite=False):
    if os.fork() == 0:  # a child process that outlives a killed run by seconds
        time.sleep(3)
        os._exit(0)
    print("held", flush=True)
    sys.stdin.read()
"""


def take(path: Path, *, resume: bool = False, overwrite: bool = False) -> None:
    with claim(path, resume=resume, overwrite=overwrite):
        pass


def fill(folder: RunFolder) -> None:
    """A finished run's files, and two that are not ours."""
    for file in (folder.config, folder.metrics, folder.last, folder.best, folder.eval, folder.detections):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("old", encoding="utf-8")
    for file in (folder.pictures / "a.jpg", folder.path / "tensorboard" / "events", folder.path / "notes.txt"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("old", encoding="utf-8")


def test_a_new_folder_is_made_with_its_parents(tmp_path: Path) -> None:
    with claim(tmp_path / "a" / "b", resume=False, overwrite=False) as folder:
        assert folder.path.is_dir()
        assert folder.last == tmp_path / "a/b/checkpoints/last.pt"


@pytest.mark.parametrize("sign", ["config.yaml", "checkpoints/last.pt"])
def test_a_folder_with_a_run_is_refused_and_untouched(tmp_path: Path, sign: str) -> None:
    (tmp_path / sign).parent.mkdir(exist_ok=True)
    (tmp_path / sign).write_text("old", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"already holds a run.*--resume.*--overwrite"):
        take(tmp_path)
    assert (tmp_path / sign).read_text(encoding="utf-8") == "old"


def test_resuming_keeps_everything(tmp_path: Path) -> None:
    fill(RunFolder(tmp_path))
    with claim(tmp_path, resume=True, overwrite=False) as folder:
        assert folder.last.read_text(encoding="utf-8") == "old"
        assert folder.eval.exists()


def test_overwriting_deletes_the_run_and_nothing_else(tmp_path: Path) -> None:
    fill(RunFolder(tmp_path))
    with claim(tmp_path, resume=False, overwrite=True) as folder:
        left = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
        assert left == ["notes.txt", "run.lock", "run.owner"]
        assert not folder.pictures.exists()


def test_a_file_in_the_folders_place_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="is a file"):
        take(tmp_path / "run")
    with pytest.raises(ResourceError, match="cannot write into"):
        take(tmp_path / "run" / "below")
    with pytest.raises(ResourceError, match="cannot create the folder"):
        make_folder(tmp_path / "run" / "below")


def test_a_folder_in_use_is_refused_until_its_process_ends_however_it_ends(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-c", HOLD, str(run)]
    project = PROJECT
    with subprocess.Popen(command, cwd=project, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        for overwrite in (False, True):
            with pytest.raises(ResourceError, match=rf"in use by process {holder.pid} on .*output=PATH"):
                take(run, resume=not overwrite, overwrite=overwrite)
        holder.kill()
    take(run, resume=True)
    assert not (run / "run.owner").exists()


def test_text_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    write_text(path, "first\n")
    write_text(path, "zweite Fassung: ä\n")
    assert path.read_text(encoding="utf-8") == "zweite Fassung: ä\n"
    assert list(tmp_path.iterdir()) == [path]
