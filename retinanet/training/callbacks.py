"""Functions of the user that get each row of metrics.jsonl, for loggers of all kinds."""

import copy
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from retinanet.config.user_code import find_file, load_function, read_function, source_sha256
from retinanet.errors import ConfigError, list_errors

_log = logging.getLogger(__name__)


class Callback:
    """One function, whose errors are reported and do not end the run."""

    def __init__(self, name: str, function: Callable[[dict[str, Any]], object]) -> None:
        self.name = name
        self.function = function
        self.errors = 0

    def __call__(self, row: dict[str, Any]) -> None:
        """Call the function with a copy of a row. Its first error is reported, and every tenfold number of them."""
        try:
            self.function(copy.deepcopy(row))
        except Exception as error:
            self.errors += 1
            if str(self.errors).strip("0") == "1":
                _log.warning(
                    "log.callbacks: %s raises %s: %s (%d error%s so far); the run goes on, metrics.jsonl has all rows",
                    *(self.name, type(error).__name__, error, self.errors, "" if self.errors == 1 else "s"),
                )


def find_callbacks(names: Sequence[str], folder: str | None) -> list[Path]:
    """The file of each `module:function`, in the working folder or `folder`; no file is run.

    Raises ConfigError that lists the functions that do not exist.
    """
    files, errors = [], []
    for name in names:
        try:
            file = find_file(name, [Path(), *([] if folder is None else [Path(folder)])])
            read_function(file, name.partition(":")[2])
            files.append(file)
        except ConfigError as error:
            errors.append(str(error))
    if errors:
        raise ConfigError(list_errors("log.callbacks: cannot be called", errors))
    return files


def load_callbacks(names: Sequence[str], folder: str | None) -> list[Callback]:
    """The functions, whose files are run. Raises ConfigError as `find_callbacks`, and for a file that fails."""
    files = find_callbacks(names, folder)
    return [
        Callback(name, load_function(file, name.partition(":")[2], source_sha256(file)))
        for name, file in zip(names, files, strict=True)
    ]
