"""An atomic write leaves the complete new file or the old one, and never a part of either."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from retinanet.errors import ConfigError, ResourceError
from retinanet.files import cache_folder, data_title, make_folder, replacing, write_csv, write_json, write_text


def test_a_file_is_replaced_when_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    write_text(path, "first\n")
    with replacing(path) as part:
        assert part.parent == path.parent, "on the same file system, so that the rename is atomic"
        assert part.suffix == ".txt", "libraries choose a format by it"
        assert part.read_bytes() == b""
        part.write_text("zweite Fassung: ä\n", encoding="utf-8")
        assert path.read_text(encoding="utf-8") == "first\n"
    assert path.read_text(encoding="utf-8") == "zweite Fassung: ä\n"
    assert list(path.parent.iterdir()) == [path]
    mask = os.umask(0)
    os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask, "as any file that the user creates"


def full_disk(part: Path) -> None:
    part.write_text("half", encoding="utf-8")
    raise OSError(errno.ENOSPC, "No space left on device", str(part))


def full_disk_for_torch(part: Path) -> None:
    """The file is a device that is always full, for which torch.save raises RuntimeError."""
    part.unlink()
    part.symlink_to("/dev/full")
    with part.open("wb", buffering=0) as file:
        torch.save(torch.zeros(100_000), file)


def failed_assertion(part: Path) -> None:
    part.write_text("half", encoding="utf-8")
    raise AssertionError


def user_error(part: Path) -> None:
    raise ConfigError("a message of its own")


def interrupted(part: Path) -> None:
    part.write_text("half", encoding="utf-8")
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("write", "raised", "message"),
    [
        (full_disk, ResourceError, r"a\.pt: cannot be written \(No space left on device: [\d,.]+ MB are free\); free "),
        pytest.param(
            *(full_disk_for_torch, ResourceError, r"a\.pt: cannot be written \(No space left on device: .+\); free "),
            marks=pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="no device that is always full"),
        ),
        (user_error, ConfigError, "^a message of its own$"),
        (failed_assertion, AssertionError, None),
        (interrupted, KeyboardInterrupt, None),
    ],
)
def test_an_error_leaves_the_old_file_and_nothing_else(
    write: Callable[[Path], None], raised: type[BaseException], message: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "a.pt"
    write_text(path, "old")
    with pytest.raises(raised, match=message) as caught, replacing(path, also=(RuntimeError,)) as part:
        write(part)
    assert "partial" not in str(caught.value), "the message names the file that the user asked for"
    assert path.read_text(encoding="utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_other_exceptions_pass_through_unless_named(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^as it is$"), replacing(tmp_path / "a.pt"):
        raise RuntimeError("as it is")
    with pytest.raises(ResourceError, match="as it is"), replacing(tmp_path / "a.pt", also=(RuntimeError,)):
        raise RuntimeError("as it is")
    assert list(tmp_path.iterdir()) == []


def test_a_symbolic_link_in_the_new_files_place_is_not_written_through(tmp_path: Path) -> None:
    path, victim = tmp_path / "run" / "a.txt", tmp_path / "victim"
    with replacing(path) as part:
        name = part.name
    victim.write_text("precious", encoding="utf-8")
    (path.parent / name).symlink_to(victim)
    write_text(path, "text")
    assert victim.read_text(encoding="utf-8") == "precious"
    assert not path.is_symlink()
    assert list(path.parent.iterdir()) == [path]


def test_a_link_that_is_planted_in_time_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the removal of an old file and the creation of the new one."""
    path, victim = tmp_path / "run" / "a.txt", tmp_path / "victim"
    victim.write_text("precious", encoding="utf-8")
    with replacing(path) as part:
        name = part.name
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: None)
    (path.parent / name).symlink_to(victim)
    with pytest.raises(ResourceError, match=r"a\.txt: cannot be written \(File exists\)"):
        write_text(path, "text")
    assert victim.read_text(encoding="utf-8") == "precious"


def test_threads_that_write_one_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path, both = tmp_path / "a.txt", threading.Barrier(2, timeout=10)

    def write(text: str) -> None:
        with replacing(path) as part:
            part.write_text(text, encoding="utf-8")
            both.wait()

    threads = [threading.Thread(target=write, args=(letter * 1000,)) for letter in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_text(encoding="utf-8") in ("a" * 1000, "b" * 1000)
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_or_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder.txt").mkdir()
    with pytest.raises(ResourceError, match=r"folder\.txt: cannot be written \(.*[Dd]irectory\)"):
        write_text(tmp_path / "folder.txt", "text")
    write_text(tmp_path / "file", "")
    with pytest.raises(ResourceError, match=r"a\.txt: cannot be written \(.*(exists|directory)\)"):
        write_text(tmp_path / "file" / "a.txt", "text")
    with pytest.raises(ResourceError, match=r"cannot create the folder .*below"):
        make_folder(tmp_path / "file" / "below")


def test_json_and_csv(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"name": "ä", "values": [1, 0.5]}, indent=1)
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n "name": "ä",\n "values": [\n  1,\n  0.5\n ]\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", [float("nan")])
    write_csv(tmp_path / "a.csv", ["name", "AP"], [["a, b", 0.5], ["c", float("nan")]])
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == 'name,AP\n"a, b",0.5\nc,\n'


def test_files_in_the_cache_are_called_by_their_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RETINANET_CACHE", str(tmp_path))
    home = cache_folder("data") / "my-photos-0123456789abcdef"
    assert data_title(home / "train.json") == "my-photos, train"
    assert data_title(home / "unpacked" / "valid" / "_annotations.coco.json") == "my-photos, valid/_annotations.coco"
    for path in (tmp_path / home.name / "train.json", cache_folder("data") / "python" / "val.json"):
        assert data_title(path) == str(path)
