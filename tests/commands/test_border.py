"""The border of the command lines: exit codes, messages, and what is not imported."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from places import PROJECT

from retinanet import errors
from retinanet.commands.arguments import called, split_overrides
from retinanet.commands.border import run
from retinanet.errors import judge, one_line


def code(error: BaseException, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    def main() -> None:
        raise error

    result = run(main)
    out, err = capsys.readouterr()
    assert out == ""
    return result, err


def python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", program, *arguments]
    folder = PROJECT
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_a_main_that_returns_is_zero() -> None:
    assert run(lambda: None) == 0


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.UserError("a"), 2),
        (errors.ConfigError("a"), 2),
        (errors.DataError("a"), 3),
        (errors.CheckpointError("a"), 4),
        (errors.NumericalError("a"), 5),
        (errors.ResourceError("a"), 6),
    ],
)
def test_a_user_error_is_one_message_and_its_code(
    error: errors.UserError, expected: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code(error, capsys) == (expected, "error: a\n")


@pytest.mark.parametrize("number", [130, 143])
def test_an_interrupted_run_keeps_its_code(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert code(errors.Interrupted("stopped, saved", number), capsys) == (number, "stopped, saved\n")


def test_a_keyboard_interrupt_is_130(capsys: pytest.CaptureFixture[str]) -> None:
    assert code(KeyboardInterrupt(), capsys) == (130, "interrupted\n")


def test_a_system_exit_passes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        code(SystemExit(2), capsys)
    assert caught.value.code == 2


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EPERM, errno.EDQUOT, errno.EMFILE])
def test_a_resource_that_is_missing_names_the_file(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    result, message = code(OSError(number, os.strerror(number), "runs/a/last.pt"), capsys)
    assert result == 6
    assert message.startswith(f"error: runs/a/last.pt: {os.strerror(number).lower()}; ")
    assert message.count("\n") == 1


def test_a_permission_error_without_number_or_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert code(PermissionError(), capsys) == (
        6,
        "error: permission denied; change its permissions, or choose another path\n",
    )


def test_a_full_disk_is_6(capsys: pytest.CaptureFixture[str]) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full here")

    def main() -> None:
        with full.open("w", encoding="utf-8") as file:
            file.write("a")

    assert run(main) == 6
    assert "no space left" in capsys.readouterr().err


@pytest.mark.parametrize("closed", ["1", "2", "0 1 2"])
def test_closed_streams_end_no_command_and_get_into_no_file(closed: str, tmp_path: Path) -> None:
    program = (
        "import os, sys\nfrom retinanet.commands.border import run\n"
        f"def main():\n    print('a'); print('b', file=sys.stderr)\n    file = open({str(tmp_path / 'file')!r}, 'w')\n"
        "    assert file.fileno() > 2\n    os.write(2, b'of a library')\n"
        "sys.exit(run(main))\n"
    )
    closing = " ".join(f"{number}>&-" for number in closed.split())
    command = ["/bin/sh", "-c", f'exec "$0" -c "$1" {closing}', sys.executable, program]
    done = subprocess.run(command, env={"PYTHONPATH": str(PROJECT)}, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "file").read_bytes() == b""


def test_out_of_memory_advises(capsys: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch")
    cpu = RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")
    accelerator = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")
    linker = ImportError("libtorch_cpu.so: failed to map segment from shared object")
    for error in (MemoryError(), cpu, accelerator, linker, OSError(errno.ENOMEM, "Cannot allocate memory")):
        result, message = code(error, capsys)
        assert result == 6, error
        assert message.startswith("error: out of memory")
        assert "schedule.batch_size" in message
        assert "schedule.accumulation" in message
    assert "2 GiB" in judge(accelerator).message


def test_anything_else_is_ours_with_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    for error in (RuntimeError("broken"), FileNotFoundError(errno.ENOENT, "gone", "x"), AssertionError("no")):
        result, message = code(error, capsys)
        assert result == 1
        assert "Traceback (most recent call last)" in message
        assert type(error).__name__ in message
        assert "please report it" in message.splitlines()[-1]


def test_a_reader_that_leaves_is_quiet() -> None:
    program = """
from retinanet.commands.border import run
def main():
    for number in range(200_000):
        print(number)
raise SystemExit(run(main))
"""
    folder = PROJECT
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        message = process.stderr.read()
        assert process.wait(timeout=60) == 141
    assert message == b""


def test_a_closed_pipe_in_process_is_141(capsys: pytest.CaptureFixture[str]) -> None:
    # The descriptor that capsys stands in for is left alone: its stdout has none of its own.
    assert code(BrokenPipeError(errno.EPIPE, "Broken pipe"), capsys) == (141, "")


def test_the_exit_code_reaches_the_shell() -> None:
    program = """
from retinanet.commands.border import run
from retinanet.errors import DataError
def main():
    raise DataError("no images")
raise SystemExit(run(main))
"""
    done = python(program)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "error: no images\n")


def test_help_needs_neither_torch_nor_pydantic() -> None:
    heavy = "sorted({'torch', 'torchvision', 'pydantic', 'numpy', 'yaml'} & set(sys.modules))"
    assert python(f"import sys, retinanet.commands.border; print({heavy})").stdout == "[]\n"


def test_overrides_are_told_from_plain_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shot=1.jpg").write_bytes(b"")
    words = [
        "schedule.lr=0.1",
        "a.jpg",
        "shot=1.jpg",
        "shot=2.jpg",
        "dir/x=1.jpg",
        "output=",
        "=1",
        "*.png",
        "x" * 5000,
    ]
    overrides, plain = split_overrides(words)
    assert overrides == ["schedule.lr=0.1", "shot=2.jpg", "output="]
    assert plain == ["a.jpg", "shot=1.jpg", "dir/x=1.jpg", "=1", "*.png", "x" * 5000]


def test_a_name_that_is_too_long_is_the_commands_and_not_the_disks(capsys: pytest.CaptureFixture[str]) -> None:
    result, message = code(OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300), capsys)
    assert result == 2
    assert message.endswith("x: file name too long; choose a shorter path\n")


@pytest.mark.parametrize(
    ("script", "prog", "typed"),
    [
        ("/usr/bin/retinanet", "retinanet doctor", "retinanet train"),
        ("/lib/retinanet/__main__.py", "retinanet doctor", "python -m retinanet train"),
        ("tools/doctor.py", None, "python tools/train.py"),
        ("elsewhere/doctor.py", None, "python -m retinanet train"),
    ],
)
def test_commands_are_named_as_this_one_was_called(
    script: str, prog: str | None, typed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(PROJECT)
    monkeypatch.setattr(sys, "argv", [script])
    assert called("train", prog) == typed


def test_names_stay_on_one_line() -> None:
    assert one_line("a\n\tb\x1b[31m") == r"a\n\tb\x1b[31m"


SWALLOWED = """
import signal, sys
from retinanet.commands.border import run

def main():
    import half_imported
    print(half_imported.whole, flush=True)
    signal.pause()

raise SystemExit(run(main))
"""
MODULE = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
    sum(range(100_000))
    whole = True
except BaseException:
    whole = False
"""


@pytest.mark.skipif(not hasattr(signal, "pause"), reason="POSIX")
def test_ctrl_c_during_an_import_waits_for_its_end(tmp_path: Path) -> None:
    """As numpy's own C code does, the module passes over an exception."""
    (tmp_path / "half_imported.py").write_text(MODULE)
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{SWALLOWED}"
    done = python(program)
    assert (done.returncode, done.stdout, done.stderr) == (130, "True\n", "interrupted\n")


def test_ctrl_c_is_pythons_own_again_after_a_command() -> None:
    heard = []

    def main() -> None:
        heard.append(signal.getsignal(signal.SIGINT))
        signal.raise_signal(signal.SIGINT)

    assert run(main) == 130
    assert heard[0] is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.skipif(not hasattr(signal, "pause"), reason="POSIX")
def test_ctrl_c_during_a_long_import_ends_the_process(tmp_path: Path) -> None:
    (tmp_path / "half_imported.py").write_text(f"{MODULE}\nimport time\nwhile True:\n    time.sleep(0.01)\n")
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{SWALLOWED}"
    done = python(program)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")
