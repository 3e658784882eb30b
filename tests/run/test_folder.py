"""Who may write to a run folder, and what overwriting deletes."""

import os
import platform
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from places import PROJECT

from retinanet.errors import ConfigError, ResourceError
from retinanet.run.folder import RunFolder, claim, discard_replaced, set_aside

HOLD = """
import os
import sys
import time
from pathlib import Path
from retinanet.run.folder import claim
with claim(Path(sys.argv[1]), resume=True, overwrite=False):
    if os.fork() == 0:  # a child process that outlives a killed run by seconds, and closes the lock when it starts
        print("held", flush=True)
        time.sleep(3)
        os._exit(0)
    sys.stdin.read()
"""


TAKE = """
import sys
from pathlib import Path
from retinanet.run.folder import claim
with claim(Path(sys.argv[1]), resume=False, overwrite=False):
    pass
"""


def take(path: Path, *, resume: bool = False, overwrite: bool = False) -> None:
    with claim(path, resume=resume, overwrite=overwrite):
        pass


def fill(folder: RunFolder) -> None:
    """The files of a finished run, and one that no run wrote."""
    for file in (folder.config, folder.metrics, folder.last, folder.best, folder.eval, folder.detections):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("old", encoding="utf-8")
    for file in (folder.pictures / "a.jpg", folder.path / "tensorboard" / "events", folder.path / "notes.txt"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("old", encoding="utf-8")


def test_a_new_folder_is_created_with_its_parents(tmp_path: Path) -> None:
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


def content(folder: Path) -> dict[str, str]:
    files = (file for file in folder.rglob("*") if file.is_file() and file.name not in ("run.lock", "run.owner"))
    return {str(file.relative_to(folder)): file.read_text(encoding="utf-8") for file in files}


def test_overwriting_deletes_the_run_and_nothing_else_once_the_new_one_has_a_checkpoint(tmp_path: Path) -> None:
    fill(RunFolder(tmp_path))
    with claim(tmp_path, resume=False, overwrite=True) as folder:
        assert "config.yaml" in content(tmp_path), "data and weights may still turn out to be unusable"
        set_aside(folder)
        assert sorted(content(tmp_path).keys() - {f"replaced/{name}" for name in content(folder.replaced)}) == [
            "notes.txt"
        ]
        folder.last.parent.mkdir()
        folder.last.write_text("new", encoding="utf-8")
        discard_replaced(folder)
        assert content(tmp_path) == {"notes.txt": "old", "checkpoints/last.pt": "new"}


def test_files_of_a_folder_without_a_run_are_not_set_aside(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "holiday.jpg").write_text("old", encoding="utf-8")
    with claim(tmp_path, resume=False, overwrite=False) as folder:
        set_aside(folder)
        assert content(tmp_path) == {"pictures/holiday.jpg": "old"}


def test_a_run_that_was_set_aside_is_back_if_the_new_one_has_no_checkpoint(tmp_path: Path) -> None:
    fill(RunFolder(tmp_path))
    before = content(tmp_path)
    with claim(tmp_path, resume=False, overwrite=True) as folder:
        set_aside(folder)
        folder.config.write_text("new", encoding="utf-8")
    assert content(tmp_path) == before


@pytest.mark.parametrize("again", [{"overwrite": True}, {"resume": True}, {}])
def test_a_run_that_was_set_aside_outlives_a_killed_process(tmp_path: Path, again: dict[str, bool]) -> None:
    fill(RunFolder(tmp_path))
    before = content(tmp_path)
    with claim(tmp_path, resume=False, overwrite=True) as folder:
        set_aside(folder)
        folder.config.write_text("new", encoding="utf-8")
        killed = content(tmp_path)
    shutil.rmtree(tmp_path)
    for name, text in killed.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    if again:
        with claim(tmp_path, resume=again.get("resume", False), overwrite=again.get("overwrite", False)) as folder:
            if again.get("overwrite"):
                set_aside(folder)
                assert content(folder.replaced).items() <= before.items()
                assert not folder.config.exists()
    else:
        with pytest.raises(ConfigError, match="already holds a run"):
            take(tmp_path)
    assert content(tmp_path) == before


def test_a_restarted_process_does_not_continue_the_run_that_it_replaces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(RunFolder(tmp_path))
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "1")
    with claim(tmp_path, resume=False, overwrite=True) as folder:
        set_aside(folder)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    with claim(tmp_path, resume=True, overwrite=True) as folder:
        assert not folder.last.exists()
    assert folder.last.exists()


def test_a_deleted_lock_lets_no_second_run_in(tmp_path: Path) -> None:
    with claim(tmp_path, resume=False, overwrite=False):
        (tmp_path / "run.lock").unlink()
        with pytest.raises(ResourceError, match=rf"use by process {os.getpid()} on .* has ended, delete .*run\.owner"):
            take(tmp_path)


def test_the_owner_of_a_lock_that_is_gone_may_have_ended(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True)
    (tmp_path / "run.owner").write_text(f"process {int(ended.stdout)} on {platform.node()}\n", encoding="utf-8")
    take(tmp_path)
    (tmp_path / "run.lock").unlink(missing_ok=True)
    (tmp_path / "run.owner").write_text("process 1 on another-machine\n", encoding="utf-8")
    with pytest.raises(ResourceError, match="in use by process 1 on another-machine"):
        take(tmp_path)


def test_a_folder_that_is_deleted_or_taken_meanwhile_is_noticed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with claim(run, resume=False, overwrite=False) as folder:
        folder.check_owned()
        shutil.rmtree(run)
        with pytest.raises(ResourceError, match=r"run has been deleted or moved, while this run was writing to it"):
            folder.check_owned()
        run.mkdir()
        (run / "run.owner").write_text("process 1 on another-machine\n", encoding="utf-8")
        with pytest.raises(ResourceError, match=r"run is now used by process 1 on another-machine"):
            folder.check_owned()
    assert (run / "run.owner").exists(), "it is the other's"


def test_a_file_in_the_folders_place_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="is a file"):
        take(tmp_path / "run")
    with pytest.raises(ResourceError, match="cannot write to"):
        take(tmp_path / "run" / "below")


@pytest.mark.slow
def test_the_folder_is_held_within_the_context_and_free_after_it(tmp_path: Path) -> None:
    """Against this thread, another thread and another process; also when the block raises."""
    refused: list[str] = []

    def take_and_note() -> None:
        with pytest.raises(ResourceError) as caught:
            take(tmp_path)
        refused.append(str(caught.value))

    def hold_and_fail() -> None:
        with claim(tmp_path, resume=False, overwrite=False):
            take_and_note()
            thread = threading.Thread(target=take_and_note)
            thread.start()
            thread.join()
            command = [sys.executable, "-c", TAKE, str(tmp_path)]
            other = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
            refused.append(other.stderr)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        hold_and_fail()
    assert len(refused) == 3
    assert all(f"output: {tmp_path} is in use by process {os.getpid()} on " in message for message in refused)
    assert not (tmp_path / "run.owner").exists()
    take(tmp_path)
    thread = threading.Thread(target=take, args=(tmp_path,))
    thread.start()
    thread.join()
    assert not (tmp_path / "run.owner").exists()


def test_a_refused_folder_is_free_for_the_next_attempt(tmp_path: Path) -> None:
    fill(RunFolder(tmp_path))
    with pytest.raises(ConfigError, match="already holds a run"):
        take(tmp_path)
    assert not (tmp_path / "run.owner").exists()
    take(tmp_path, resume=True)


def test_a_folder_whose_owner_is_unknown_is_in_use_by_another_process(tmp_path: Path) -> None:
    with claim(tmp_path, resume=False, overwrite=False):
        (tmp_path / "run.owner").unlink()
        with pytest.raises(ResourceError, match="is in use by another process; wait for it"):
            take(tmp_path)


@pytest.mark.slow
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


def test_a_start_that_fails_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    for name in ("new", "old"):
        with pytest.raises(ConfigError), claim(tmp_path / name, resume=False, overwrite=False):
            raise ConfigError("weights that do not fit")
    assert [path.relative_to(tmp_path) for path in tmp_path.rglob("*")] == [Path("old")]
    with claim(tmp_path / "new", resume=False, overwrite=False) as folder:
        folder.config.write_text("a run")
    assert folder.config.exists()
