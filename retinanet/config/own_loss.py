"""`loss.classification` with a function of the user: its typed keyword arguments as config keys.

The file is read, not run: a mistake in a config is reported before torch is imported, and a config of unknown origin
runs nothing.
"""

import ast
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import GenericAlias
from typing import Any, Literal, NamedTuple

from pydantic import Field, create_model

from retinanet.config.class_losses import OwnLossKeys, is_own_kind
from retinanet.config.origins import LocatedError, Origin, located, located_errors, nearest_origin
from retinanet.config.user_code import find_file, read_function, source_sha256
from retinanet.errors import ConfigError

SECTION = "loss.classification"
PLAIN: dict[str, Any] = {"float": float, "int": int, "bool": bool, "str": str}
LISTS = ("tuple", "list", "Sequence", "Tuple", "List")
TYPES = "float, int, bool, str, Literal, tuple, or one of these | None"


class Resolved(NamedTuple):
    """A config's plain data with the section of an own loss completed."""

    data: dict[str, Any]
    errors: list[LocatedError]


def resolve_own_loss(data: dict[str, Any], origins: Mapping[str, Origin]) -> Resolved:
    """Complete `loss.classification` where it names a function: its file, the hash of that, and every argument.

    data: of a whole config, lists as tuples. Nothing is changed if no layer above a resolved config has written in the
    section. The file is that of the key `file`, else it is looked for in the working folder, and in the folders
    of the config and of the file in which `kind` is written. A config that has the hash already, because a run wrote
    it, can be read without that file or with a changed one; a training refuses it.
    """
    loss = data.get("loss")
    section = loss.get("classification") if isinstance(loss, dict) else None
    if not (isinstance(section, dict) and is_own_kind(section.get("kind"))):
        return Resolved(data, [])
    if not any(key == SECTION or key.startswith(f"{SECTION}.") for key in origins):
        return Resolved(data, [])
    place, hashed = nearest_origin(f"{SECTION}.kind", origins), section.get("source_sha256") is not None
    try:
        file = _file_of(section, [place.source, nearest_origin("", origins).source])
        sha256 = source_sha256(file)
        if hashed and section["source_sha256"] != sha256:
            return Resolved(_with_section(data, {**section, "file": str(file)}), [])
        keys = keys_of_function(section["kind"], file)
    except ConfigError as error:
        if hashed:
            return Resolved(_with_section(data, {**section, "file": None}), [])
        return Resolved(_with_section(data, {"kind": "focal"}), [located(place, f"{SECTION}.kind: {error}")])
    given = {**section, "file": str(file), "source_sha256": sha256}
    whole = create_model("Whole", loss=create_model("Loss", classification=keys))
    errors = located_errors({"loss": {"classification": given}}, whole, origins)
    if errors:
        return Resolved(_with_section(data, {"kind": "focal"}), errors)
    checked = keys.model_validate(given)
    return Resolved(_with_section(data, {**checked.model_dump(), "file": str(file)}), [])


def _file_of(section: dict[str, Any], sources: Sequence[str]) -> Path:
    kind, file = section["kind"], section.get("file")
    # What writes `file` is a dump of a config, or a user; the file may have moved since with its config.
    if isinstance(file, str) and Path(file).is_file():
        return Path(file).absolute()
    return find_file(kind, [Path(), *(path.parent for path in map(Path, sources) if path.is_file())])


def _with_section(data: dict[str, Any], section: dict[str, Any]) -> dict[str, Any]:
    return {**data, "loss": {**data["loss"], "classification": section}}


def keys_of_function(kind: str, file: Path) -> type[OwnLossKeys]:
    """The keys of `loss.classification` for a function. Raises ConfigError if its arguments cannot be keys."""
    function = read_function(file, kind.partition(":")[2])
    errors = list(function.errors)
    if len(function.positional) < 2:
        errors.append("it must take two arguments before the config's, the logits (N, K) and the targets (N, K)")
    fields: dict[str, Any] = {}
    for option in function.options:
        if option.name in OwnLossKeys.model_fields:
            errors.append(f"its argument {option.name} is called as a key of every loss: give it another name")
            continue
        if option.annotation is None:
            errors.append(f"its argument {option.name} has no type: write {option.name}: float, or another of {TYPES}")
            continue
        try:
            type_ = type_of(option.annotation)
        except ValueError:
            text = ast.unparse(option.annotation)
            errors.append(f"its argument {option.name} has the type {text}, which no config key has: use {TYPES}")
            continue
        default = ... if option.required else option.default
        fields[option.name] = (
            type_,
            Field(default, description=f"the argument {option.name} of {kind}", validate_default=True),
        )
    if errors:
        raise ConfigError(f"{file}: {kind.partition(':')[2]}: {'; '.join(errors)}")
    return create_model("OwnKeys", __base__=_Closed, **fields)


class _Closed(OwnLossKeys, extra="forbid"):
    """The keys of a function that has been read: others are errors."""


def type_of(annotation: ast.expr) -> Any:
    """The type of an annotation, with tuples for lists. Raises ValueError for one that a config cannot have."""
    match annotation:
        case ast.Name(id=name) if name in PLAIN:
            return PLAIN[name]
        case ast.Constant(value=None):
            return type(None)
        case ast.Constant(value=str() as text):
            return type_of(ast.parse(text, mode="eval").body)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return type_of(left) | type_of(right)
        case ast.Attribute(attr=name):
            return type_of(ast.Name(id=name))  # typing.Sequence and the like, without brackets
        case ast.Subscript(value=value, slice=inner):
            return _subscripted(ast.unparse(value).rpartition(".")[2], inner)
        case _:
            raise ValueError(ast.unparse(annotation))


def _subscripted(outer: str, inner: ast.expr) -> Any:
    parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
    if outer == "Literal":
        return Literal[tuple(ast.literal_eval(part) for part in parts)]
    if outer == "Optional" and len(parts) == 1:
        return type_of(parts[0]) | None
    endless = isinstance(parts[-1], ast.Constant) and parts[-1].value is ...
    if outer in LISTS and (endless or (outer.lower() != "tuple" and len(parts) == 1)):
        return GenericAlias(tuple, (type_of(parts[0]), ...))
    if outer in ("tuple", "Tuple"):
        return GenericAlias(tuple, tuple(type_of(part) for part in parts))
    raise ValueError(outer)
