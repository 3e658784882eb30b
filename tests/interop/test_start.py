"""Starting from a trained detector: which config it brings, which classes are matched, what is loaded."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from retinanet.build.network import build_loss_and_model
from retinanet.config.dump import dump_config
from retinanet.config.load import load_config, with_overrides
from retinanet.config.schema import Config
from retinanet.errors import CheckpointError, ConfigError
from retinanet.interop.detector_file import read_detector
from retinanet.interop.start import continue_model, fit_detector, load_start, match_classes, resolve_model
from retinanet.run.checkpoint import Checkpoint, Progress, save_checkpoint
from retinanet.run.published import write_inference_checkpoint
from retinanet.structures import Category

CAT, DOG, BUS = Category(1, "cat"), Category(2, "dog"), Category(5, "bus")
SECTION = """
model:
  backbone: {name: resnet18, weights: none, norm: bn, frozen_stages: 0}
  fpn: {channels: 8}
  head: {depth: 1, channels: 16}
  anchors: {scales: [1.0], sizes: [8, 16, 32, 64, 128]}
"""
Make = Callable[..., Path]
pytestmark = pytest.mark.usefixtures("small_network")


def detector_config(tmp_path: Path, *overrides: str) -> Config:
    path = tmp_path / "detector.yaml"
    path.write_text(SECTION, encoding="utf-8")
    return load_config(path, list(overrides))


def network(config: Config, classes: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build_loss_and_model(config, classes)[1]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """make("key=value", ...) writes a checkpoint of three classes, `suffix` .pt or .safetensors."""

    def write(*overrides: str, suffix: str = ".pt", categories: tuple[Category, ...] = (CAT, DOG, BUS)) -> Path:
        config = detector_config(tmp_path, *overrides)
        model = network(config, len(categories), seed=1)
        path = tmp_path / f"best{suffix}"
        write_inference_checkpoint(path, Checkpoint(config, categories, Progress(step=7), model.state_dict()))
        return path

    return write


def plain(path: Path, *overrides: str) -> Config:
    return with_overrides(Config(), [f"model.weights={path}", *overrides])


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_a_detector_brings_its_own_section(make: Make, tmp_path: Path, suffix: str) -> None:
    path = make(suffix=suffix)
    config, detector = resolve_model(plain(path, "model.head.prior=0.02", "model.backbone.norm=frozen_bn"))
    expected = detector_config(tmp_path, "model.head.prior=0.02", "model.backbone.norm=frozen_bn").model
    assert config.model == expected.model_copy(update={"weights": str(path)})
    assert detector is not None
    assert detector.categories == (CAT, DOG, BUS)


def test_a_config_without_a_detector_stays_as_it_is() -> None:
    assert resolve_model(Config()) == (Config(), None)


def test_keys_that_contradict_are_refused_together_with_the_detectors_values(make: Make) -> None:
    path = make()
    words = (
        "model.fpn.channels=9",
        "model.backbone.norm=gn",
        "model.anchors.scales=[1, 2]",
        "model.anchors.offset=0.0",
    )
    with pytest.raises(ConfigError) as caught:
        resolve_model(plain(path, *words, "model.anchors.sizes=[9, 17, 33, 65, 129]", "model.head.channels=16"))
    message = str(caught.value)
    assert "(4 errors)" in message
    assert "model.fpn.channels: 8 in the detector, 9 in the config" in message
    assert "model.backbone.norm: bn in the detector, gn in the config" in message
    assert "model.anchors.scales: [1.0] in the detector, [1.0,2.0] in the config: another number of anchors" in message
    remedy = message.splitlines()[-1].split()
    resolve_model(plain(path, *words, *remedy))


def test_a_resolved_config_loads_again_from_its_text(make: Make, tmp_path: Path) -> None:
    config, _ = resolve_model(plain(make(), "model.backbone.frozen_stages=1"))
    text = tmp_path / "config.yaml"
    text.write_text(dump_config(config), encoding="utf-8")
    again, _ = resolve_model(load_config(text, []))
    assert again == config


def test_a_config_that_is_not_resolved_leaves_the_other_keys_out_of_its_text(tmp_path: Path) -> None:
    text = tmp_path / "config.yaml"
    text.write_text(dump_config(plain(Path("a.pt"), "model.backbone.norm=gn")), encoding="utf-8")
    given = {"weights": "a.pt", "backbone": {"norm": "gn"}}
    assert load_config(text, []).model.model_dump(exclude_unset=True) == given


def test_a_run_is_continued_without_its_detector(make: Make) -> None:
    path = make()
    given = plain(path, "model.backbone.frozen_stages=1")
    saved, _ = resolve_model(given)
    path.unlink()
    assert continue_model(given, saved) == saved
    assert continue_model(Config(), saved) == saved, "model.weights may be left out"
    here = Config.model_validate({"model": {"channels_last": "inference"}})
    assert continue_model(Config(), here) == here
    other = with_overrides(given, ["model.fpn.channels=9"])
    assert continue_model(other, saved).model.fpn.channels == 9, "so that the difference is found"


@pytest.mark.parametrize(
    ("known", "wanted", "outputs", "by_name"),
    [
        ((CAT, DOG, BUS), (BUS, CAT), [2, 0], []),
        ((CAT, None, BUS), (CAT, DOG), [0, None], []),
        ((CAT, DOG), (Category(9, "Dog "), Category(1, "horse")), [1, None], ["Dog "]),
        ((Category(1, "a"), Category(2, "a")), (Category(3, "a"),), [None], []),
        ((Category(1, "a"), Category(2, "a")), (Category(2, "a"),), [1], []),
        ((Category(1, "a"),), (Category(2, "a"), Category(3, "A")), [None, None], []),
    ],
)
def test_classes_match_by_name_and_id_or_by_a_name_that_is_unique(
    known: tuple[Category | None, ...], wanted: tuple[Category, ...], outputs: list[int | None], by_name: list[str]
) -> None:
    assert match_classes(known, wanted) == (outputs, by_name)


def per_class(state: dict[str, Tensor], outputs: int) -> tuple[Tensor, Tensor]:
    weight, bias = state["class_head.predict.weight"], state["class_head.predict.bias"]
    return weight.unflatten(0, (-1, outputs)), bias.unflatten(0, (-1, outputs))


@pytest.mark.parametrize("kind", ["focal", "softmax_focal"])
def test_what_is_loaded_and_what_starts_from_the_prior(make: Make, kind: str) -> None:
    path = make(f"loss.classification.kind={kind}")
    config, detector = resolve_model(plain(path, f"loss.classification.kind={kind}", "model.backbone.norm=frozen_bn"))
    assert detector is not None
    categories = (DOG, Category(2, "horse"), CAT)
    start = fit_detector(detector, config, categories)
    model = network(config, len(categories), seed=2)
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    load_start(model, start)
    state = model.state_dict()
    own = [name for name in state if name not in ("class_head.predict.weight", "class_head.predict.bias")]
    assert all(torch.equal(state[name], detector.weights[name]) for name in own)
    more = kind == "softmax_focal"
    loaded, before, source = (per_class(part, 3 + more) for part in (state, fresh, detector.weights))
    for new, old, theirs in zip(loaded, before, source, strict=True):
        assert torch.equal(new[:, 0], theirs[:, 1])
        assert torch.equal(new[:, 1], old[:, 1]), "drawn as in any other run"
        assert torch.equal(new[:, 2], theirs[:, 0])
        if more:
            assert torch.equal(new[:, 3], theirs[:, 3]), "the background"
    rows = {row.part: row for row in start.report}
    assert rows["class output"].tensors == "2 of 3 classes"
    assert rows["class output"].outcome == "loaded: dog, cat; new, from the prior: horse"


def test_outputs_of_the_other_kind_start_anew(make: Make) -> None:
    config, detector = resolve_model(plain(make(), "loss.classification.kind=softmax_focal"))
    assert detector is not None
    start = fit_detector(detector, config, (CAT, DOG))
    assert start.outputs == (None, None, None)
    assert any("sigmoids" in note for note in start.notes)
    load_start(network(config, 2, seed=3), start)


def test_other_anchors_of_the_same_number_are_in_the_table(make: Make) -> None:
    config, detector = resolve_model(plain(make(), "model.anchors.sizes=[9, 17, 33, 65, 129]"))
    assert detector is not None
    row = fit_detector(detector, config, (CAT,)).report[-1]
    assert (row.part, row.tensors) == ("anchors", "sizes")
    assert row.outcome.startswith("[9.0,17.0,33.0,65.0,129.0] instead of the detector's [8.0,")


def test_a_frozen_class_subnet_with_new_classes_is_refused(make: Make) -> None:
    config, detector = resolve_model(plain(make(), "model.frozen=[class_head]"))
    assert detector is not None
    fit_detector(detector, config, (CAT, BUS))
    with pytest.raises(ConfigError, match=r"1 of its 2 classes are not in .*\(horse\); leave class_head out"):
        fit_detector(detector, config, (CAT, Category(9, "horse")))


def save(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def test_files_that_are_no_detector_name_the_cause_and_the_remedy(make: Make, tmp_path: Path) -> None:
    checkpoint = make()
    state = torch.load(checkpoint)["model"]
    (tmp_path / "net.onnx").write_bytes(b"x")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    best = tmp_path / "run" / "checkpoints" / "best.pt"
    best.write_bytes(checkpoint.read_bytes())
    bad = torch.load(checkpoint)
    bad["model"]["fpn.p6.bias"][0] = float("nan")
    backbone = {"conv1.weight": torch.zeros(1), "layer1.0.conv1.weight": torch.zeros(1)}
    cases = {
        tmp_path / "net.onnx": "is an exported network, which cannot be trained",
        tmp_path / "run": f"is a folder; give a file, here {best}",
        tmp_path / "gone.pt": "model.weights: no file",
        tmp_path / "torchvision_v2_cocco": "no file",
        save(tmp_path / "own.pth", state): "without its config and classes",
        save(tmp_path / "r50.pth", backbone): "a backbone alone",
        save(tmp_path / "detr.pth", {"transformer.weight": torch.zeros(1)}): "not a RetinaNet of",
        save(tmp_path / "nan.pt", bad): "fpn.p6.bias has 1 of 8 values NaN",
    }
    for path, words in cases.items():
        with pytest.raises(CheckpointError) as caught:
            read_detector(plain(path).model)
        assert words in str(caught.value)
        assert str(path) in str(caught.value)
    with pytest.raises(CheckpointError, match="Did you mean torchvision_v2_coco"):
        read_detector(plain(Path("torchvision_v2")).model)


def test_the_moving_average_is_what_a_run_starts_from(tmp_path: Path, make: Make) -> None:
    config = detector_config(tmp_path)
    model, average = (network(config, 1, seed).state_dict() for seed in (1, 2))
    path = tmp_path / "last.pt"
    averaged = {f"module.{name}": value for name, value in average.items()}
    save_checkpoint(path, Checkpoint(config, (CAT,), Progress(step=3), model, average=averaged))
    detector = read_detector(plain(path).model)
    assert torch.equal(detector.weights["fpn.p6.weight"], average["fpn.p6.weight"])
    assert "moving average" in detector.description


def test_p2_starts_anew_on_a_detector_without_it(make: Make) -> None:
    path = make()
    words = ["model.fpn.finest=p2", "model.anchors.sizes=[4, 8, 16, 32, 64, 128]"]
    config, detector = resolve_model(plain(path, *words))
    assert detector is not None
    start = fit_detector(detector, config, (CAT, DOG, BUS))
    assert ("level P2", "", "new, from random weights") in start.report
    model = network(config, 3, seed=2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    load_start(model, start)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name] if name.startswith("fpn.p2.") else detector.weights[name]), name
    with pytest.raises(ConfigError, match="its level P2 is not in"):
        fit_detector(detector, *(resolve_model(plain(path, *words, "model.frozen=[fpn]"))[0], (CAT, DOG, BUS)))


def test_a_detector_with_p2_brings_it(make: Make) -> None:
    path = make("model.fpn.finest=p2", "model.anchors.sizes=[4, 8, 16, 32, 64, 128]")
    config, _ = resolve_model(plain(path))
    assert (config.model.fpn.finest, len(config.model.anchors.sizes)) == ("p2", 6)
    with pytest.raises(ConfigError, match=r"model\.anchors\.sizes: \[4.*in the detector"):
        resolve_model(plain(path, "model.anchors.sizes=[8, 16, 32, 64, 128]"))
    with pytest.raises(ConfigError, match=r"model\.fpn\.finest: p2 in the detector, p3 in the config"):
        resolve_model(plain(path, "model.fpn.finest=p3"))
