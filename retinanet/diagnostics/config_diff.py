"""What differs between two configs, key by key; either may be a YAML file or a checkpoint."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table
from rich.text import Text

from retinanet.config import strict_yaml as yaml_strict
from retinanet.config.load import config_to_dict, load_config, with_overrides
from retinanet.config.schema import Config
from retinanet.errors import ConfigError

ABSENT = "-"
"""Stands for the value of a key that the other loss or section does not have."""

CHECKPOINTS = (".pt", ".pth")
YAML_FILES = (".yaml", ".yml")

STUDY_KEYS = {"arms", "grid"}
"""Keys of a study (`retinanet ablate`) that no config has."""


class Difference(NamedTuple):
    """One key whose values are not the same."""

    key: str
    """Dotted."""
    first: str
    second: str


def read_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """The config of a YAML file or, by its suffix, of a checkpoint, with `key=value` overrides.

    Raises CheckpointError for a checkpoint that cannot be read, ConfigError for any other file that holds no config.
    """
    if path.suffix in CHECKPOINTS:
        # Imported here: only a checkpoint needs torch.
        from retinanet.run.checkpoint import load_checkpoint

        stored = load_checkpoint(path).config
        return with_overrides(stored, list(overrides)) if overrides else stored
    if path.is_file():
        if path.suffix not in YAML_FILES:
            kinds = f"YAML files ({', '.join(YAML_FILES)}) and checkpoints ({', '.join(CHECKPOINTS)})"
            raise ConfigError(f"{path}: no config can be read from this; only {kinds} hold one")
        if yaml_strict.read(path).data.keys() & STUDY_KEYS:
            raise ConfigError(
                f"{path} is a study of many configs, for `retinanet ablate {path}`; give a config instead, such "
                "as the one that its `base:` names"
            )
    return load_config(path, list(overrides))


def differences(first: Config, second: Config) -> list[Difference]:
    """Every key that differs, in the order of the schema; both configs resolved, defaults included."""
    left, right = flat(config_to_dict(first)), flat(config_to_dict(second))
    keys = list(left)
    for key in right:
        if key not in left:
            section = key.rsplit(".", 1)[0]
            keys.insert(max(place for place, other in enumerate(keys) if other.startswith(section)) + 1, key)
    rows = (Difference(key, left.get(key, ABSENT), right.get(key, ABSENT)) for key in keys)
    return [row for row in rows if row.first != row.second]


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Dotted keys and their values as text, numbers and lists as YAML has them."""
    found: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value if isinstance(value, str) else json.dumps(value)
    return found


def print_differences(first: Path, second: Path, console: Console) -> None:
    """A table of the keys that differ on a terminal; lines of key, value, value with tabs between them elsewhere."""
    rows = differences(read_config(first), read_config(second))
    if not rows:
        console.print(f"{first} and {second} do not differ", markup=False, highlight=False, soft_wrap=True)
    elif console.is_terminal:
        table = Table("key", str(first), str(second), box=None, padding=(0, 2, 0, 0), pad_edge=False)
        for row in rows:
            table.add_row(*(Text(text, overflow="fold") for text in row))
        console.print(table)
    else:
        for line in (("key", str(first), str(second)), *rows):
            print("\t".join(line), file=console.file)  # a Console would put spaces for tabs
