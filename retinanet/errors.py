"""Errors that a user can fix. Each carries the exit code that the command lines return.

The message is complete: what is wrong, in which file, key or image, and how to fix it. `commands.border.run` prints it
without a traceback.
"""

import errno
import os
import re
import sys
from typing import NamedTuple


class Verdict(NamedTuple):
    """How an exception is reported to the user."""

    exit_code: int
    message: str
    is_bug: bool = False
    """True: the traceback is printed too."""


_REMEDIES = {
    errno.ENOSPC: "free some space, or write elsewhere with output=FOLDER",
    errno.EDQUOT: "free some space, or write elsewhere with output=FOLDER",
    errno.EFBIG: "raise the limit of a file's size (`ulimit -f unlimited`), or write elsewhere with output=FOLDER",
    errno.EACCES: "change its permissions, or choose another path",
    errno.EPERM: "change its permissions, or choose another path",
    errno.EROFS: "write elsewhere with output=FOLDER",
    errno.EIO: "the disk or the network drive failed; check it, or choose another path",
    errno.EMFILE: "allow more open files (`ulimit -n 4096`), or close what else runs here",
    errno.ENFILE: "close other programs",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.ENOTDIR: "a part of this path is a file; choose another path",
}


# RuntimeErrors of torch that have no class of their own, and the linker's where torch does not fit.
_MEMORY_WORDS = ("can't allocate memory", "not enough memory", "backend out of memory", "failed to map segment")


_LESS_MEMORY = (
    "use a smaller schedule.batch_size, the same batch in more parts (schedule.accumulation), "
    "a smaller data.shorter_side and data.longer_side, fewer data.workers or a smaller data.cache_mib"
)


_CONTROLS = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2066-\\u2069]")


class UserError(ValueError):
    """Base of every error that the user can fix. `exit_code` is what the process returns."""

    exit_code = 2


class ConfigError(UserError):
    """A command line or a config that cannot be used (exit code 2)."""

    exit_code = 2


class DataError(UserError):
    """A data set, image or detections file that cannot be used (exit code 3)."""

    exit_code = 3


class CheckpointError(UserError):
    """A checkpoint or weights file that cannot be used (exit code 4)."""

    exit_code = 4


class NumericalError(UserError):
    """A loss or gradient that is no longer a finite number (exit code 5)."""

    exit_code = 5


class ResourceError(UserError):
    """Disk, memory, permission or device that is missing or taken (exit code 6)."""

    exit_code = 6


class RankError(UserError):
    """Another process of a distributed run that has ended, hangs or cannot be reached (exit code 9)."""

    exit_code = 9


class Interrupted(Exception):
    """A signal asked the run to stop; everything worth keeping has been saved.

    `exit_code` is 128 + the signal's number: 130 for SIGINT, 143 for SIGTERM.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class StoppedByCaller(Interrupted):
    """The `on_row` of a training that was started from Python asked the run to stop; it has been saved."""

    def __init__(self, message: str) -> None:
        super().__init__(message, 0)


def list_errors(title: str, errors: list[str], most: int = 50) -> str:
    """One message from many errors: a title with the count, then one indented line each."""
    lines = [f"  - {error}" for error in errors[:most]]
    if len(errors) > most:
        lines.append(f"  ... and {len(errors) - most} more")
    return "\n".join([f"{title} ({len(errors)} error{'s' if len(errors) != 1 else ''}):", *lines])


def remedy_for(number: int | None) -> str:
    """What to do about an operating system's error with this errno; what to check if nothing better is known."""
    return _REMEDIES.get(number or 0, "check its folder, permissions and free space")


def printable(text: str) -> str:
    """Text with the control characters of names and files as escapes, so that they cannot act on a terminal.

    Line breaks and tabs stay; characters that reverse the direction of text are escaped too.
    """
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def check_name(path: object) -> None:
    """Raise DataError for the path of a file whose name is not UTF-8 text, as those of very old archives are."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        text = f"{path}: this name is not UTF-8 text, which JSON and plots need; {name_remedy('it')}"
        raise DataError(text) from error


def name_remedy(what: str) -> str:
    """What to do about a name that is not UTF-8 text. what: stands for the file."""
    if sys.getfilesystemencoding().lower() in ("utf-8", "utf8"):
        return f"rename {what}"
    return "set PYTHONUTF8=1, because this terminal's language (LC_ALL, LANG) is not UTF-8"


def one_line(text: str) -> str:
    """`printable` text of a single line, for names: their line breaks and tabs are escapes, too."""
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def judge(error: BaseException) -> Verdict:
    """Exit code and message for an exception. Nothing is printed for an empty message."""
    if isinstance(error, UserError):
        return Verdict(error.exit_code, printable(f"error: {error!s}"))
    if isinstance(error, Interrupted):
        return Verdict(error.exit_code, printable(str(error)))
    if isinstance(error, KeyboardInterrupt):
        return Verdict(130, "interrupted")
    if isinstance(error, BrokenPipeError):
        # 128 + SIGPIPE: the reader of the output, such as `head`, has closed it.
        return Verdict(141, "")
    if _is_out_of_memory(error):
        first = next(iter(str(error).splitlines()), "")
        what = f"out of memory: {first}" if first else "out of memory"
        return Verdict(ResourceError.exit_code, f"error: {what}\n{_LESS_MEMORY}")
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        # No disk or permission is to blame, but a name in the command line or a file.
        return Verdict(ConfigError.exit_code, printable(f"error: {_os_message(error)}"))
    if isinstance(error, OSError) and (error.errno in _REMEDIES or isinstance(error, PermissionError)):
        return Verdict(ResourceError.exit_code, printable(f"error: {_os_message(error)}"))
    return Verdict(1, "internal error (a bug in retinanet): please report it with the traceback above", is_bug=True)


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    torch_oom = getattr(sys.modules.get("torch"), "OutOfMemoryError", None)
    if isinstance(torch_oom, type) and isinstance(error, torch_oom):
        return True
    text = str(error)
    return isinstance(error, RuntimeError | ImportError) and any(word in text for word in _MEMORY_WORDS)


def _os_message(error: OSError) -> str:
    names = [os.fsdecode(name) for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]
    what = (error.strerror or str(error) or "permission denied").lower()
    remedy = remedy_for(error.errno or errno.EACCES)
    return f"{' -> '.join(names)}: {what}; {remedy}" if names else f"{what}; {remedy}"
