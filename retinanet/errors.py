"""Faults a user can mend. Each carries the exit code that the command lines return.

The message is the whole story: what is wrong, in which file, key or image, and how to mend it.
`retinanet.cli.run` prints it without a traceback.
"""


class UserFault(ValueError):
    """Base of every fault that is not ours. `exit_code` is what the process returns."""

    exit_code = 2


class ConfigFault(UserFault):
    """A command line or a config that cannot be used (exit code 2)."""

    exit_code = 2


class DataFault(UserFault):
    """A data set, image or detections file that cannot be used (exit code 3)."""

    exit_code = 3


class CheckpointFault(UserFault):
    """A checkpoint or weights file that cannot be used (exit code 4)."""

    exit_code = 4


class NumericalFault(UserFault):
    """A loss or gradient that is no longer a finite number (exit code 5)."""

    exit_code = 5


class ResourceFault(UserFault):
    """Disk, memory, permission or device that is missing or taken (exit code 6)."""

    exit_code = 6


class Interrupted(Exception):
    """A signal asked the run to stop; everything worth keeping has been saved.

    `exit_code` is 128 + the signal's number: 130 for SIGINT, 143 for SIGTERM.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def list_faults(title: str, faults: list[str], most: int = 50) -> str:
    """One message from many faults: a title with the count, then one indented line each."""
    lines = [f"  - {fault}" for fault in faults[:most]]
    if len(faults) > most:
        lines.append(f"  ... and {len(faults) - most} more")
    return "\n".join([f"{title} ({len(faults)} fault{'s' if len(faults) != 1 else ''}):", *lines])
