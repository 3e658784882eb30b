"""YAML read strictly: values, line numbers, and every refused construct."""

from pathlib import Path

import pytest

from retinanet.config import strict_yaml as yaml_strict
from retinanet.errors import ConfigError


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1e3", 1000.0),
        ("1.", 1.0),
        (".5", 0.5),
        ("-3", -3),
        ("+3", 3),
        ("010", 10),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("true", True),
        ("false", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("12:30", "12:30"),
        ("2020-01-01", "2020-01-01"),
        ("1_000", "1_000"),
        ("'1e3'", "1e3"),
        ('"true"', "true"),
        ("[1, a, true]", [1, "a", True]),
        ("{a: {b: 2}}", {"a": {"b": 2}}),
    ],
)
def test_values_follow_yaml_1_2(tmp_path: Path, text: str, value: object) -> None:
    data, _ = yaml_strict.load_yaml(write(tmp_path, "a.yaml", f"key: {text}\n"))
    assert data == {"key": value}
    assert type(data["key"]) is type(value)


def test_positions_are_lines_of_dotted_paths(tmp_path: Path) -> None:
    text = "# a comment\na:\n  b: 1\n  c:\n    - 2\n    - 3\nd: {e: 4}\n"
    _, positions = yaml_strict.load_yaml(write(tmp_path, "a.yaml", text))
    assert positions["a"] == 2
    assert positions["a.b"] == 3
    assert positions["a.c"] == 4
    assert positions["a.c.1"] == 6
    assert positions["d.e"] == 7


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "---\n", "\ufeff"])
def test_an_empty_file_is_an_empty_mapping(tmp_path: Path, text: str) -> None:
    assert yaml_strict.load_yaml(write(tmp_path, "a.yaml", text))[0] == {}


@pytest.mark.parametrize(
    ("text", "line", "part"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "a: given twice, first in line 1"),
        ("a:\n  b: 1\n  b: 2\n", 3, "a.b: given twice, first in line 2"),
        ("a: &x 1\n", 1, "anchor &x"),
        ("a: &x 1\nb: *x\n", 2, "alias *x"),
        ("a: *nowhere\n", 1, "alias *nowhere"),
        ("a:\n  <<: {b: 1}\n", 2, "merge key <<"),
        ("a: 1\n2: 3\n", 2, "the key 2 is not text"),
        ("true: 3\n", 1, "the key true is not text"),
        ("? [a]\n: 3\n", 1, "cannot be a key"),
        ("a: !new 1\n", 1, "tag !new"),
        ("a: !!python/object/apply:os.system [ls]\n", 1, "tag tag:yaml.org,2002:python/object/apply:os.system"),
        ("a: 1\n---\nb: 2\n", 2, "a second document"),
        ("a:\n\tb: 1\n", 2, "a tab"),
        ("a: [1, 2\nb: 3\n", 2, "not valid YAML"),
        ("a: 'open\n", 2, "not valid YAML"),
        ("a: b: c\n", 1, "not valid YAML"),
        ('a: "\\UFFFFFFFF"\n', 1, "not valid YAML"),
        ("a: 1\nb: \x07\n", 2, "not allowed in YAML"),
        ("- 1\n- 2\n", 1, "must be a mapping"),
        ("just words\n", 1, "must be a mapping"),
        ("a: " + "[" * 40 + "]" * 40, 1, "nested deeper"),
        ("a: [" + "1, " * 20_000 + "]", 1, "more than 20000 keys and values"),
    ],
)
def test_refused_yaml_names_file_and_line(tmp_path: Path, text: str, line: int, part: str) -> None:
    path = write(tmp_path, "a.yaml", text)
    with pytest.raises(ConfigError) as caught:
        yaml_strict.load_yaml(path)
    message = str(caught.value)
    assert f"{path}:{line}: " in message
    assert part in message


def test_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"a: 1\nb: caf\xe9\n")
    with pytest.raises(ConfigError, match=r"a\.yaml:2: byte 11 is not UTF-8"):
        yaml_strict.load_yaml(path)


def test_a_huge_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "#" * (1 << 20) + "\n")
    with pytest.raises(ConfigError, match="larger than"):
        yaml_strict.load_yaml(path)


def test_an_alias_bomb_is_refused_quickly(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1, 1]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 40)]
    with pytest.raises(ConfigError, match="alias"):
        yaml_strict.load_yaml(write(tmp_path, "a.yaml", "\n".join(lines)))


def test_all_yaml_errors_come_together(tmp_path: Path) -> None:
    path = write(tmp_path, "a.yaml", "a: 1\na: 2\nb: &x 3\nc: *x\n4: d\ne: !t 1\n")
    with pytest.raises(ConfigError) as caught:
        yaml_strict.load_yaml(path)
    message = str(caught.value)
    assert "(5 errors)" in message
    assert [f"a.yaml:{line}:" in message for line in (2, 3, 4, 5, 6)] == [True] * 5
