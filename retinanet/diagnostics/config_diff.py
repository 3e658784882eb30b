"""The differences between two configs, key by key; each may be a YAML file or a checkpoint."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from retinanet.config import strict_yaml
from retinanet.config.flat import differing, flat
from retinanet.config.load import config_to_dict, load_config, with_overrides
from retinanet.config.schema import Config
from retinanet.display.console import print_plain
from retinanet.errors import ConfigError

ABSENT = "-"
"""In place of the value of a key that a config does not have, such as one of another loss."""

CHECKPOINTS = (".pt", ".pth")
YAML_FILES = (".yaml", ".yml")

STUDY_KEYS = {"arms", "grid"}
"""Top-level keys of a study (`retinanet ablate`) that a config does not have."""


class KeyDifference(NamedTuple):
    """A key with different values, as YAML has them."""

    key: str
    """Dotted."""
    first: str
    second: str


def read_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """The config of a YAML file or, by its suffix, of a checkpoint, with `key=value` overrides.

    Raises CheckpointError for a checkpoint that cannot be read, ConfigError for any other file without a config.
    """
    if path.suffix in CHECKPOINTS:
        # Imported here: only a checkpoint needs torch.
        from retinanet.run.checkpoint import load_checkpoint

        stored = load_checkpoint(path).config
        return with_overrides(stored, list(overrides)) if overrides else stored
    if path.is_file():
        if path.suffix not in YAML_FILES:
            kinds = f"a YAML file ({', '.join(YAML_FILES)}) or a checkpoint ({', '.join(CHECKPOINTS)})"
            raise ConfigError(f"{path}: this file has no config; give {kinds}")
        if strict_yaml.read(path).data.keys() & STUDY_KEYS:
            raise ConfigError(
                f"{path} is a study of many configs, for `retinanet ablate {path}`; give a config instead, such "
                "as the study's `base:`"
            )
    return load_config(path, list(overrides))


def differences(first: Config, second: Config) -> list[KeyDifference]:
    """Every key that differs between two resolved configs, in the order of the schema.

    A key that only the second has, such as one of its loss, follows the first's keys of the same section.
    """
    left, right = flat(config_to_dict(first)), flat(config_to_dict(second))
    order = list(left)

    def place(key: str) -> int:
        section = key.rpartition(".")[0]
        return order.index(key) if key in left else max(n for n, other in enumerate(order) if other.startswith(section))

    keys = sorted(differing(left, right), key=place)
    return [KeyDifference(key, _value_text(left, key), _value_text(right, key)) for key in keys]


def _value_text(values: dict[str, Any], key: str) -> str:
    value = values.get(key, ABSENT)
    return value if isinstance(value, str) else json.dumps(value)


def print_differences(first: Path, second: Path, console: Console) -> None:
    """Print the differing keys: a table in a terminal, else tab-separated lines of key, value and value."""
    rows = differences(read_config(first), read_config(second))
    if not rows:
        print_plain(console, f"{first} and {second} do not differ")
    elif console.is_terminal:
        table = Table("key", str(first), str(second), box=None, padding=(0, 2, 0, 0), pad_edge=False)
        for row in rows:
            table.add_row(*(Text(text, overflow="fold") for text in row))
        console.print(table)
    else:
        for line in (("key", str(first), str(second)), *rows):
            print("\t".join(line), file=console.file)  # a Console replaces tabs by spaces
