"""A config as YAML text that loads back to an equal config."""

import json
from typing import Any

from pydantic import BaseModel

from retinanet.config.model_keys import ModelKeys
from retinanet.config.schema import Config

YAML_1_1_WORDS = ("y", "n", "yes", "no", "on", "off", "true", "false", "null")
"""Words that this or another reader of YAML would not take for text."""


def dump_config(config: Config, described: bool = False) -> str:
    """YAML text of every key, which loads back to an equal config; `described` adds each key's meaning.

    With `model.weights`, keys of `model` that are not set are left out, because the detector named there brings them;
    a config in which they have been resolved has them all.
    """
    return "\n".join(_lines(config, described, "")) + "\n"


def _lines(section: BaseModel, described: bool, indent: str, only_set: bool = False) -> list[str]:
    lines = []
    described_by = {name: field.description for name, field in type(section).model_fields.items()}
    for name in (*described_by, *(section.model_extra or {})):
        value = getattr(section, name)
        if only_set and name not in section.model_fields_set:
            continue
        if isinstance(value, BaseModel):
            part = only_set or (isinstance(value, ModelKeys) and value.weights is not None)
            below = _lines(value, described, indent + "  ", part)
            lines += [f"{indent}{name}:", *below] if below else []
        else:
            meaning = described_by.get(name)
            comment = f"  # {meaning}" if described and meaning else ""
            lines.append(f"{indent}{name}: {_written(value)}{comment}")
    return lines


def _written(value: Any) -> str:
    """A value as `yaml_strict` reads it back."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        # YAML 1.1 readers take 1e-05 for text, 1.0e-05 for a number.
        mantissa, letter, exponent = repr(value).partition("e")
        return f"{mantissa}{'' if '.' in mantissa or not letter else '.0'}{letter}{exponent}"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_written, value)) + "]"
    plain = value.isascii() and value.replace("_", "").replace("/", "").replace(".", "").replace("-", "").isalnum()
    if plain and value[0].isalpha() and value.lower() not in YAML_1_1_WORDS:
        return str(value)
    quoted = json.dumps(value, ensure_ascii=False)
    return "".join(char if char.isprintable() else f"\\U{ord(char):08X}" for char in quoted)
