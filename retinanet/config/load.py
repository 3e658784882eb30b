"""Configs from YAML files, overrides and checkpoints, and back to text.

Layers, lowest first: the schema's defaults, the chain of `base:` files, the file, the overrides. A later layer
replaces values key by key; lists are replaced whole; naming one of `schedule.epochs` and `schedule.iterations`
drops the other one from the layers below, and naming another kind of `loss.classification` drops the keys that
were meant for the kind below, all but `weight`.
"""

import stat
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.config import strict_yaml as yaml_strict
from retinanet.config.class_losses import kind_of
from retinanet.config.faults import Error, WrongKey, WrongSection, find_errors, words
from retinanet.config.schema import Config
from retinanet.config.shipped import describe_missing, file_type
from retinanet.errors import ConfigError, list_errors

LENGTHS = ("epochs", "iterations")


class Origin(NamedTuple):
    """Where a value was written."""

    source: str
    """A file, `override 'x=y'`, or another name for the whole."""
    line: int = 0
    """Line in the file; 0 where there is none."""

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


class _Layer(NamedTuple):
    data: dict[str, Any]
    origins: dict[str, Origin]
    """Dotted path -> origin, the latest last; "" is the whole."""


class _Unread(NamedTuple):
    """What is wrong with the text of files or overrides."""

    errors: list["_Located"]
    partial: bool
    """Some value could not be read, so what a section says as a whole is not known."""


class _Located(NamedTuple):
    """An error with its place. Sorts by file and line, overrides last."""

    after_files: bool
    origin: Origin
    message: str


def config_name(path: Path | str) -> str:
    """Name of an experiment: its file's name without the suffix."""
    return Path(path).stem


def load_config(path: Path | str, overrides: list[str]) -> Config:
    """Config of a YAML file with its `base:` files and `key.path=value` overrides.

    Raises ConfigError naming every error with its file and line or override; OSError when a file that is there
    cannot be read.
    """
    path = Path(path)
    if file_type(path) != stat.S_IFREG:
        raise ConfigError(describe_missing(path))
    layers, unread = _read_chain(path)
    overlay, wrong = _read_overrides(overrides)
    unread = _Unread(unread.errors + wrong.errors, unread.partial or wrong.partial)
    return _checked([*layers, overlay], unread, f"cannot use the config {path}")


def with_overrides(config: Config, overrides: list[str]) -> Config:
    """The config with `key.path=value` overrides. Raises ConfigError naming every error."""
    below = _Layer(config_to_dict(config), {"": Origin("the config")})
    overlay, wrong = _read_overrides(overrides)
    return _checked([below, overlay], wrong, "cannot use the overrides")


def check_overrides(overrides: list[str]) -> None:
    """Raise ConfigError for `key.path=value` words that are wrong whatever the config that they change.

    For commands whose config lies in a checkpoint: a typing error is reported before anything is loaded. Keys of
    `loss.classification` depend on its kind and are checked later.
    """
    overlay, wrong = _read_overrides(overrides)
    data = dict(_with_tuples(overlay.data))
    loss = data.get("loss")
    if isinstance(loss, dict):
        data["loss"] = {key: value for key, value in loss.items() if key != "classification"}
    errors = list(wrong.errors)
    errors += [
        _located(_origin(error, overlay.origins), error.message)
        for error in find_errors(data)
        if isinstance(error, WrongKey)
    ]
    _raise_all(errors, "cannot use the overrides")


def config_from_dict(data: dict[str, Any], source: str) -> Config:
    """Config of plain data, such as a checkpoint holds; `source` names it in errors. Raises ConfigError."""
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: the config must be a mapping of keys, but is a {type(data).__name__}")
    return _checked([_Layer(data, {"": Origin(source)})], _Unread([], False), f"cannot use the config of {source}")


def config_to_dict(config: Config) -> dict[str, Any]:
    """Plain data (dict, list, str, int, float, bool, None) of every key."""
    return dict(_with_lists(config.model_dump(mode="python")))


def _checked(layers: list[_Layer], unread: _Unread, title: str) -> Config:
    """Merge the layers, validate, and raise all errors, those of the texts included."""
    merged = layers[0]
    errors = list(unread.errors)
    for layer in layers[1:]:
        merged, clash = _stacked(merged, layer)
        errors += clash
    data = dict(_with_tuples(_with_length(merged.data)))
    for error in find_errors(data):
        if not (unread.partial and isinstance(error, WrongSection)):
            errors.append(_located(_origin(error, merged.origins), error.message))
    _raise_all(errors, title)
    return Config.model_validate(data)


def _raise_all(errors: list["_Located"], title: str) -> None:
    if errors:
        lines = [f"{error.origin}: {error.message}" for error in sorted(set(errors))]
        raise ConfigError(list_errors(title, lines))


def _read_chain(path: Path) -> tuple[list[_Layer], _Unread]:
    """Layers of a file and the files it is based on, lowest first, with what is wrong with their YAML."""
    layers: list[_Layer] = []
    partial = False
    errors: list[_Located] = []
    seen: list[Path] = []
    while True:
        seen.append(path)
        parsed = yaml_strict.read(path)
        partial = partial or parsed.partial
        errors += [_located(Origin(str(path), line), message) for line, message in parsed.errors]
        origins = {key: Origin(str(path), line) for key, line in parsed.positions.items()}
        origins.setdefault("", Origin(str(path), 1))
        data = dict(parsed.data)
        layers.insert(0, _Layer(data, origins))
        if "base" not in data:
            return layers, _Unread(errors, partial)
        base = data.pop("base")
        problem = _base_error(base, seen)
        if problem:
            return layers, _Unread([*errors, _located(origins["base"], f"base: {problem}")], True)
        path = path.parent / base


def _base_error(base: object, seen: list[Path]) -> str:
    """Why a `base:` value cannot be followed from the last of the seen files, or nothing."""
    if not isinstance(base, str):
        return f"wants the path of one YAML file, relative to this file; got {base!r}"
    path = seen[-1].parent / base
    if file_type(path) != stat.S_IFREG:
        return describe_missing(path)
    if any(path.samefile(earlier) for earlier in seen):
        return "the files go round in a circle: " + " -> ".join(map(str, [*seen, path]))
    return ""


def _read_overrides(overrides: list[str]) -> tuple[_Layer, _Unread]:
    """One layer of all overrides; of two for the same key the later one counts."""
    layer = _Layer({}, {})
    errors: list[_Located] = []
    partial = False
    for word in overrides:
        origin = Origin(f"override {word!r}")
        key, equals, text = word.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            errors.append(_located(origin, "write it as key.path=value, for example schedule.lr=0.01"))
            continue
        if parts[0] == "base":
            errors.append(_located(origin, "base: only a config file can name its base"))
            continue
        parsed = _parse_value(text.strip())
        if parsed.errors:
            partial = True
            errors += [_located(origin, f"{key.strip()}: {message}") for _, message in parsed.errors]
            continue
        dotted = ".".join(parts)
        origins = {".".join(parts[:depth]): origin for depth in range(1, len(parts))}
        origins |= {f"{dotted}.{path}" if path else dotted: origin for path in parsed.positions}
        data = parsed.data
        for part in reversed(parts):
            data = {part: data}
        layer = _Layer(_merged(layer.data, data), _later(layer.origins, origins))
    return layer, _Unread(errors, partial)


def _parse_value(text: str) -> yaml_strict.Parsed:
    """A list, mapping or quoted text in YAML's flow style; anything else is one plain scalar, read verbatim."""
    if text[:1] in ("[", "{", '"', "'"):
        return yaml_strict.parse(text)
    return yaml_strict.Parsed(yaml_strict.scalar(text), {"": 1}, [])


def _stacked(below: _Layer, above: _Layer) -> tuple[_Layer, list[_Located]]:
    """Two layers as one, and the error of milestones left behind in the other length's unit."""
    data = _without_other_kind(below.data, above.data)
    errors: list[_Located] = []
    lower, upper = data.get("schedule"), above.data.get("schedule")
    if isinstance(lower, dict) and isinstance(upper, dict):
        chosen = [length for length in LENGTHS if upper.get(length) is not None]
        if len(chosen) == 1:
            other = LENGTHS[1 - LENGTHS.index(chosen[0])]
            data["schedule"] = {key: value for key, value in lower.items() if key != other}
            shape = upper.get("shape", lower.get("shape", "steps"))
            left = lower.get("milestones") if shape == "steps" and "milestones" not in upper else None
            if left and lower.get(other) is not None:
                message = (
                    f"schedule.{chosen[0]}: the milestones {list(left)} below are in {other}: "
                    f"give schedule.milestones in {chosen[0]} too ([] for none)"
                )
                errors.append(_located(above.origins[f"schedule.{chosen[0]}"], message))
    return _Layer(_merged(data, above.data), _later(below.origins, above.origins)), errors


def _without_other_kind(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """The layer below without the keys of a class loss whose kind the layer above replaces."""
    losses = [layer.get("loss") for layer in (below, above)]
    sections = [loss.get("classification") if isinstance(loss, dict) else None for loss in losses]
    lower, upper = sections
    if not (isinstance(lower, dict) and isinstance(upper, dict)) or kind_of(lower) == upper.get("kind", kind_of(lower)):
        return dict(below)
    kept = {key: value for key, value in lower.items() if key == "weight"}
    return {**below, "loss": {**below["loss"], "classification": kept}}


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Deep merge of mappings; anything else is replaced."""
    merged = dict(below)
    for key, value in above.items():
        lower = below.get(key)
        merged[key] = _merged(lower, value) if isinstance(lower, dict) and isinstance(value, dict) else value
    return merged


def _later(below: dict[str, Origin], above: dict[str, Origin]) -> dict[str, Origin]:
    return {path: origin for path, origin in below.items() if path not in above} | above


def _with_length(data: dict[str, Any]) -> dict[str, Any]:
    """A schedule that says nothing of its length takes the default one, with its milestones."""
    schedule = data.get("schedule")
    if not isinstance(schedule, dict) or any(length in schedule for length in LENGTHS):
        return data
    default = Config().schedule
    length = {"iterations": default.iterations, "milestones": default.milestones}
    return {**data, "schedule": length | schedule}


def _origin(error: Error, origins: dict[str, Origin]) -> Origin:
    """Place of an error: its key's, or the nearest section's above; for a section, the latest key it speaks of."""
    path = list(map(str, error.path))
    if isinstance(error, WrongSection):
        named = words(error.message)
        for dotted, origin in reversed(origins.items()):
            parts = dotted.split(".")
            if parts[:-1] == path and parts[-1] in named:
                return origin
    while path and ".".join(path) not in origins:
        path.pop()
    return origins.get(".".join(path), Origin("the config"))


def _located(origin: Origin, message: str) -> _Located:
    return _Located(origin.source.startswith("override "), origin, message)


def _with_tuples(value: Any) -> Any:
    """Lists as tuples, which is what the strict schema takes."""
    if isinstance(value, dict):
        return {key: _with_tuples(item) for key, item in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list | tuple) else value


def _with_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_lists(item) for key, item in value.items()}
    return list(map(_with_lists, value)) if isinstance(value, list | tuple) else value
