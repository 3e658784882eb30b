"""Where values of configs and studies were written, and errors reported with that place."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel

from retinanet.config.faults import SchemaError, WrongKey, WrongSection, message_words, schema_errors
from retinanet.config.strict_yaml import Parsed
from retinanet.errors import ConfigError, list_errors


class Origin(NamedTuple):
    """Where a value was written."""

    source: str
    """A file, `override 'x=y'`, or another name for the whole."""
    line: int = 0
    """Line in the file; 0 if there is none."""

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


class LocatedError(NamedTuple):
    """An error with its place. Sorts by file and line, overrides last."""

    after_files: bool
    origin: Origin
    message: str

    def __str__(self) -> str:
        return f"{self.origin}: {self.message}"


class InvalidConfig(ConfigError):
    """A config with errors, each at its place."""

    def __init__(self, title: str, errors: list[LocatedError]) -> None:
        self.errors = sorted(set(errors))
        super().__init__(list_errors(title, list(map(str, self.errors))))


def raise_located(errors: list[LocatedError], title: str) -> None:
    """Raise InvalidConfig if there are errors."""
    if errors:
        raise InvalidConfig(title, errors)


def located(origin: Origin, message: str) -> LocatedError:
    """An error at a place."""
    return LocatedError(origin.source.startswith("override "), origin, message)


def text_errors(source: str, parsed: Parsed) -> list[LocatedError]:
    """Errors of a YAML text itself."""
    return [located(Origin(source, line), message) for line, message in parsed.errors]


def file_origins(source: str, parsed: Parsed) -> dict[str, Origin]:
    """Dotted path -> origin of every key of a YAML file; "" is the whole file."""
    return {"": Origin(source, 1)} | {path: Origin(source, line) for path, line in parsed.positions.items()}


def located_errors(
    data: dict[str, Any], schema: type[BaseModel], origins: Mapping[str, Origin], *, partial: bool = False
) -> list[LocatedError]:
    """Errors of the data against the schema, each at its key's place.

    partial: some of the text could not be read, so that keys that seem missing and sections as a whole are not judged.
    """
    errors = schema_errors(data, schema)
    return [
        located(_origin_of(error, origins), error.message)
        for error in errors
        if isinstance(error, WrongKey) or not partial
    ]


def nearest_origin(dotted: str, origins: Mapping[str, Origin]) -> Origin:
    """Place of a dotted path, or of the nearest section above it that was written."""
    while dotted and dotted not in origins:
        dotted = dotted.rpartition(".")[0]
    return origins.get(dotted, Origin("the config"))


def _origin_of(error: SchemaError, origins: Mapping[str, Origin]) -> Origin:
    """For a key, its place or the nearest above; for a section, that of the latest key its message names."""
    path = list(map(str, error.path))
    if isinstance(error, WrongSection):
        named = message_words(error.message)
        for dotted, origin in reversed(list(origins.items())):
            parts = dotted.split(".")
            if parts[:-1] == path and parts[-1] in named:
                return origin
    return nearest_origin(".".join(path), origins)
