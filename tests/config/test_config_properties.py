"""Whatever a config's text or values are, they are a config or one message."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis_profiles import given, refused_at_most, scalars, st, trees, with_one_change

from retinanet.config.dump import dump_config
from retinanet.config.load import check_overrides, config_from_dict, config_to_dict, load_config
from retinanet.config.schema import Config
from retinanet.config.strict_yaml import parse

DEFAULTS = config_to_dict(Config())


def names(tree: dict[str, Any]) -> set[str]:
    return set(tree) | {name for value in tree.values() if isinstance(value, dict) for name in names(value)}


keys = st.sampled_from(sorted(names(DEFAULTS))) | st.text(max_size=6)
words = st.sampled_from(
    [
        "a",
        "schedule",
        "lr",
        ":",
        ": ",
        "- ",
        "\n",
        "  ",
        "[",
        "]",
        "{",
        "}",
        "&a",
        "*a",
        "!!int",
        "#",
        "'",
        '"',
        "1e-4",
        "|",
        ">",
        "<<",
        "---",
        "\t",
        "\0",
        "?",
        "%YAML 9.9",
        "\\U00110000",
        "é",
        "base: x.yaml",
        "@",
    ]
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config") / "a.yaml"


@given(st.lists(words).map("".join) | st.text())
def test_any_text_is_a_config_or_one_message(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8", errors="surrogatepass")
    with refused_at_most(file):
        assert isinstance(load_config(file, []), Config)


@given(st.dictionaries(keys, trees(keys), max_size=4) | with_one_change(DEFAULTS, trees(keys)))
def test_any_values_are_a_config_that_reads_back_equal_or_one_message(file: Path, data: dict[str, Any]) -> None:
    with refused_at_most("here"):
        config = config_from_dict(data, "here")
        assert config_from_dict(config_to_dict(config), "here") == config
        file.write_text(dump_config(config), encoding="utf-8")
        assert load_config(file, []) == config


@given(st.text() | st.builds("{}={}".format, st.lists(keys, max_size=3).map(".".join), st.text() | scalars.map(str)))
def test_any_override_is_taken_or_named(word: str) -> None:
    with refused_at_most(repr(word)):
        check_overrides([word])


@given(st.floats(1e-12, 1e6), st.integers(1, 10**6))
def test_an_override_is_worth_what_the_file_is(file: Path, lr: float, steps: int) -> None:
    file.write_text(f"schedule:\n  lr: {lr!r}\n  iterations: {steps}\n", encoding="utf-8")
    written = load_config(file, [])
    file.write_text("", encoding="utf-8")
    assert load_config(file, [f"schedule.lr={lr!r}", f"schedule.iterations={steps}"]) == written
    assert written.schedule.lr == lr


@given(
    trees(
        st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), max_size=6),
        st.none()
        | st.booleans()
        | st.integers(-(10**29), 10**29)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"])),
    )
)
def test_json_is_read_as_json_reads_it(tree: Any) -> None:
    parsed = parse(json.dumps(tree, indent=1))
    assert not parsed.errors
    assert parsed.data == tree
