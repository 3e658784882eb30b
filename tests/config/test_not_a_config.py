"""Files and folders given in place of a config: the message names the command or the key that takes them."""

from pathlib import Path

import pytest

from retinanet.config.load import check_overrides, load_config
from retinanet.config.shipped import find_study
from retinanet.errors import ConfigError


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, ["d"])
    return str(caught.value)


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pkl", ".safetensors", ".ckpt", ".bin", ".pth.tar"])
def test_weights_name_the_key_that_starts_from_them(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"last{suffix}"
    path.write_bytes(b"PK" + b"\0" * (2 << 20))
    assert f"model.weights={path}" in refusal(path)
    assert "RUN/config.yaml output=RUN --resume" in refusal(path)


def test_a_run_and_its_checkpoint_name_the_command_that_continues_it(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.yaml").write_text("seed: 1\n", encoding="utf-8")
    checkpoint = tmp_path / "checkpoints" / "last.pt"
    checkpoint.write_bytes(b"PK")
    resume = f"retinanet train {tmp_path / 'config.yaml'} output={tmp_path} --resume"
    assert resume in refusal(tmp_path)
    assert resume in refusal(checkpoint)
    assert load_config(tmp_path / "config.yaml", []).seed == 1


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("a.json", b'{"images": []}', "retinanet train own data="),
        ("set.zip", b"PK\x03\x04", "retinanet train own data="),
        ("photo.JPG", b"\xff\xd8\xff", "retinanet predict CHECKPOINT "),
        ("clip.mp4", b"\0\0\0\x18ftyp", "a film"),
        ("best.onnx", b"\x08\x07", "exported network"),
        ("data.yaml", b"path: ../x\ntrain: images\nnames: [a]\n", "describes a data set"),
    ],
)
def test_other_files_name_the_command_that_takes_them(tmp_path: Path, name: str, content: bytes, part: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert part in refusal(path)
    assert "key.path" not in refusal(path), "the first cause alone"


def test_a_folder_of_data_names_the_command_that_takes_it(tmp_path: Path) -> None:
    (tmp_path / "i.jpg").write_bytes(b"\xff\xd8")
    assert f"retinanet train own data={tmp_path}" in refusal(tmp_path)
    (tmp_path / "data.yaml").write_text("train: images\nnames: [a]\n", encoding="utf-8")
    assert f"retinanet train own data={tmp_path}" in refusal(tmp_path)
    (tmp_path / "experiment.yaml").write_text("seed: 1\n", encoding="utf-8")
    assert "experiment.yaml" in refusal(tmp_path), "a folder of configs lists them"


def test_a_path_without_its_key_is_answered_with_the_key(tmp_path: Path) -> None:
    weights = tmp_path / "best.pt"
    weights.write_bytes(b"PK")
    for word, key in ((tmp_path, "data"), (weights, "model.weights")):
        with pytest.raises(ConfigError, match=f"write it as {key}={word}"):
            check_overrides([str(word)])


def test_a_study_is_answered_with_the_command_that_runs_it() -> None:
    study = find_study("rarity")
    assert refusal(study) == f"{study} is a study; to run it: retinanet ablate {study}"
