"""Differences between two configs, from YAML files, checkpoints and `retinanet config`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from retinanet.config.load import config_to_dict, load_config, with_overrides
from retinanet.config.schema import Config
from retinanet.diagnostics.config_diff import KeyDifference, differences, read_config
from retinanet.errors import CheckpointError
from retinanet.run.checkpoint import load_checkpoint

Tool = Callable[..., tuple[int, str, str]]


def test_equal_configs_have_no_differences() -> None:
    assert differences(Config(), Config()) == []


def test_differing_keys_come_in_the_order_of_the_schema_with_both_values() -> None:
    overrides = [
        "seed=3",
        "data.canvas=[64, 96]",
        "model.head.channels=8",
        "schedule.lr=0.1",
        "assign.low_quality=true",
    ]
    assert differences(Config(), with_overrides(Config(), overrides)) == [
        KeyDifference("model.head.channels", "null", "8"),
        KeyDifference("assign.low_quality", "false", "true"),
        KeyDifference("data.canvas", "null", "[64, 96]"),
        KeyDifference("schedule.lr", "0.01", "0.1"),
        KeyDifference("seed", "0", "3"),
    ]


def test_keys_of_one_kind_of_loss_have_a_dash_in_the_other_column() -> None:
    other = with_overrides(Config(), ["loss.classification.kind=ghm", "loss.normaliser=rank_positives"])
    found = differences(Config(), other)
    assert found[0] == KeyDifference("loss.classification.kind", "focal", "ghm")
    assert set(found[1:-1]) == {
        KeyDifference("loss.classification.alpha", "0.25", "-"),
        KeyDifference("loss.classification.gamma", "2.0", "-"),
        KeyDifference("loss.classification.bins", "-", "30"),
    }
    assert found[-1].key == "loss.normaliser"
    assert differences(other, Config())[0] == KeyDifference("loss.classification.kind", "ghm", "focal")


def test_a_checkpoint_gives_the_config_it_was_trained_with(trained: Path) -> None:
    config = read_config(trained / "checkpoints/best.pt")
    assert config == load_config(trained / "config.yaml", [])
    with pytest.raises(CheckpointError):
        read_config(trained / "config.pt")


def test_overrides_change_either_kind(trained: Path) -> None:
    for name in ("config.yaml", "checkpoints/best.pt"):
        changed = read_config(trained / name, ["seed=41"])
        assert [row.key for row in differences(read_config(trained / name), changed)] == ["seed"]


def test_diff_of_a_file_and_a_checkpoint_in_tab_separated_lines(tool: Tool, tiny_yaml: Path, trained: Path) -> None:
    checkpoint = trained / "checkpoints/last.pt"
    chosen = load_checkpoint(checkpoint).config.model.channels_last  # by this processor
    assert chosen in (True, "inference")
    code, out, err = tool("config.py", "diff", tiny_yaml, checkpoint)
    assert (code, err) == (0, "")
    assert [line.split("\t") for line in out.splitlines()] == [
        ["key", str(tiny_yaml), str(checkpoint)],
        ["model.channels_last", "auto", "true" if chosen is True else "inference"],
        ["schedule.iterations", "6", "2"],
        ["schedule.ema", "0.0", "0.9"],
        ["compile", "auto", "false"],
    ]


def test_diff_of_equal_configs_says_so(tool: Tool, tiny_yaml: Path) -> None:
    code, out, err = tool("config.py", "diff", tiny_yaml, tiny_yaml)
    assert (code, err) == (0, "")
    assert out == f"{tiny_yaml} and {tiny_yaml} do not differ\n"


def test_show_prints_a_config_that_loads_back(tool: Tool, trained: Path, tmp_path: Path) -> None:
    code, out, err = tool("config.py", "show", trained / "checkpoints/best.pt")
    assert (code, err) == (0, "")
    (tmp_path / "shown.yaml").write_text(out, encoding="utf-8")
    assert config_to_dict(load_config(tmp_path / "shown.yaml", [])) == config_to_dict(
        read_config(trained / "checkpoints/best.pt")
    )


@pytest.mark.parametrize(
    ("first", "second", "code", "message"),
    [
        ("gone.yaml", "gone.pt", 2, "there is no config"),
        ("tiny", "gone.pt", 4, "no such checkpoint"),
        ("tiny", "q.onnx", 2, "this file has no config; give a YAML file (.yaml, .yml) or a checkpoint (.pt, .pth)"),
        ("tiny", "study.yaml", 2, "study.yaml is a study of many configs, for `retinanet ablate "),
        ("tiny", "wrong.yaml", 2, "wrong.yaml:1: modle: unknown key; did you mean model?"),
    ],
)
def test_what_cannot_be_read_is_one_message(
    tool: Tool, tiny_yaml: Path, tmp_path: Path, first: str, second: str, code: int, message: str
) -> None:
    (tmp_path / "wrong.yaml").write_text("modle: {}\n", encoding="utf-8")
    (tmp_path / "q.onnx").write_bytes(bytes(range(256)))
    (tmp_path / "study.yaml").write_text("base: tiny.yaml\narms: [{name: a}, {name: b}]\n", encoding="utf-8")
    paths = [tiny_yaml if name == "tiny" else tmp_path / name for name in (first, second)]
    found, out, err = tool("config.py", "diff", *paths)
    assert (found, out) == (code, "")
    assert message in err
    assert "Traceback" not in err
