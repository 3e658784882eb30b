"""The reader of foreign weights: every kind of file, wrappers and prefixes, and content that is refused."""

import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from places import SHARED
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from retinanet.config.model_keys import ModelKeys
from retinanet.config.schema import Config
from retinanet.distributed import Ranks
from retinanet.errors import CheckpointError
from retinanet.interop import weights_file
from retinanet.interop.backbone_file import read_backbone_weights
from retinanet.interop.detector_file import read_detector
from retinanet.interop.weights_file import read_weights
from retinanet.run.checkpoint import load_checkpoint
from retinanet.training.state import build_state

MOBILENET_FILE = SHARED / "weights/mobilenet_v2_imagenet_features.pth"
STATE = {"conv1.weight": torch.arange(6.0).reshape(2, 3), "bn1.num_batches_tracked": torch.tensor(7)}


class Foreign:
    """What a training framework may leave in a file."""


class Hostile:
    """Asks for a function of the operating system when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


def saved(path: Path, content: object, **options: Any) -> Path:
    torch.save(content, path, **options)
    return path


def as_safetensors(path: Path, state: dict[str, Tensor]) -> None:
    save_file(state, path)


def as_numpy(path: Path, state: dict[str, Tensor]) -> None:
    path.write_bytes(pickle.dumps({name: value.numpy() for name, value in state.items()}, protocol=2))


FORMATS: dict[str, Callable[[Path, dict[str, Tensor]], object]] = {
    ".pth": saved,
    ".pt": saved,
    ".pkl": as_numpy,
    ".safetensors": as_safetensors,
}


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_kind_of_file_gives_the_same_tensors(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    FORMATS[suffix](path, {**STATE, "half": torch.tensor([0.5], dtype=torch.float16)})
    tensors = read_weights(path).tensors
    assert all(torch.equal(tensors[name], value) for name, value in STATE.items())
    assert tensors["half"].dtype == torch.float32
    assert tensors["half"].tolist() == [0.5]


@pytest.mark.parametrize("wrappers", [("state_dict",), ("model",), ("blobs",), ("state_dict", "model")])
def test_wrappers_of_training_programs_are_opened(tmp_path: Path, wrappers: tuple[str, ...]) -> None:
    content: dict[str, Any] = STATE
    for wrapper in reversed(wrappers):
        content = {wrapper: content, "epoch": 3}
    assert read_weights(saved(tmp_path / "a.pth", content)).tensors.keys() == STATE.keys()


def test_a_prefix_is_left_out_only_if_every_name_has_it(tmp_path: Path) -> None:
    prefixed = {f"module.{name}": value for name, value in STATE.items()}
    every, some = (
        read_weights(saved(tmp_path / "a.pth", content)) for content in (prefixed, {**prefixed, "scale": torch.ones(1)})
    )
    assert (every.stripped, every.tensors.keys()) == ("module.", STATE.keys())
    assert (some.stripped, some.tensors.keys()) == ("", {*prefixed, "scale"})


def test_a_flipped_bit_in_a_tensor_is_found(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", STATE)
    content = bytearray(path.read_bytes())
    content[content.index(STATE["conv1.weight"].numpy().tobytes())] ^= 1
    path.write_bytes(content)
    assert not torch.equal(torch.load(path)["conv1.weight"], STATE["conv1.weight"]), "torch does not notice"
    with pytest.raises(CheckpointError, match=r"a\.pth: damaged: its record .* does not match its checksum"):
        read_weights(path)


@pytest.mark.parametrize("content", [{"state_dict": {"w": torch.zeros(1)}, "hook": Foreign()}, nn.Linear(2, 2)])
def test_a_file_with_foreign_objects_is_refused_with_advice_on_saving_it(tmp_path: Path, content: object) -> None:
    with pytest.raises(CheckpointError, match=r"a\.pth: asks for .*(Foreign|Linear).*save its state dict alone"):
        read_weights(saved(tmp_path / "a.pth", content))


@pytest.mark.parametrize("zipped", [True, False])
def test_torchs_own_advice_is_not_shown(tmp_path: Path, zipped: bool) -> None:
    """It is to switch off the check."""
    content = {"w": torch.zeros(1), "x": Hostile()}
    path = saved(tmp_path / "a.pth", content, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"a\.pth: asks for (posix|nt)\.system, .*not loaded") as caught:
        read_weights(path)
    assert "weights_only" not in str(caught.value)
    if zipped:
        with pytest.raises(
            CheckpointError, match=r"refers to (posix|nt)\.system; it was not loaded, and none of its code was run"
        ) as caught:
            load_checkpoint(path)
        assert "weights_only" not in str(caught.value)


def test_files_that_are_not_weights_are_told_apart(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", {"w": torch.zeros(100)})
    whole = path.read_bytes()
    cases = {
        b"# A readme\n": "not a file of weights",
        b"": r"empty \(0 bytes\)",
        b"PK\x03\x04 half a zip": "cut short or damaged",
        whole[: len(whole) // 2]: "cut short or damaged",
        b"\x80\x02]q\x00": r"not written by torch\.save",
    }
    for content, words in cases.items():
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"a\.pth: .*{words}") as caught:
            read_weights(path)
        assert "weights_only" not in str(caught.value)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/readme.txt", "no weights")
    with pytest.raises(CheckpointError, match=r"a zip archive, of a/readme"):
        read_weights(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"state_dict": {"w": 3, "v": torch.zeros(1)}}, "w is of type int, not a tensor"),
        ({"epoch": 3}, "holds no state dict"),
        ({}, "holds no state dict"),
        ([torch.zeros(1)], "holds no state dict"),
        (torch.zeros(3), "holds no state dict"),
    ],
)
def test_files_without_a_state_dict_are_refused(tmp_path: Path, content: object, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        read_weights(saved(tmp_path / "a.pth", content))


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "none.pth", "no such file"), (tmp_path, "is a folder")):
        with pytest.raises(CheckpointError, match=words):
            read_weights(path)


def config(weights: object) -> Config:
    backbone = {"name": "resnet18", "weights": str(weights)}
    return Config.model_validate({"model": {"backbone": backbone, "fpn": {"channels": 8}, "head": {"depth": 1}}})


@pytest.fixture(scope="module")
def resnet18_state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return models.resnet18().state_dict()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_training_starts_from_any_kind_of_file(
    tmp_path: Path, resnet18_state: dict[str, Tensor], suffix: str
) -> None:
    path = tmp_path / f"backbone{suffix}"
    FORMATS[suffix](path, resnet18_state)
    cpu, alone = torch.device("cpu"), Ranks(0, 0, 1)
    backbone = build_state(config(path), 2, cpu, alone).model.backbone
    assert torch.equal(backbone.stages[0][0].weight, resnet18_state["conv1.weight"])
    assert torch.equal(backbone.stages[4][1].bn2.weight, resnet18_state["layer4.1.bn2.weight"])
    other = build_state(config(path), 2, cpu, alone, load_weights=False).model.backbone
    assert not torch.equal(other.stages[0][0].weight, resnet18_state["conv1.weight"])


def test_a_training_from_scratch_reads_nothing() -> None:
    assert read_backbone_weights("resnet18", "none") is None


def test_a_missing_backbone_file_names_the_key(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.backbone\.weights: no file .*gone\.pth; give .*`imagenet`"):
        read_backbone_weights("resnet18", str(tmp_path / "gone.pth"))


def test_weights_that_do_not_fit_name_their_file(tmp_path: Path, resnet18_state: dict[str, Tensor]) -> None:
    path = saved(tmp_path / "broken.pth", {**resnet18_state, "neck.weight": torch.zeros(2)})
    with pytest.raises(CheckpointError, match=r"broken\.pth: the weights do not fit .*unexpected neck\.weight"):
        build_state(config(path), 2, torch.device("cpu"), Ranks(0, 0, 1))


def test_the_real_mobilenet_file_is_read() -> None:
    if not MOBILENET_FILE.is_file():
        pytest.skip(f"no real weights at {MOBILENET_FILE}")
    weights = read_backbone_weights("mobilenet_v2", str(MOBILENET_FILE))
    assert weights is not None
    own = torch.load(MOBILENET_FILE, weights_only=True)
    assert all(torch.equal(weights.tensors[name], value) for name, value in own.items())


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache of torch's downloads, and no network."""

    def unreachable(*_: object, **__: object) -> None:
        raise URLError("no network in this test")

    before = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path)
    monkeypatch.setattr(torch.hub, "urlopen", unreachable)
    yield tmp_path / "checkpoints"
    torch.hub.set_dir(before)


URL = models.ResNet18_Weights.IMAGENET1K_V1.url
NAME = URL.rsplit("/", 1)[1]


def test_imagenet_weights_without_a_network_name_the_file_to_provide(hub: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        read_backbone_weights("resnet18", "imagenet")
    for part in ("model.backbone.weights", URL, str(hub / NAME), "no network in this test", "`none`"):
        assert part in str(caught.value)


def test_a_published_detector_without_a_network_names_the_file_to_provide(hub: Path) -> None:
    published = models.detection.RetinaNet_ResNet50_FPN_V2_Weights.COCO_V1.url
    with pytest.raises(CheckpointError) as caught:
        read_detector(ModelKeys(weights="torchvision_v2_coco"))
    for part in ("model.weights", published, str(hub / published.rsplit("/", 1)[1]), "no network in this test"):
        assert part in str(caught.value)


def test_imagenet_weights_in_torchs_cache_are_used(
    hub: Path, resnet18_state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.mkdir()
    saved(hub / NAME, resnet18_state)
    with pytest.raises(CheckpointError, match=r"resnet18-f37072fd\.pth: damaged: its SHA-256"):
        read_backbone_weights("resnet18", "imagenet")
    monkeypatch.setattr(weights_file, "check_named_hash", lambda path: None)
    backbone = build_state(config("imagenet"), 2, torch.device("cpu"), Ranks(0, 0, 1)).model.backbone
    assert torch.equal(backbone.stages[0][0].weight, resnet18_state["conv1.weight"])


def test_a_damaged_imagenet_file_is_an_error_that_names_it(hub: Path) -> None:
    hub.mkdir()
    file = hub / NAME
    file.write_text("<html>proxy error</html>", encoding="utf-8")
    with pytest.raises(CheckpointError) as caught:
        read_backbone_weights("resnet18", "imagenet")
    assert str(file) in str(caught.value)
