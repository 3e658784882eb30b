"""The border of every command line: faults become one message and an exit code.

0 done, 1 a fault of ours, 2 command line or config, 3 data set, 4 checkpoint, 5 numerical, 6 resources,
7 a study with cells that failed, 8 a cell that another process runs, 130 and 143 for signals. Imports nothing heavy,
so that `--help` is quick.
"""

import errno
import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from retinanet.errors import Interrupted, ResourceFault, UserFault

_OVERRIDE = re.compile(r"\s*[A-Za-z_]\w*(\.\w+)*\s*=")

_MEND = {
    errno.ENOSPC: "free some space, or write elsewhere with output=FOLDER",
    errno.EDQUOT: "free some space, or write elsewhere with output=FOLDER",
    errno.EACCES: "change its permissions, or choose another path",
    errno.EPERM: "change its permissions, or choose another path",
    errno.EROFS: "write elsewhere with output=FOLDER",
    errno.EIO: "the disk or the network drive failed; check it, or choose another path",
    errno.EMFILE: "allow more open files (`ulimit -n 4096`), or close what else runs here",
    errno.ENFILE: "close other programs",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.ENOTDIR: "a part of this path is a file; choose another path",
}

_LESS_MEMORY = (
    "use a smaller schedule.batch_size, the same batch in more parts (schedule.accumulation), "
    "a smaller data.shorter_side and data.longer_side, fewer data.workers or a smaller data.cache_mib"
)

# RuntimeErrors of torch that are no class of their own.
_MEMORY_WORDS = ("can't allocate memory", "not enough memory", "backend out of memory")


class Verdict(NamedTuple):
    """What the user is told of an exception."""

    exit_code: int
    message: str
    ours: bool = False
    """True: the traceback is printed too."""


def run(main: Callable[[], None]) -> int:
    """Run a tool's main and return its exit code, with any fault told on stderr. SystemExit passes through."""
    # CPU threads that spin for long while they wait starve each other as soon as anything else runs: beside one busy
    # process a training step took nine times as long. Some tens of microseconds keep the speed of an idle machine.
    # GNU OpenMP reads this when torch is imported, which is later.
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    border = _Border()
    with border:
        main()
        sys.stdout.flush()
    return border.exit_code


def judge(fault: BaseException) -> Verdict:
    """Exit code and message for an exception. An empty message says nothing."""
    if isinstance(fault, UserFault):
        return Verdict(fault.exit_code, f"error: {fault!s}")
    if isinstance(fault, Interrupted):
        return Verdict(fault.exit_code, str(fault))
    if isinstance(fault, KeyboardInterrupt):
        return Verdict(130, "interrupted")
    if isinstance(fault, BrokenPipeError):
        # 128 + SIGPIPE: whoever read our output, such as `head`, has left.
        return Verdict(141, "")
    if _is_out_of_memory(fault):
        first = next(iter(str(fault).splitlines()), "")
        what = f"out of memory: {first}" if first else "out of memory"
        return Verdict(ResourceFault.exit_code, f"error: {what}\n{_LESS_MEMORY}")
    if isinstance(fault, OSError) and (fault.errno in _MEND or isinstance(fault, PermissionError)):
        return Verdict(ResourceFault.exit_code, f"error: {_os_message(fault)}")
    report = "error: this is a fault of the program, not of your input: please report it with the lines above"
    return Verdict(1, report, ours=True)


def split_overrides(items: list[str]) -> tuple[list[str], list[str]]:
    """`(overrides, plain)`: the `key.path=value` words and the others, each in order.

    A word that is the path of an existing file is plain, whatever its name.
    """
    overrides: list[str] = []
    plain: list[str] = []
    for item in items:
        is_override = _OVERRIDE.match(item) is not None and not _exists(item)
        (overrides if is_override else plain).append(item)
    return overrides, plain


class _Border:
    """Catches what leaves a `with` block, tells it and keeps the exit code."""

    exit_code = 0

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if fault is None or isinstance(fault, SystemExit | GeneratorExit):
            return False
        verdict = judge(fault)
        self.exit_code = verdict.exit_code
        if isinstance(fault, BrokenPipeError):
            _silence_stdout()
        try:
            if verdict.ours:
                traceback.print_exception(fault, file=sys.stderr)
            if verdict.message:
                print(verdict.message, file=sys.stderr, flush=True)
        except BrokenPipeError:
            # Nobody reads stderr either; the exit code still tells.
            pass
        return True


def _silence_stdout() -> None:
    """Point stdout at nothing, so that the interpreter's last flush does not complain about the closed pipe."""
    with open(os.devnull, "wb") as nothing:  # noqa: PTH123 - a device, not a path of ours
        try:
            os.dup2(nothing.fileno(), sys.stdout.fileno())
        except (OSError, ValueError):
            # stdout has no descriptor (it was replaced), so there is nothing to silence.
            return


def _is_out_of_memory(fault: BaseException) -> bool:
    if isinstance(fault, MemoryError) or (isinstance(fault, OSError) and fault.errno == errno.ENOMEM):
        return True
    torch_oom = getattr(sys.modules.get("torch"), "OutOfMemoryError", None)
    if isinstance(torch_oom, type) and isinstance(fault, torch_oom):
        return True
    text = str(fault)
    return isinstance(fault, RuntimeError) and any(word in text for word in _MEMORY_WORDS)


def _os_message(fault: OSError) -> str:
    names = [os.fsdecode(name) for name in (fault.filename, fault.filename2) if isinstance(name, str | bytes)]
    what = (fault.strerror or str(fault) or "permission denied").lower()
    mend = _MEND.get(fault.errno or errno.EACCES, "")
    return f"{' -> '.join(names)}: {what}; {mend}" if names else f"{what}; {mend}"


def _exists(word: str) -> bool:
    try:
        return Path(word).exists()
    except (OSError, ValueError):
        # Too long for a file name, or not one at all.
        return False
