"""YAML read strictly: plain data with line numbers, and every error of a text together.

Refused: duplicate keys, anchors and aliases, merge keys, tags, keys that are not text, several documents,
deep nesting, very many values, text that is not UTF-8, files over 1 MiB. Plain scalars follow YAML 1.2:
`1e-4` is a number, `yes`, `no`, `on` and `off` are text, and `010` is ten.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from retinanet.errors import ConfigError, list_errors

MOST_BYTES = 1 << 20
MOST_LEVELS = 32
MOST_VALUES = 20_000

_WHOLE = re.compile(r"[-+]?[0-9]{1,30}")
_DECIMAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, bool | float | None] = {
    "": None, "~": None, "null": None, "true": True, "false": False,
    ".inf": float("inf"), "+.inf": float("inf"), "-.inf": float("-inf"), ".nan": float("nan"),
}  # fmt: skip


class Parsed(NamedTuple):
    """What a text holds, and what is wrong with it."""

    data: Any
    """None, bool, int, float, str, or a list or dict (text keys) of these."""
    positions: dict[str, int]
    """Dotted path ("" is the whole, "a.b.0" an item of a list) -> line number from 1."""
    errors: list[tuple[int, str]]
    """(line number, what is wrong and how to fix it), in the order of the lines."""
    partial: bool = False
    """Some value could not be read, so `data` does not say all that the text says."""


def scalar(text: str) -> bool | int | float | str | None:
    """Value of an unquoted YAML 1.2 scalar; whatever is no number, true, false or null is text."""
    if text in _WORDS:
        return _WORDS[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    if _DECIMAL.fullmatch(text):
        return float(text)
    return text


def load_yaml(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Data of a YAML file whose top is a mapping (an empty file is an empty one), and its `Parsed.positions`.

    Raises ConfigError with every error as `file:line: message`; OSError when the file cannot be read.
    """
    parsed = read(path)
    if parsed.errors:
        errors = [f"{path}:{line}: {message}" for line, message in parsed.errors]
        raise ConfigError(list_errors(f"cannot read {path}", errors))
    return parsed.data, parsed.positions


def read(path: Path) -> Parsed:
    """`load_yaml`, with the errors returned instead of raised; `data` is then what could be read (always a dict)."""
    with path.open("rb") as file:
        raw = file.read(MOST_BYTES + 1)
    if len(raw) > MOST_BYTES:
        return Parsed({}, {}, [(1, f"larger than {MOST_BYTES} bytes: this cannot be a config")], True)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        return Parsed({}, {}, [(line, f"byte {error.start} is not UTF-8: save the file as UTF-8")], True)
    parsed = parse(text)
    if isinstance(parsed.data, dict):
        return parsed
    wrong = [] if parsed.errors or parsed.data is None else [(1, "the file must be a mapping of `key: value` lines")]
    return Parsed({}, parsed.positions, parsed.errors + wrong, bool(parsed.errors or wrong))


def parse(text: str) -> Parsed:
    """Strictly parse YAML text; `data` is None where its structure cannot be read at all."""
    errors, sound = _scan(text)
    positions: dict[str, int] = {}
    data = None
    partial = not sound
    if sound:
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
        except yaml.YAMLError as error:
            # Aliases that lead nowhere; the scan has noted every alias.
            return Parsed(None, {}, sorted(set(errors or [_syntax(text, error)])), True)
        if node is not None:
            walk = _Walk(positions, errors)
            data = walk.value(node, "")
            partial = walk.partial
    return Parsed(data, positions, sorted(set(errors)), partial)


def _scan(text: str) -> tuple[list[tuple[int, str]], bool]:
    """Errors visible in the event stream, and whether the text has one sound document."""
    errors: list[tuple[int, str]] = []
    documents = level = values = 0
    line = 1
    try:
        loader = yaml.SafeLoader(text)
        try:
            while loader.check_event():
                event = loader.get_event()
                line = event.start_mark.line + 1
                values += isinstance(event, yaml.NodeEvent)
                documents += isinstance(event, yaml.DocumentStartEvent)
                level += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
                if documents > 1:
                    return [*errors, (line, "a second document starts here: keep one document a file")], False
                if level > MOST_LEVELS:
                    return [*errors, (line, f"nested deeper than {MOST_LEVELS} levels")], False
                if values > MOST_VALUES:
                    return [*errors, (line, f"more than {MOST_VALUES} keys and values: this cannot be a config")], False
                if isinstance(event, yaml.NodeEvent):
                    errors += [(line, message) for message in _forbidden(event)]
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        return [*errors, _syntax(text, error)], False
    except (ValueError, OverflowError):
        # PyYAML hands the number of a \U escape or a %YAML line to Python unchecked.
        return [*errors, (line, "not valid YAML after this line: a number or \\U escape is out of range")], False
    return errors, True


def _forbidden(event: yaml.NodeEvent) -> list[str]:
    if isinstance(event, yaml.AliasEvent):
        return [f"alias *{event.anchor} is refused: write the value out, or share it through `base:`"]
    messages = []
    if event.anchor is not None:
        messages.append(f"anchor &{event.anchor} is refused: write the value out where it is needed")
    if isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent) and event.tag is not None:
        messages.append(f"tag {event.tag} is refused: write the plain value (text in quotes)")
    return messages


def _syntax(text: str, error: yaml.YAMLError) -> tuple[int, str]:
    """Line and wording of PyYAML's error."""
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return line, f"the character {chr(int(error.character))!r} is not allowed in YAML: remove it"
    mark = (error.problem_mark or error.context_mark) if isinstance(error, yaml.MarkedYAMLError) else None
    if mark is None or not isinstance(error, yaml.MarkedYAMLError):
        return 1, f"not valid YAML: {error}"
    problem = str(error.problem or error.context)
    at = mark.index
    if "'\\t'" in problem or text[at : at + 1] == "\t":
        return mark.line + 1, f"not valid YAML: a tab in column {mark.column + 1}: indent with spaces"
    context = ""
    if error.context and error.context_mark:
        context = f" {error.context} from line {error.context_mark.line + 1}:"
    return mark.line + 1, f"not valid YAML in column {mark.column + 1}:{context} {problem}"


class _Walk:
    """Turns composed nodes into plain data; each node once, so that aliases cannot multiply."""

    def __init__(self, positions: dict[str, int], errors: list[tuple[int, str]]) -> None:
        self.positions = positions
        self.errors = errors
        self.seen: set[int] = set()
        self.partial = False

    def value(self, node: yaml.Node, path: str) -> Any:
        self.positions.setdefault(path, node.start_mark.line + 1)
        if id(node) in self.seen:
            self.partial = True
            return None
        self.seen.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            return node.value if node.style else scalar(node.value)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, _join(path, str(index))) for index, item in enumerate(node.value)]
        return self.mapping(node, path)

    def mapping(self, node: yaml.Node, path: str) -> dict[str, Any]:
        data: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = self.key(key_node, line)
            if key is None:
                self.partial = True
                continue
            if key in lines:
                self.errors.append((line, f"{_join(path, key)}: given twice, first in line {lines[key]}: keep one"))
                continue
            lines[key] = self.positions[_join(path, key)] = line
            if id(value_node) in self.seen:
                self.partial = True
                continue
            data[key] = self.value(value_node, _join(path, key))
        return data

    def key(self, node: yaml.Node, line: int) -> str | None:
        """The key's text, or None after noting why it is refused."""
        if not isinstance(node, yaml.ScalarNode):
            self.errors.append((line, "a list or mapping cannot be a key"))
            return None
        plain = node.style is None
        if plain and node.value == "<<":
            self.errors.append((line, "merge key << is refused: write the keys out, or share them through `base:`"))
            return None
        if plain and not isinstance(scalar(node.value), str):
            self.errors.append((line, f"the key {node.value or '(empty)'} is not text: keys are names"))
            return None
        return str(node.value)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
