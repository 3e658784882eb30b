"""Reference pages made from the code: every config key with its meaning, and every command's help."""

import contextlib
import io
import json
import types
import typing
from collections.abc import Iterator

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from retinanet.__main__ import COMMANDS, command_main
from retinanet.config.schema import Config


def config_page() -> str:
    """Markdown tables of all config keys, a heading for each section."""
    return "\n".join(_section(Config, ""))


def commands_page() -> str:
    """Markdown with the text of `retinanet COMMAND --help` of each command."""
    return "\n".join(f"## retinanet {name}\n\n```text\n{_help(name)}\n```\n" for name in COMMANDS)


def _section(section: type[BaseModel], path: str, kind: str = "") -> Iterator[str]:
    plain = {name: field for name, field in section.model_fields.items() if not _sections(field.annotation)}
    if path:
        yield f"## {path}{kind}\n\n{(section.__doc__ or '').strip()}\n"
    else:
        yield "## At the top\n"
    yield "| key | meaning |\n| --- | --- |"
    for name, field in plain.items():
        key = f"`{path}{'.' if path else ''}{name}`"
        yield f"| {key} | {field.description}<br>{_values(field)}; default {_default(field)} |"
    yield ""
    for name, field in section.model_fields.items():
        below = f"{path}{'.' if path else ''}{name}"
        choices = _sections(field.annotation)
        for choice in choices:
            yield from _section(choice, below, "" if len(choices) == 1 else f": {_kind(choice)}")


def _sections(annotation: object) -> list[type[BaseModel]]:
    """The sections that a key may hold: one, or several where it has a `kind`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) in (typing.Union, typing.Annotated):
        return [found for part in typing.get_args(annotation) for found in _sections(part)]
    return []


def _kind(section: type[BaseModel]) -> str:
    return " or ".join(map(str, typing.get_args(section.model_fields["kind"].annotation))) or "module:function"


def _values(field: FieldInfo) -> str:
    return _type(field.annotation).replace("|", "\\|")


def _type(annotation: object) -> str:
    parts = [part for part in typing.get_args(annotation) if part is not ...]
    origin = typing.get_origin(annotation)
    if annotation is type(None):
        return "null"
    if isinstance(annotation, type) and origin is None:
        return {"str": "text", "int": "whole number", "float": "number", "bool": "true, false"}.get(
            annotation.__name__, annotation.__name__
        )
    if origin is typing.Literal:
        return ", ".join(f"`{part}`" for part in parts)
    if origin is typing.Annotated:
        return _type(parts[0])
    if origin is tuple:
        return f"list: {_type(parts[0])}"
    return ", ".join(_type(part) for part in parts)


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    return f"`{json.dumps(value, default=str)}`"


def _help(name: str) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
        command_main(name)(["--help"], f"retinanet {name}")
    return printed.getvalue().strip()
