"""Configs back to YAML text and to plain data, and from them again."""

from pathlib import Path

import pytest
import yaml

from retinanet.config.dump import dump_config
from retinanet.config.load import config_from_dict, config_name, config_to_dict, load_config, with_overrides
from retinanet.config.schema import Config
from retinanet.errors import ConfigError

MODIFICATIONS: list[list[str]] = [
    [],
    ["schedule.epochs=0.5", "schedule.milestones=[]", "schedule.weight_decay=1e-5", "schedule.lr=1e22"],
    ["schedule.weight_decay=3e-310", "loss.box.beta=1.5e-7", "seed=9223372036854775807"],
    ["data.canvas=[64, 96]", "data.shorter_side=[1, 2, 3]", "model.anchors.scales=[1]", "data.color_jitter=1"],
    ["model.head.channels=32", "schedule.clip_norm=10", "eval.every=0", "model.channels_last=false"],
    *[
        [f"output={text}"]
        for text in (
            '"1e-4"', "'null'", "'~'", "''", "no", "'true'", "'0x1f'", "'2020-01-01'", "a: b", "a #b", "- a", "*a",
            "&a", "!a", "%a", "@a", "`a`", "'[a]'", "'{a}'", "a'b\"c", "C:\\runs\\new", "caf\u00e9", "\U0001f600",
            "' a '",
            '"a\\nb\\tc\\x01"', "\u2028", "\x7f", "\x85",
            "<<", "?", "runs/a.b-c_d", "yes", "1_0", "1:2", "'#'",
        )
    ],
]  # fmt: skip


@pytest.mark.parametrize("words", MODIFICATIONS, ids=[str(number) for number in range(len(MODIFICATIONS))])
def test_a_dumped_config_loads_back_equal(tmp_path: Path, words: list[str]) -> None:
    config = with_overrides(Config(), words)
    text = dump_config(config)
    path = tmp_path / "a.yaml"
    path.write_text(text, encoding="utf-8")
    assert load_config(path, []) == config
    assert config_from_dict(yaml.safe_load(text), "another reader") == config
    assert config_from_dict(config_to_dict(config), "a checkpoint") == config


def test_the_round_trip_keeps_what_was_set() -> None:
    assert with_overrides(Config(), ['output="1e-4"']).output == "1e-4"
    assert with_overrides(Config(), ['output="a\\nb\\tc\\x01"']).output == "a\nb\tc\x01"


@pytest.mark.parametrize("words", MODIFICATIONS[:6])
def test_a_described_dump_loads_back_equal(tmp_path: Path, words: list[str]) -> None:
    config = with_overrides(Config(), words)
    path = tmp_path / "a.yaml"
    path.write_text(dump_config(config, described=True), encoding="utf-8")
    assert load_config(path, []) == config


def test_a_described_dump_explains_every_key() -> None:
    lines = dump_config(Config(), described=True).splitlines()
    assert [line for line in lines if not line.endswith(":") and "  # " not in line] == []
    assert "  lr: 0.01  # Peak learning rate at the reference batch." in lines
    assert "#" not in dump_config(Config())


def test_a_dict_is_plain_data() -> None:
    def kinds(value: object) -> set[type]:
        if isinstance(value, dict):
            return set().union(*map(kinds, value.values())) | {dict} | {type(key) for key in value}
        return set().union(*map(kinds, value)) | {list} if isinstance(value, list) else {type(value)}

    assert kinds(config_to_dict(Config())) <= {dict, list, str, int, float, bool, type(None)}


def test_a_wrong_dict_names_its_source() -> None:
    with pytest.raises(ConfigError) as caught:
        config_from_dict({"schedule": {"lr": "x", "ephocs": 3}, "seed": -1}, "last.pt")
    message = str(caught.value)
    assert "last.pt: schedule.lr: expected a number" in message
    assert "last.pt: schedule.ephocs: unknown key; did you mean schedule.epochs?" in message
    assert "last.pt: seed: expected" in message
    with pytest.raises(ConfigError, match=r"last\.pt: the config must be a mapping"):
        config_from_dict([1], "last.pt")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="keys must be text"):
        config_from_dict({"log": {3: 4}}, "last.pt")


def test_wrong_overrides_of_a_config_are_located() -> None:
    with pytest.raises(
        ConfigError, match=r"override 'eval\.topk=0': eval\.topk: expected a whole number of at least 1"
    ):
        with_overrides(Config(), ["eval.topk=0"])


def test_the_name_is_the_stem() -> None:
    assert config_name("configs/coco/r50_1x.yaml") == "r50_1x"
