"""Errors of plain data against a schema, a config's or a study's, as messages that a user can act on.

pydantic finds the errors; the messages name the key, what it takes, what was given, and what was probably meant.
"""

import copy
import difflib
import re
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

from retinanet.config.strict_yaml import scalar
from retinanet.config.suggestions import KeyPath, dotted_path, schema_node, suggest_key, suggest_name


class WrongKey(NamedTuple):
    """An error of the value under a key, or of the key."""

    path: KeyPath
    message: str
    """Begins with the dotted key."""


class MissingKey(NamedTuple):
    """A key without a default that is not given."""

    path: KeyPath
    message: str
    """Begins with the dotted key."""


class WrongSection(NamedTuple):
    """Keys of one section that contradict each other."""

    path: KeyPath
    message: str


SchemaError = WrongKey | MissingKey | WrongSection


def schema_errors(data: dict[str, Any], schema: type[BaseModel]) -> list[SchemaError]:
    """Every error of the data against the schema; empty if the schema accepts it.

    data: lists as the schema takes them, as tuples for a strict schema of tuples. pydantic checks a section's own rule
    only if all its keys are right. So the data is checked again without its wrong keys, and a rule that mentions none
    of those keys is reported as well.
    """
    raw = _validation_errors(data, schema)
    if not raw:
        return []
    tree = schema_tree(schema, data)
    first = [_as_written(one, tree, data) for one in raw]
    errors = list(dict.fromkeys(_worded(one, tree) for one in first))
    wrong = {_up_to_list(error.path) for error in errors if isinstance(error, WrongKey)}
    if not wrong:
        return errors
    rest = _without(data, wrong)
    for one in _validation_errors(rest, schema):
        error = _worded(_as_written(one, tree, rest), tree)
        removed = {str(path[-1]) for path in wrong if path[:-1] == _up_to_list(error.path)}
        # A wrong key that was removed is not missing.
        if isinstance(error, WrongSection) and error not in errors and not removed & message_words(error.message):
            errors.append(error)
    return errors


def message_words(message: str) -> set[str]:
    """The words of a message, in which keys are looked up."""
    return set(re.findall(r"\w+", message))


def schema_tree(schema: type[BaseModel], data: dict[str, Any]) -> dict[str, Any]:
    """The JSON schema of a model with its references resolved; sections have "properties".

    Of a section that comes in kinds it has the one that the data names, else the first; "kinds" has them all. A section
    that may be null is that section, with "nullable".
    """
    tree = schema.model_json_schema()
    definitions = tree.get("$defs", {})

    def resolved(node: Any) -> Any:
        if isinstance(node, list):
            return [resolved(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            own = {key: value for key, value in node.items() if key != "$ref"}
            return resolved(definitions[node["$ref"].rsplit("/", 1)[-1]]) | own
        return {key: resolved(value) for key, value in node.items() if key != "$defs"}

    return dict(_chosen(resolved(tree), data))


def _chosen(node: dict[str, Any], data: Any) -> dict[str, Any]:
    """A schema node for this data: every section of kinds is narrowed to one."""
    if "oneOf" in node:
        # The kind without a name of its own is that of a user's function.
        kinds = {option["properties"]["kind"].get("const"): option for option in node["oneOf"]}
        own = kinds.pop(None, None)
        named = str(data.get("kind")) if isinstance(data, dict) else ""
        option = own if own and ":" in named else kinds.get(named, node["oneOf"][0])
        kind = {"enum": list(kinds), "description": option["properties"]["kind"]["description"], "own": own is not None}
        return {**option, "properties": {**option["properties"], "kind": kind}, "kinds": kinds}
    sections = [option for option in node.get("anyOf", []) if "properties" in option]
    if len(sections) == 1:
        return {**_chosen(sections[0], data), "nullable": True}
    if isinstance(node.get("items"), dict):
        return {**node, "items": _chosen(node["items"], None)}
    below = {
        key: _chosen(child, data.get(key) if isinstance(data, dict) else None)
        for key, child in node.get("properties", {}).items()
    }
    return {**node, "properties": below} if below else node


def describe_type(node: dict[str, Any]) -> str:
    """The values that a key takes: `a number above 0`, `one of sgd, adamw`, `a list of 2 values, each ...`."""
    if "anyOf" in node:
        return " or ".join(describe_type(option) for option in node["anyOf"])
    if "properties" in node:
        return "a section of keys or null" if node.get("nullable") else "a section of keys"
    if "enum" in node:
        own = ", or a function in a file of yours, such as my_losses:poly" if node.get("own") else ""
        return "one of " + ", ".join(map(str, node["enum"])) + own
    if "const" in node:
        return str(node["const"])
    kind = node.get("type")
    if kind == "array":
        least, most = node.get("minItems", 0), node.get("maxItems")
        count = "of at least one value" if least else "of values"
        if most is not None:
            count = f"of {most} values" if least == most else f"of {least} to {most} values"
        if "prefixItems" in node:
            return f"a list {count}: {', '.join(map(describe_type, node['prefixItems']))}"
        return f"a list {count}, each {describe_type(node['items'])}" if node.get("items") else f"a list {count}"
    if node.get("minLength"):
        return "text that is not empty"
    names = {
        "integer": "a whole number",
        "number": "a number",
        "boolean": "true or false",
        "null": "null",
        "object": "a mapping of keys",
    }
    return " ".join([names.get(str(kind), "text"), _bounds(node)]).strip()


def describe_value(value: Any) -> str:
    """A value as the user may have written it, shortened."""
    if value is None:
        return "null (nothing)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return f"the text {value[:60]!r}" + ("..." if len(value) > 60 else "")
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, list | tuple):
        return f"a list of {len(value)} value{'' if len(value) == 1 else 's'}"
    return "a section of keys" if isinstance(value, dict) else f"a Python {type(value).__name__}"


def _validation_errors(data: dict[str, Any], schema: type[BaseModel]) -> list[dict[str, Any]]:
    """Errors as pydantic reports them, each with "loc", "type", "input" and for some types "ctx"."""
    try:
        schema.model_validate(data)
    except ValidationError as error:
        return [dict(raw) for raw in error.errors(include_url=False)]
    return []


def _as_written(raw: dict[str, Any], tree: dict[str, Any], data: Any) -> dict[str, Any]:
    """The error with the path as the user wrote it.

    pydantic omits `kind` from the path if its value is wrong, adds that value to the path if it is right, and reports a
    value that may have several types once for each, with the type in the path.
    """
    loc = tuple(raw["loc"])
    if raw["type"] == "union_tag_invalid":
        return {**raw, "loc": (*loc, "kind"), "input": raw["input"].get("kind")}
    for index in range(1, len(loc)):
        node = schema_node(loc[:index], tree)
        if loc[index] in node.get("kinds", {}):
            return _as_written({**raw, "loc": loc[:index] + loc[index + 1 :]}, tree, data)
        if "anyOf" in node and isinstance(loc[index], str):
            value = data
            for part in loc[:index]:
                value = value[part]
            return {**raw, "loc": loc[:index], "input": value, "type": "union"}
    return raw


def _worded(raw: dict[str, Any], tree: dict[str, Any]) -> SchemaError:
    """One of pydantic's errors in this project's words."""
    path = tuple(raw["loc"])
    dotted = dotted_path(path)
    if raw["type"] == "value_error":
        return WrongSection(path, f"{dotted}: {raw['ctx']['error']}" if dotted else str(raw["ctx"]["error"]))
    if raw["type"] == "invalid_key":
        return WrongKey(path, f"{dotted}: keys must be text")
    if raw["type"] == "missing":
        return MissingKey(path, f"{dotted}: is missing; give {schema_node(path, tree).get('description', 'it')}")
    if path[-1:] == ("[key]",):
        names = schema_node(path[:-2], tree).get("propertyNames", {}).get("enum", [])
        return WrongKey(path[:-1], f"{dotted_path(path[:-1])}: unknown key; {suggest_name(str(path[-2]), names)}")
    if raw["type"] == "extra_forbidden":
        dots = "." in str(path[-1])
        nest = " In a file, nest keys by indentation; dots are for the command line" if dots else ""
        return WrongKey(path, f"{dotted}: unknown key; {suggest_key(path, tree)}{nest}")
    node = schema_node(path, tree)
    given = raw["input"]
    return WrongKey(
        path,
        f"{dotted}: expected {describe_type(node)}, got {describe_value(given)}{_hint(node, given)}"
        + (f"; {node['remark']}" if "remark" in node else ""),
    )


def _hint(node: dict[str, Any], given: Any) -> str:
    """How to write what was probably meant; empty if that is unknown."""
    options = node.get("anyOf", [{**node, "enum": []}])
    words_of = [[option["const"]] if "const" in option else option.get("enum", []) for option in options]
    words = [word for some in words_of for word in some]
    kinds = {option.get("type") for option, some in zip(options, words_of) if not some}
    choices = [str(choice) for choice in node.get("enum", [])]
    if isinstance(given, str) and difflib.get_close_matches(given.lower(), words, n=1):
        return f": write {difflib.get_close_matches(given.lower(), words, n=1)[0]}"
    if isinstance(given, str) and choices:
        near = difflib.get_close_matches(given.lower(), choices, n=1)
        return f"; did you mean {near[0]}?" if near else ""
    if kinds & {"integer", "number", "boolean"} and isinstance(given, str):
        if "boolean" in kinds:
            return ": write true or false"
        bare = given.replace("_", "")
        number = scalar(bare)
        if isinstance(number, int | float) and not isinstance(number, bool):
            return f": write {bare}" if bare != given else ": write it without quotes"
    if "integer" in kinds and isinstance(given, float) and given.is_integer():
        return f": write {int(given)}"
    if "string" in kinds and isinstance(given, bool | int | float):
        return ": put it in quotes" if not choices else ""
    if node.get("type") == "array" and isinstance(given, bool | int | float | str):
        return ": write it in brackets, [a, b]" if node.get("minItems", 0) != 1 else ": write it in brackets, [a]"
    return ""


def _bounds(node: dict[str, Any]) -> str:
    least, most = node.get("minimum"), node.get("maximum")
    above, below = node.get("exclusiveMinimum"), node.get("exclusiveMaximum")
    if least is not None and most is not None:
        return f"from {least} to {most}"
    parts = [
        f"of at least {least}" if least is not None else "",
        f"above {above}" if above is not None else "",
        f"of at most {most}" if most is not None else "",
        f"below {below}" if below is not None else "",
    ]
    return " and ".join(part for part in parts if part)


def _up_to_list(path: KeyPath) -> KeyPath:
    """The path up to the first index of a list."""
    return tuple(path[: next((i for i, part in enumerate(path) if isinstance(part, int)), len(path))])


def _without(data: dict[str, Any], paths: set[KeyPath]) -> dict[str, Any]:
    """A copy of the data without the keys at these paths."""
    rest = copy.deepcopy(data)
    for path in paths:
        node: Any = rest
        for part in path[:-1]:
            node = node.get(part) if isinstance(node, dict) else None
        if isinstance(node, dict) and path:
            node.pop(path[-1], None)
    return rest
