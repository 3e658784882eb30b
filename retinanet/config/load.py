"""Configs from YAML files, overrides and checkpoints, and back to text.

Layers, lowest first: the schema's defaults, the chain of `base:` files, the file, the overrides. A later layer
replaces values key by key; lists are replaced as a whole. Setting one of `schedule.epochs` and `schedule.iterations`
removes the other from the layers below; `data.source` and the paths that it sets remove each other; setting another
kind of `loss.classification` removes the keys of the kind below, except `weight`.
"""

import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.config import strict_yaml
from retinanet.config.class_losses import OwnLossKeys, kind_of
from retinanet.config.not_a_config import config_error, key_for_path
from retinanet.config.origins import (
    LocatedError,
    Origin,
    file_origins,
    located,
    located_errors,
    nearest_origin,
    raise_located,
    text_errors,
)
from retinanet.config.own_loss import resolve_own_loss
from retinanet.config.schema import Config
from retinanet.config.shipped import describe_missing, file_type
from retinanet.errors import ConfigError

LENGTHS = ("epochs", "iterations")
PLACES = ("root", "train_annotations", "train_images", "val_annotations", "val_images")
"""Keys of `data` that `data.source` sets."""


class _Layer(NamedTuple):
    data: dict[str, Any]
    origins: dict[str, Origin]
    """Dotted path -> origin, the latest last; "" is the whole."""


class _Unread(NamedTuple):
    """Errors in the text of files or overrides."""

    errors: list[LocatedError]
    partial: bool
    """Some value could not be read, so sections as a whole cannot be checked."""


def config_name(path: Path | str) -> str:
    """Name of an experiment: its file's name without the suffix."""
    return Path(path).stem


def load_config(
    path: Path | str,
    overrides: Sequence[str],
    *,
    values: Mapping[str, Any] | None = None,
    origins: Mapping[str, Origin] | None = None,
) -> Config:
    """Config of a YAML file with its `base:` files, `values` as for `with_values`, and `key.path=value` overrides.

    Raises InvalidConfig naming every error with its file and line or override, ConfigError if there is no such file;
    OSError when an existing file cannot be read.
    """
    path = Path(path)
    if error := config_error(path):
        raise ConfigError(error)
    layers, unread = _read_chain(path)
    overlay, wrong = _read_overrides(overrides, _value_layer(values or {}, origins or {}))
    unread = _Unread(unread.errors + wrong.errors, unread.partial or wrong.partial)
    return _checked([*layers, overlay], unread, f"cannot use the config {path}")


def with_overrides(config: Config, overrides: Sequence[str]) -> Config:
    """The config with `key.path=value` overrides. Raises InvalidConfig naming every error."""
    return with_values(config, {}, overrides=overrides)


def with_values(
    config: Config,
    values: Mapping[str, Any],
    *,
    origins: Mapping[str, Origin] | None = None,
    overrides: Sequence[str] = (),
) -> Config:
    """The config with plain values of dotted keys, and overrides on top of them.

    values: `{"schedule.lr": 0.01}`, plain data (lists, no mappings); the order of keys has no effect.
    origins: dotted key -> where its value was written, which errors name; keys without one are located by their name.

    Raises InvalidConfig naming every error.
    """
    # Keys of `model` that are not set stay so, because a detector of `model.weights` brings them.
    data = {**config_to_dict(config), "model": _with_lists(config.model.model_dump(exclude_unset=True))}
    data["log"]["callback_folder"] = config.log.callback_folder
    match config.loss.classification:
        case OwnLossKeys(file=file):
            data["loss"]["classification"]["file"] = file
    below = _Layer(data, {"": Origin("the config")})
    overlay, wrong = _read_overrides(overrides, _value_layer(values, origins or {}))
    return _checked([below, overlay], wrong, "cannot use the overrides")


def check_overrides(overrides: Sequence[str]) -> None:
    """Raise InvalidConfig for `key.path=value` words that are wrong whatever the config that they change.

    For commands whose config lies in a checkpoint: a typing error is reported before anything is loaded. Keys of
    `loss.classification` depend on its kind and are checked later.
    """
    overlay, wrong = _read_overrides(overrides)
    data = dict(_with_tuples(overlay.data))
    loss = data.get("loss")
    if isinstance(loss, dict):
        data["loss"] = {key: value for key, value in loss.items() if key != "classification"}
    errors = wrong.errors + located_errors(data, Config, overlay.origins, partial=True)
    raise_located(errors, "cannot use the overrides")


def config_from_dict(data: dict[str, Any], source: str) -> Config:
    """Config of plain data, such as a checkpoint holds; `source` names it in errors. Raises ConfigError.

    A class loss of the user is kept by name: its file is neither looked for nor run.
    """
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: the config must be a mapping of keys, but is a {type(data).__name__}")
    match data:
        case {"loss": {"classification": {"file": _, **rest}, **others}}:
            data = {**data, "loss": {**others, "classification": rest}}
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
    data = _with_callback_folder(dict(_with_tuples(_with_length(merged.data))), merged.origins)
    data, wrong = resolve_own_loss(data, merged.origins)
    errors += wrong
    errors += located_errors(data, Config, merged.origins, partial=unread.partial)
    raise_located(errors, title)
    return Config.model_validate(data)


def _read_chain(path: Path) -> tuple[list[_Layer], _Unread]:
    """Layers of a file and the files it is based on, lowest first, with the errors of their YAML."""
    layers: list[_Layer] = []
    partial = False
    errors: list[LocatedError] = []
    seen: list[Path] = []
    while True:
        seen.append(path)
        parsed = strict_yaml.read(path)
        partial = partial or parsed.partial
        errors += text_errors(str(path), parsed)
        origins = file_origins(str(path), parsed)
        data = dict(parsed.data)
        if isinstance(data.get("data"), str):
            data["data"] = {"source": data["data"]}
            origins["data.source"] = origins["data"]
        layers.insert(0, _Layer(data, origins))
        if "base" not in data:
            return layers, _Unread(errors, partial)
        base = data.pop("base")
        problem = _base_error(base, seen)
        if problem:
            return layers, _Unread([*errors, located(origins["base"], f"base: {problem}")], True)
        path = path.parent / base


def _base_error(base: object, seen: list[Path]) -> str:
    """Why a `base:` value cannot be followed from the last of the seen files, or an empty string."""
    if not isinstance(base, str):
        return f"expected the path of one YAML file, relative to this file; got {base!r}"
    path = seen[-1].parent / base
    if file_type(path) != stat.S_IFREG:
        return describe_missing(path)
    if any(path.samefile(earlier) for earlier in seen):
        return "the files form a circle: " + " -> ".join(map(str, [*seen, path]))
    return ""


def _value_layer(values: Mapping[str, Any], origins: Mapping[str, Origin]) -> _Layer:
    """One layer of plain values of dotted keys."""
    layer = _Layer({}, {})
    for key, value in values.items():
        items = range(len(value)) if isinstance(value, list | tuple) else ()
        parsed = strict_yaml.Parsed(value, dict.fromkeys(["", *map(str, items)], 1), [])
        layer = _with_key(layer, key, parsed, origins.get(key, Origin(key)))
    return layer


def _with_key(layer: _Layer, key: str, parsed: strict_yaml.Parsed, origin: Origin) -> _Layer:
    """The layer with the value of a dotted key on top."""
    parts = key.split(".")
    origins = {".".join(parts[:depth]): origin for depth in range(1, len(parts))}
    origins |= {f"{key}.{path}" if path else key: origin for path in parsed.positions}
    data = parsed.data
    for part in reversed(parts):
        data = {part: data}
    return _Layer(_merged(layer.data, data), _later(layer.origins, origins))


def _read_overrides(overrides: Sequence[str], below: _Layer | None = None) -> tuple[_Layer, _Unread]:
    """One layer of all overrides, on top of another; of two for the same key the later one counts."""
    layer = below or _Layer({}, {})
    errors: list[LocatedError] = []
    partial = False
    for word in overrides:
        origin = Origin(f"override {word!r}")
        key, equals, text = word.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            example = key_for_path(word) or "key.path=value, for example schedule.lr=0.01"
            errors.append(located(origin, f"write it as {example}"))
            continue
        if parts[0] == "base":
            errors.append(located(origin, "base: only a config file can name its base"))
            continue
        parsed = _parse_value(text.strip())
        if parsed.errors:
            partial = True
            errors += [located(origin, f"{key.strip()}: {message}") for _, message in parsed.errors]
            continue
        # `data=PATH` can only mean the data set.
        name = "data.source" if key.strip() == "data" and isinstance(parsed.data, str) else key.strip()
        layer = _with_key(layer, name, parsed, origin)
    given = layer.data.get("data")
    if isinstance(given, dict) and given.get("source") is not None and set(given) & set(PLACES):
        both = ", ".join(f"data.{key}" for key in PLACES if key in given)
        message = f"data.source: is given together with {both}, which it sets; give only one of them"
        errors.append(located(layer.origins["data.source"], message))
    return layer, _Unread(errors, partial)


def _parse_value(text: str) -> strict_yaml.Parsed:
    """A list, mapping or quoted text in YAML's flow style; anything else is one plain scalar, read verbatim."""
    if text[:1] in ("[", "{", '"', "'"):
        return strict_yaml.parse(text)
    return strict_yaml.Parsed(strict_yaml.scalar(text), {"": 1}, [])


def _stacked(below: _Layer, above: _Layer) -> tuple[_Layer, list[LocatedError]]:
    """Two layers merged, and the error of milestones in the unit of the length that was replaced."""
    data = _without_other_places(_without_other_kind(below.data, above.data), above.data)
    errors: list[LocatedError] = []
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
                errors.append(located(above.origins[f"schedule.{chosen[0]}"], message))
    return _Layer(_merged(data, above.data), _later(below.origins, above.origins)), errors


def _without_other_kind(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """The layer below without the keys of a class loss of another kind than the layer above sets."""
    losses = [layer.get("loss") for layer in (below, above)]
    sections = [loss.get("classification") if isinstance(loss, dict) else None for loss in losses]
    lower, upper = sections
    if not (isinstance(lower, dict) and isinstance(upper, dict)) or kind_of(lower) == upper.get("kind", kind_of(lower)):
        return dict(below)
    kept = {key: value for key, value in lower.items() if key == "weight"}
    return {**below, "loss": {**below["loss"], "classification": kept}}


def _without_other_places(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """The layer below without `data.source` where the layer above sets its paths, and the other way round."""
    lower, upper = below.get("data"), above.get("data")
    if not (isinstance(lower, dict) and isinstance(upper, dict)):
        return below
    if upper.get("source") is not None:
        replaced = set(PLACES)
    else:
        replaced = {"source"} if set(upper) & set(PLACES) else set()
    return {**below, "data": {key: value for key, value in lower.items() if key not in replaced}}


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
    """A schedule without a length gets the default one, with its milestones."""
    schedule = data.get("schedule")
    if not isinstance(schedule, dict) or any(length in schedule for length in LENGTHS):
        return data
    default = Config().schedule
    length = {"iterations": default.iterations, "milestones": default.milestones}
    return {**data, "schedule": length | schedule}


def _with_callback_folder(data: dict[str, Any], origins: dict[str, Origin]) -> dict[str, Any]:
    """Callbacks that a config file names are also looked for next to it."""
    log, file = data.get("log"), Path(nearest_origin("log.callbacks", origins).source)
    if not (isinstance(log, dict) and log.get("callbacks") and log.get("callback_folder") is None and file.is_file()):
        return data
    return {**data, "log": {**log, "callback_folder": str(file.parent.absolute())}}


def _with_tuples(value: Any) -> Any:
    """Lists as tuples, as the strict schema requires."""
    if isinstance(value, dict):
        return {key: _with_tuples(item) for key, item in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list | tuple) else value


def _with_lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_lists(item) for key, item in value.items()}
    return list(map(_with_lists, value)) if isinstance(value, list | tuple) else value
