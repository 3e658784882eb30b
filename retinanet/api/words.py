"""Config overrides of Python callers as the `key=value` words of the command line, so that both mean the same."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from retinanet.config.flat import leaves
from retinanet.errors import ConfigError

Overrides = Mapping[str, Any] | Sequence[str] | None
"""`{"schedule.epochs": 20}`, also nested, `{"schedule": {"epochs": 20}}`, or words, `["schedule.epochs=20"]`."""


def override_words(overrides: Overrides, data: str | Path | None = None) -> list[str]:
    """The words of `overrides`, and before them one that sets `data.source` to `data`.

    Tuples, paths and NumPy scalars are written as lists, texts and numbers. Raises ConfigError for other objects.
    """
    if isinstance(overrides, str):
        raise ConfigError(f'overrides: give a mapping or a list, such as ["{overrides}"], not one text')
    first = [] if data is None else [_word("data.source", data)]
    if isinstance(overrides, Mapping):
        return first + [_word(key, value) for key, value in leaves(overrides)]
    return first + [str(word) for word in overrides or ()]


def _word(key: str, value: Any) -> str:
    try:
        return f"{key}={json.dumps(value, default=_plain, ensure_ascii=False)}"
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{key}: {value!r} is not a number, text, list, True, False or None") from error


def _plain(value: object) -> object:
    """What JSON has for a path, a set of NumPy numbers or one of them."""
    if isinstance(value, Path):
        return str(value)
    to_list = getattr(value, "tolist", None)
    if to_list is None:
        raise TypeError
    return to_list()
