"""`loss.classification` with a function of the user: its arguments are keys, checked without running its file."""

import sys
from pathlib import Path

import pytest

from retinanet.config.class_losses import OwnLossKeys
from retinanet.config.dump import dump_config
from retinanet.config.load import config_from_dict, config_to_dict, load_config, with_overrides
from retinanet.config.schema import Config
from retinanet.config.user_code import source_sha256
from retinanet.errors import ConfigError

SOURCE = """
raise RuntimeError("a config must not run this")

def poly(logits, targets, *, epsilon: float = 1, mode: Literal["a", "b"] = "a", weights: tuple[float, ...] | None =
         None, times: "int" = 2, on: bool = False, pair: typing.Tuple[int, int] = (1, 2), many: Sequence[float] = ()):
    ...

def needs(logits, targets, epsilon: float): ...
def untyped(logits, targets, epsilon=1.0): ...
def odd(logits, targets, epsilon: torch.Tensor = None): ...
def wrong_default(logits, targets, epsilon: float = "x"): ...
def named(logits, targets, weight: float = 1.0): ...
def lonely(logits, *, epsilon: float = 1.0): ...
"""


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    (tmp_path / "my_losses.py").write_text(SOURCE, encoding="utf-8")
    path = tmp_path / "own.yaml"
    path.write_text('loss: {classification: {kind: "my_losses:poly", epsilon: 2}}', encoding="utf-8")
    return path


def keys_of(config: Config) -> OwnLossKeys:
    keys = config.loss.classification
    assert isinstance(keys, OwnLossKeys)
    return keys


def test_arguments_become_keys_with_their_defaults(config_file: Path) -> None:
    config = load_config(config_file, ["loss.classification.weights=[1, 2.5]"])
    assert keys_of(config).options() == {
        "epsilon": 2.0,
        "mode": "a",
        "weights": (1.0, 2.5),
        "times": 2,
        "on": False,
        "pair": (1, 2),
        "many": (),
    }
    assert isinstance(keys_of(config).options()["epsilon"], float)
    source = config_file.parent / "my_losses.py"
    assert keys_of(config).file == str(source)
    assert keys_of(config).source_sha256 == source_sha256(source)
    assert not [name for name in sys.modules if "my_losses" in name]


def test_a_written_config_is_the_same_from_anywhere(
    config_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    config = load_config(config_file, [])
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "config.yaml"
    elsewhere.write_text(dump_config(config, described=True), encoding="utf-8")
    assert load_config(elsewhere, []) == config
    assert keys_of(with_overrides(config, ["loss.classification.epsilon=3"])).options()["epsilon"] == 3.0
    assert with_overrides(config, ["eval.topk=5"]).loss == config.loss
    assert with_overrides(config, ["loss.classification.kind=focal"]).loss == Config().loss


def test_a_checkpoints_config_names_no_file(config_file: Path) -> None:
    """So that it cannot make a program run one, whatever it holds."""
    plain = config_to_dict(load_config(config_file, []))
    assert "file" not in plain["loss"]["classification"]
    plain["loss"]["classification"]["file"] = str(config_file.parent / "my_losses.py")
    config = config_from_dict(plain, "best.pt")
    assert keys_of(config).file is None
    assert keys_of(with_overrides(config, ["eval.topk=5"])).file is None
    assert keys_of(config).options()["pair"] == (1, 2)


def test_a_config_with_a_hash_is_read_whatever_became_of_the_file(config_file: Path) -> None:
    source, written = config_file.parent / "my_losses.py", config_file.parent / "written.yaml"
    config = load_config(config_file, [])
    written.write_text(dump_config(config), encoding="utf-8")
    source.write_text(SOURCE + "\n# changed", encoding="utf-8")
    assert keys_of(load_config(written, [])).source_sha256 == keys_of(config).source_sha256
    assert keys_of(load_config(config_file, [])).source_sha256 != keys_of(config).source_sha256
    source.unlink()
    assert keys_of(load_config(written, [])).options() == keys_of(config).options()
    with pytest.raises(ConfigError, match=r"own\.yaml:1: loss\.classification\.kind: my_losses:poly: there is no file"):
        load_config(config_file, [])


ERRORS = {
    "epsilom: unknown key; did you mean loss.classification.epsilon?": ["epsilom=1"],
    "epsilon: expected a number, got the text 'x'": ["epsilon=x"],
    "mode: expected one of a, b, got the text 'c'": ["mode=c"],
    "pair: expected a list of 2 values": ["pair=[1, 2, 3]"],
    "pair[1]: expected a whole number, got the text": ["pair=[1, x]"],
    "times: expected a whole number, got 1.5": ["times=1.5"],
    "weight: expected a number of at least 0": ["weight=-1"],
    "has no function pol; it has poly": ["kind=my_losses:pol"],
    "there is no file my_loss.py in": ["kind=my_loss:poly"],
    "not of the form module:function": ["kind=my_losses:"],
    "epsilon: is missing; give the argument epsilon of my_losses:needs": ["kind=my_losses:needs"],
    "its argument epsilon has no type: write epsilon: float": ["kind=my_losses:untyped"],
    "has the type torch.Tensor, which no config key has": ["kind=my_losses:odd"],
    "epsilon: expected a number, got the text 'x'\n": ["kind=my_losses:wrong_default"],
    "its argument weight is called as a key of every loss": ["kind=my_losses:named"],
    "it must take two arguments before the config's": ["kind=my_losses:lonely"],
    "did you mean focal?": ["kind=focl"],
}


@pytest.mark.parametrize("message", list(ERRORS))
def test_errors_are_those_of_other_keys(message: str, config_file: Path) -> None:
    if "kind" in ERRORS[message][0]:
        config_file.write_text("seed: 0", encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_config(config_file, [f"loss.classification.{word}" for word in ERRORS[message]])
    assert message.rstrip("\n") in str(caught.value)
    assert "(1 error)" in str(caught.value)


def test_errors_elsewhere_are_reported_too(config_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"\(2 errors\)(.|\n)*epsilom(.|\n)*schedule\.lr"):
        load_config(config_file, ["loss.classification.epsilom=1", "schedule.lr=x"])
