"""Checkpoints as safetensors and back, as torchvision's state dicts, and the command line."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_weights import mmdetection
from PIL import Image
from safetensors.torch import load_file, save_file

from retinanet.build.network import build_loss_and_model
from retinanet.config.schema import Config
from retinanet.errors import CheckpointError, ConfigError, ResourceError
from retinanet.files import replacing
from retinanet.interop.convert import NO_OPTIONS, convert
from retinanet.interop.formats import recipe_keys
from retinanet.interop.torchvision_out import constructor_call, preprocessing_differences, torchvision_shape
from retinanet.interop.weights_file import read_weights, write_state
from retinanet.run.checkpoint import Checkpoint, Progress, load_checkpoint, save_checkpoint
from retinanet.run.published import CHECKSUM, open_checkpoint, write_inference_checkpoint, write_safetensors
from retinanet.structures import Category

CATEGORIES = (Category(1, "cat"), Category(90, "großer Hund"))


def torchvision_like(**keys: Any) -> Config:
    """A config that torchvision's first version can represent, with sections of `model` changed."""
    recipe = recipe_keys("torchvision_v1")
    model = {**recipe["model"], "fpn": {"p6_source": "p5"}, "channels_last": False}
    for section, values in keys.items():
        model[section] = {**model.get(section, {}), **values}
    return Config.model_validate({**recipe, "model": model})


def checkpoint_of(config: Config) -> Checkpoint:
    _, model = build_loss_and_model(config, len(CATEGORIES))
    return Checkpoint(
        config=config,
        categories=CATEGORIES,
        progress=Progress(step=12, best_ap=0.5, best_step=9, stale_evaluations=1),
        model=dict(model.state_dict()),
        average={},
        optimizer={},
        scaler={},
    )


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a small network with everything that training stores."""
    config = Config.model_validate(
        {"model": {"backbone": {"name": "resnet18", "weights": "none"}, "fpn": {"channels": 8}, "head": {"depth": 1}}}
    )
    whole = checkpoint_of(config)
    average = {"n_averaged": torch.tensor(4), **{f"module.{name}": v + 1 for name, v in whole.model.items()}}
    path = tmp_path_factory.mktemp("ours") / "best.pt"
    save_checkpoint(path, whole._replace(average=average, optimizer={"state": {}}))
    return path


def test_to_safetensors_and_back_keeps_weights_config_and_classes(small: Path, tmp_path: Path) -> None:
    original = load_checkpoint(small)
    write_inference_checkpoint(tmp_path / "a.safetensors", open_checkpoint(small))
    write_inference_checkpoint(tmp_path / "b.pt", open_checkpoint(tmp_path / "a.safetensors"))
    back = load_checkpoint(tmp_path / "b.pt")
    assert back.model.keys() == original.weights().keys()
    assert all(torch.equal(value, original.weights()[name]) for name, value in back.model.items())
    assert (back.config, back.categories, back.progress.step) == (original.config, CATEGORIES, 12)
    assert (back.average, back.optimizer) == ({}, {})
    assert load_file(tmp_path / "a.safetensors").keys() == original.model.keys(), "any reader of safetensors can"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.safetensors", "b.pt"]


@pytest.mark.slow
def test_a_flipped_bit_in_weights_or_header_is_noticed(small: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_inference_checkpoint(path, open_checkpoint(small))
    whole = path.read_bytes()
    header = int.from_bytes(whole[:8], "little") + 8
    places = [*range(header, len(whole), (len(whole) - header) // 15), whole.index(b"Hund") + 1, whole.index(b"cat")]
    for at in places:
        broken = bytearray(whole)
        broken[at] ^= 1
        path.write_bytes(bytes(broken))
        with pytest.raises(CheckpointError, match=r"a\.safetensors: .*(checksum|damaged)"):
            open_checkpoint(path)
    for share in (0.0, 0.3, 0.99):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(CheckpointError, match=r"not a safetensors file, or cut short|empty"):
            open_checkpoint(path)


def test_an_incomplete_header_is_refused(small: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    tensors = {"w": torch.zeros(2)}
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match="not in this project"):
        open_checkpoint(path)
    write_safetensors(path, tensors, {"format": "retinanet-1", "config": "{}", "categories": "3"})
    with pytest.raises(CheckpointError, match="entry of its header is missing"):
        open_checkpoint(path)
    write_safetensors(path, tensors, {"format": "retinanet-1", "config": '{"modle": 1}', "categories": "[]"})
    with pytest.raises(ConfigError, match="modle"):
        open_checkpoint(path)
    assert CHECKSUM not in read_weights(path).meta


def test_only_known_suffixes_are_written(small: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"format is \.pt or \.safetensors"):
        write_inference_checkpoint(tmp_path / "a.onnx", open_checkpoint(small))


def test_keys_that_torchvision_cannot_represent_are_listed() -> None:
    assert torchvision_shape(torchvision_like(), "torchvision_v1").blocks == (3, 4, 6, 3)
    backbone = {"norm": "bn", "frozen_stages": 0, "weights": "x.pth", "fold": False}
    free = torchvision_like(backbone=backbone, head={"prior": 0.02})
    assert torchvision_shape(free, "torchvision_v1") == torchvision_shape(torchvision_like(), "torchvision_v1")
    with pytest.raises(ConfigError) as caught:
        torchvision_shape(Config(), "torchvision_v1")
    for line in ("model.fpn.p6_source is 'c5', wanted 'p5'", "model.anchors.offset is 0.5, wanted 0.0", "(4 errors)"):
        assert line in str(caught.value)
    cases = {
        "model.backbone.name is 'resnet101'": {"backbone": {"name": "resnet101"}},
        "model.backbone.norm is 'gn'": {"backbone": {"norm": "gn"}},
        "model.backbone.stride_in_1x1 is True": {"backbone": {"stride_in_1x1": True}},
        "model.head.depth is 3, wanted 4": {"head": {"depth": 3}},
        "model.head.channels is 64, wanted 256": {"head": {"channels": 64}},
        "model.fpn.p7_relu is False": {"fpn": {"p7_relu": False}},
        "model.pixels.order is 'bgr'": {"pixels": {"order": "bgr"}},
        "model.anchors.sizes": {"anchors": {"sizes": (16, 32, 64, 128, 256)}},
    }
    for line, keys in cases.items():
        with pytest.raises(ConfigError, match=r"\(1 error\)") as caught:
            torchvision_shape(torchvision_like(**keys), "torchvision_v1")
        assert line in str(caught.value)
    softmax = torchvision_like().model_copy(
        update={"loss": Config.model_validate({"loss": {"classification": {"kind": "softmax_focal"}}}).loss}
    )
    with pytest.raises(ConfigError, match="output for the background"):
        torchvision_shape(softmax, "torchvision_v1")


def test_the_constructor_call_has_the_configs_inference_settings() -> None:
    call = constructor_call(torchvision_like(), 3, "torchvision_v2")
    assert call.startswith(
        "retinanet_resnet50_fpn_v2(weights=None, weights_backbone=None, num_classes=3, min_size=800,"
    )
    assert "detections_per_img=300" in call
    assert preprocessing_differences(torchvision_like()) == []
    assert len(preprocessing_differences(Config.model_validate({"data": {"canvas": (64, 64)}}))) == 3
    agnostic = torchvision_like()
    agnostic = agnostic.model_copy(update={"eval": agnostic.eval.model_copy(update={"class_agnostic": True})})
    assert preprocessing_differences(agnostic) == [
        "eval.class_agnostic is True; torchvision's model works as with False"
    ]


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An mmdetection file of a small network with two classes."""
    path = tmp_path_factory.mktemp("foreign") / "mm.pth"
    torch.save({"state_dict": mmdetection(18, classes=2, channels=8).state, "meta": {}}, path)
    return path


@pytest.mark.slow
def test_the_command_line_converts_and_predict_uses_the_file(
    tool: Callable[..., Any], foreign: Path, tmp_path: Path
) -> None:
    names = tmp_path / "names.json"
    names.write_text('["cat", "dog"]')
    outcome = tool("convert_weights.py", "mmdetection", foreign, tmp_path / "a.pt", "--classes", names, "device=cpu")
    assert outcome.code == 0, outcome.err
    for words in ("resnet18", "9 anchors per cell, 2 outputs", "classes: 2, from", "recipe: mmdetection", "step 0"):
        assert words in outcome.out
    saved = load_checkpoint(tmp_path / "a.pt")
    assert [c.name for c in saved.categories] == ["cat", "dog"]
    assert saved.progress == Progress(step=0, best_ap=-1.0, best_step=0, stale_evaluations=0)
    noise = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "x.png")
    keys = ["data.shorter_side=[64]", "eval.score_threshold=0", "threads=1"]
    outcome = tool("predict.py", tmp_path / "a.pt", tmp_path / "x.png", *keys, "--output", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    assert "predicting 1/1 images\n" in outcome.out, "one image gives no speed"
    assert "1 picture and detections.json" in outcome.out
    found = (tmp_path / "out" / "detections.json").read_text()
    assert len(json.loads(found)) == 100
    assert tool("convert_weights.py", "ours", tmp_path / "a.pt", tmp_path / "a.safetensors").code == 0
    again = tmp_path / "again"
    outcome = tool("predict.py", tmp_path / "a.safetensors", tmp_path / "x.png", *keys, "--output", again)
    assert outcome.code == 0, outcome.err
    assert (again / "detections.json").read_text() == found


@pytest.mark.slow
def test_the_command_line_writes_safetensors_and_reads_them_as_any_format(
    tool: Callable[..., Any], foreign: Path, tmp_path: Path
) -> None:
    state = torch.load(foreign, weights_only=True)["state_dict"]
    save_file(state, tmp_path / "mm.safetensors")
    for source, target in ((foreign, "a.pt"), (tmp_path / "mm.safetensors", "b.safetensors")):
        assert tool("convert_weights.py", "mmdetection", source, tmp_path / target).code == 0
    assert tool("convert_weights.py", "ours", tmp_path / "b.safetensors", tmp_path / "c.pt").code == 0
    first, second = load_checkpoint(tmp_path / "a.pt"), load_checkpoint(tmp_path / "c.pt")
    assert first.config == second.config
    assert all(torch.equal(value, second.model[name]) for name, value in first.model.items())


@pytest.mark.slow
def test_the_command_line_writes_torchvisions_names(tool: Callable[..., Any], tmp_path: Path) -> None:
    write_inference_checkpoint(tmp_path / "a.pt", checkpoint_of(torchvision_like()))
    outcome = tool("convert_weights.py", "to_torchvision_v1", tmp_path / "a.pt", tmp_path / "b.pth")
    assert outcome.code == 0, outcome.err
    assert "retinanet_resnet50_fpn(weights=None, weights_backbone=None, num_classes=2" in outcome.out
    assert "from 0: cat, großer Hund" in outcome.out
    state = torch.load(tmp_path / "b.pth", weights_only=True)
    assert state["head.classification_head.cls_logits.bias"].shape == (18,)
    outcome = tool("convert_weights.py", "to_torchvision_v2", tmp_path / "a.pt", tmp_path / "c.pth")
    assert outcome.code == 2
    assert "model.head.norm is 'none', wanted 'gn'" in outcome.err


@pytest.mark.slow
def test_an_existing_file_is_replaced_only_with_overwrite(
    tool: Callable[..., Any], foreign: Path, tmp_path: Path
) -> None:
    target = tmp_path / "a.pt"
    target.write_text("dear")
    outcome = tool("convert_weights.py", "mmdetection", foreign, target)
    assert (outcome.code, target.read_text()) == (2, "dear")
    assert f"{target}: exists; give another OUT or add --overwrite" in outcome.err
    outcome = tool("convert_weights.py", "mmdetection", foreign, target, "--overwrite")
    assert outcome.code == 0, outcome.err
    assert len(load_checkpoint(target).categories) == 2


@pytest.mark.parametrize("ending", [".pt", ".pth", ".safetensors"])
def test_a_path_that_cannot_be_written_is_reported_as_the_user_gave_it(
    tmp_path: Path, small: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / f"y{ending}"

    def full(part: Path, _target: Path) -> None:
        raise OSError(28, "No space left on device", str(part))

    monkeypatch.setattr(Path, "replace", full)
    checkpoint = load_checkpoint(small)
    with pytest.raises(ResourceError) as caught:
        write_state(target, checkpoint.model) if ending == ".pth" else write_inference_checkpoint(target, checkpoint)
    assert re.fullmatch(
        rf"{re.escape(str(target))}: cannot be written \(No space left on device: the new file needs [\d.,]+ MB, "
        r"[\d.,]+ MB are free\); free some space, or write elsewhere with output=FOLDER\.",
        str(caught.value),
    )
    with pytest.raises(ResourceError) as caught, replacing(target, also=(RuntimeError,)) as part:
        raise RuntimeError(f"File {part.name} cannot be opened.")
    assert ".partial" not in str(caught.value)


def test_weights_that_are_not_finite_are_not_published(tmp_path: Path, small: Path) -> None:
    whole = load_checkpoint(small)
    name = next(iter(whole.model))
    bad = {**whole.model, name: torch.full_like(whole.model[name], float("inf"))}
    save_checkpoint(tmp_path / "bad.pt", whole._replace(model=bad, average={}))
    with pytest.raises(CheckpointError, match=rf"(?s)\(1 error\).*{re.escape(name)} has .* NaN or infinite"):
        convert("ours", tmp_path / "bad.pt", tmp_path / "out.safetensors", NO_OPTIONS)
    assert [file.name for file in tmp_path.iterdir()] == ["bad.pt"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("mmdetection", "missing.pth", "a.pt"), 4, "missing.pth: no such file"),
        (("mmdetection", "{foreign}", "{foreign}"), 2, "the output would replace the input"),
        (("mmdetection", "{foreign}", "{foreign}/x.pt"), 6, "is a file, not a folder; give another OUT"),
        (("mmdetection", "{foreign}", "{foreign}/.."), 6, "is a file, not a folder; give another OUT"),
        (("mmdetection", "{foreign}", "{folder}"), 2, "is a folder; give a file in it as OUT"),
        (("mmdetection", "{foreign}", "a.pt", "--coco-only"), 2, "for torchvision's 91 outputs; these weights have 2"),
        (("mmdetection", "{foreign}", "a.pt", "--coco-only", "--classes", "n.json"), 2, "give one of them"),
        (("mmdetection", "{foreign}", "a.onnx"), 2, "format is .pt or .safetensors"),
        (("mmdetection", "{foreign}", "a.pt", "stray"), 2, "expected key=value after the two files, not: stray"),
        (("mmdetection", "{foreign}", "a.pt", "model.head.dpth=3"), 2, "model.head.dpth"),
        (("torchvision_v1", "{foreign}", "a.pt"), 4, "Is the format right?"),
        (("ours", "{foreign}", "a.pt"), 4, "not a checkpoint of this project"),
        (("ours", "missing.safetensors", "a.pt"), 4, "no such file"),
        (("to_torchvision_v1", "{foreign}", "a.pth", "seed=3"), 2, "for RetinaNets of other projects"),
        (("caffe", "x", "y"), 2, "invalid choice"),
    ],
)
def test_errors_have_a_message_and_an_exit_code(
    tool: Callable[..., Any], foreign: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    here = [
        a.format(foreign=foreign, folder=tmp_path)
        if "{" in a
        else str(tmp_path / a)
        if a.startswith(("a.", "missing"))
        else a
        for a in arguments
    ]
    outcome = tool("convert_weights.py", *here)
    assert outcome.code == code
    assert words in outcome.err
    assert "Traceback" not in outcome.err
    assert list(tmp_path.iterdir()) == []
