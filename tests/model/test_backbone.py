"""Backbones: strides, frozen stages, normalisation layers, and weights that fit or do not."""

from typing import Literal, get_args

import pytest
import torch
import torch.nn.functional as F
from places import SHARED
from torch import Tensor, nn
from torchvision import models
from torchvision.ops import FrozenBatchNorm2d

from retinanet.config.model_keys import BackboneKeys as BackboneConfig
from retinanet.errors import CheckpointError
from retinanet.model.backbone import ARCHITECTURES, Backbone, InitialWeights, NormKind, build_backbone, group_norm
from retinanet.model.folding import FrozenNorm

NAMES = get_args(BackboneConfig.model_fields["name"].annotation)
MOBILENET_FILE = SHARED / "weights/mobilenet_v2_imagenet_features.pth"
Norm = Literal["frozen_bn", "bn", "gn"]


@pytest.fixture
def resnet18_state() -> dict[str, Tensor]:
    """A whole torchvision ResNet-18 of random weights and statistics."""
    torch.manual_seed(0)
    network = models.resnet18()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return network.state_dict()


def build(
    name: str,
    weights: dict[str, Tensor] | None = None,
    *,
    norm: NormKind = "frozen_bn",
    frozen_stages: int = 0,
    stride_in_1x1: bool = False,
    fold: bool = True,
    zero_init_residual: bool = True,
) -> Backbone:
    return build_backbone(
        name=name,
        weights=None if weights is None else InitialWeights(weights, "weights.pth"),
        norm=norm,
        frozen_stages=frozen_stages,
        stride_in_1x1=stride_in_1x1,
        fold=fold,
        zero_init_residual=zero_init_residual,
    )


def torchvision_features(state: dict[str, Tensor], images: Tensor) -> list[Tensor]:
    network = models.resnet18().eval()
    network.load_state_dict(state)
    x = network.maxpool(network.relu(network.bn1(network.conv1(images))))
    c2 = network.layer1(x)
    c3 = network.layer2(c2)
    c4 = network.layer3(c3)
    return [c3, c4, network.layer4(c4)]


def test_the_schema_names_every_architecture() -> None:
    assert tuple(ARCHITECTURES) == NAMES


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_backbone_of_the_schema_builds_with_strides_8_16_32(name: str) -> None:
    with torch.device("meta"):
        backbone = build(name)
        features = backbone(torch.zeros(1, 3, 96, 65))
    expected = [(1, width, -(-96 // s), -(-65 // s)) for width, s in zip(backbone.channels, (8, 16, 32), strict=True)]
    assert [tuple(f.shape) for f in features] == expected
    assert len(backbone.stages) == 5


@pytest.mark.parametrize(("norm", "kind"), [("frozen_bn", FrozenNorm), ("bn", nn.BatchNorm2d), ("gn", nn.GroupNorm)])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2"])
def test_the_norm_is_the_one_asked_for_everywhere(name: str, norm: Norm, kind: type[nn.Module]) -> None:
    backbone = build(name, norm=norm)
    kinds = (FrozenBatchNorm2d, nn.BatchNorm2d, nn.GroupNorm)
    found = {type(module) for module in backbone.modules() if isinstance(module, kinds)}
    assert found == {kind}


@pytest.mark.parametrize(("channels", "groups"), [(256, 32), (64, 32), (24, 8), (96, 32), (16, 8), (1, 1)])
def test_group_norm_has_a_group_count_that_divides(channels: int, groups: int) -> None:
    norm = group_norm(channels)
    assert isinstance(norm, nn.GroupNorm)
    assert norm.num_groups == groups
    if channels > 1:
        assert torch.isfinite(norm.train()(torch.zeros(1, channels, 1, 1))).all()


@pytest.mark.parametrize(("norm", "frozen"), [("bn", 0), ("bn", 2), ("gn", 2), ("frozen_bn", 1), ("bn", 5)])
def test_frozen_stages_do_not_change_in_a_training_step_and_the_others_do(norm: Norm, frozen: int) -> None:
    torch.manual_seed(0)
    backbone = build("resnet18", norm=norm, frozen_stages=frozen).train()
    for name, parameter in backbone.named_parameters():
        if name.endswith("bn2.weight"):
            nn.init.ones_(parameter)  # a branch that starts at zero has no gradient in its first step
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    trained = [p for p in backbone.parameters() if p.requires_grad]
    features = backbone(torch.randn(2, 3, 64, 32))
    if trained:
        torch.stack([f.square().mean() for f in features]).sum().backward()
        torch.optim.SGD(trained, lr=0.1, weight_decay=0.1).step()
    changed = {name for name, value in backbone.state_dict().items() if not torch.equal(value, before[name])}
    assert all(int(name.split(".")[1]) >= frozen for name in changed)
    for name, value in before.items():
        if int(name.split(".")[1]) >= frozen and (norm != "frozen_bn" or value.ndim == 4):
            assert name in changed


def test_train_mode_reaches_only_the_stages_that_train() -> None:
    backbone = build("mobilenet_v2", norm="bn", frozen_stages=3)
    assert backbone.train() is backbone
    assert [stage.training for stage in backbone.stages] == [False, False, False, True, True]
    assert not any(module.training for module in backbone.eval().modules())


def test_frozen_bn_statistics_stay_while_the_stage_trains() -> None:
    backbone = build("resnet18").train()
    before = {name: value.clone() for name, value in backbone.named_buffers()}
    backbone(torch.randn(2, 3, 32, 32))[-1].sum().backward()
    assert before
    assert all(torch.equal(value, before[name]) for name, value in backbone.named_buffers())


@pytest.mark.parametrize("norm", ["frozen_bn", "bn"])
def test_a_torchvision_state_dict_gives_torchvisions_features(resnet18_state: dict[str, Tensor], norm: Norm) -> None:
    backbone = build("resnet18", resnet18_state, norm=norm, frozen_stages=2).eval()
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for ours, oracle in zip(backbone(images), torchvision_features(resnet18_state, images), strict=True):
            torch.testing.assert_close(ours, oracle, rtol=1e-4, atol=1e-4)


def test_a_classifier_of_another_size_does_not_matter(resnet18_state: dict[str, Tensor]) -> None:
    fine_tuned = {**resnet18_state, "fc.weight": torch.zeros(7, 512), "fc.bias": torch.zeros(7)}
    backbone = build("resnet18", fine_tuned, norm="bn")
    assert torch.equal(backbone.state_dict()["stages.0.0.weight"], resnet18_state["conv1.weight"])


def test_without_a_classifier_the_file_is_as_good(resnet18_state: dict[str, Tensor]) -> None:
    body = {name: value for name, value in resnet18_state.items() if not name.startswith("fc.")}
    backbone = build("resnet18", body)
    assert torch.equal(backbone.state_dict()["stages.4.1.conv2.weight"], body["layer4.1.conv2.weight"])


def test_group_norm_takes_a_batch_norm_files_convolutions(resnet18_state: dict[str, Tensor]) -> None:
    backbone = build("resnet18", resnet18_state, norm="gn")
    assert torch.equal(backbone.state_dict()["stages.2.0.conv1.weight"], resnet18_state["layer2.0.conv1.weight"])


def test_missing_misshapen_and_unexpected_tensors_are_listed_together(resnet18_state: dict[str, Tensor]) -> None:
    state = dict(resnet18_state)
    del state["layer1.0.conv1.weight"], state["bn1.running_mean"]
    state["conv1.weight"] = torch.zeros(64, 3, 3, 3)
    state["neck.weight"] = torch.zeros(2)
    with pytest.raises(CheckpointError) as caught:
        build("resnet18", state)
    message = str(caught.value)
    for part in (
        "weights.pth: the weights do not fit",
        "missing layer1.0.conv1.weight (64, 64, 3, 3)",
        "missing bn1.running_mean (64,)",
        "conv1.weight is (64, 3, 3, 3), wanted (64, 3, 7, 7)",
        "unexpected neck.weight",
    ):
        assert part in message


def test_weights_of_another_network_do_not_flood_the_message(resnet18_state: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match=r"do not fit model\.backbone\.name.*and \d+ more"):
        build("mobilenet_v2", resnet18_state)


def mobilenet_features(features: nn.Sequential, images: Tensor) -> list[Tensor]:
    found = []
    for index, block in enumerate(features):
        images = block(images)
        if index in (6, 13, 17):
            found.append(images)
    return found


@pytest.mark.parametrize("prefix", ["", "features."])
def test_mobilenet_files_of_the_features_and_of_the_whole_network(prefix: str) -> None:
    torch.manual_seed(0)
    network = models.mobilenet_v2().eval()
    state = network.state_dict() if prefix else network.features.state_dict()
    backbone = build("mobilenet_v2", state, frozen_stages=2).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for ours, oracle in zip(backbone(images), mobilenet_features(network.features, images), strict=True):
            torch.testing.assert_close(ours, oracle, rtol=1e-4, atol=1e-5)


def test_the_real_mobilenet_file_gives_torchvisions_features() -> None:
    if not MOBILENET_FILE.is_file():
        pytest.skip(f"no real weights at {MOBILENET_FILE}")
    network = models.mobilenet_v2().features.eval()
    state = torch.load(MOBILENET_FILE, weights_only=True)
    network.load_state_dict({name.removeprefix("features."): value for name, value in state.items()})
    backbone = build("mobilenet_v2", state, frozen_stages=2).eval()
    images = torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for ours, oracle in zip(backbone(images), mobilenet_features(network, images), strict=True):
            assert ours.std().item() > 0.1
            torch.testing.assert_close(ours, oracle, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", ["bn", "gn"])
def test_residual_branches_start_at_zero_from_scratch(norm: Norm) -> None:
    block = build("resnet18", norm=norm).stages[2][1]
    assert block.bn2.weight.abs().max() == 0
    assert block.bn1.weight.min() == 1


def test_residual_branches_of_weights_or_frozen_norms_or_on_request_do_not(resnet18_state: dict[str, Tensor]) -> None:
    state = {name: torch.ones_like(v) if name.endswith("bn2.weight") else v for name, v in resnet18_state.items()}
    loaded = build("resnet18", state, norm="bn")
    frozen = build("resnet18")
    asked = build("resnet18", norm="bn", zero_init_residual=False)
    for backbone in (loaded, frozen, asked):
        assert backbone.stages[2][1].bn2.weight.min() == 1


def test_strides_in_the_1x1_are_caffes() -> None:
    """C3's first block by hand: the 1x1 convolution takes every second pixel, the 3x3 one keeps what it gets."""
    torch.manual_seed(0)
    moved = build("resnet50", stride_in_1x1=True, fold=False).eval()
    torch.manual_seed(0)
    plain = build("resnet50", fold=False).eval()
    assert moved.state_dict().keys() == plain.state_dict().keys()
    block, c2 = moved.stages[2][0], torch.randn(1, 256, 9, 12)
    with torch.no_grad():
        thin = block.bn1(F.conv2d(c2[:, :, ::2, ::2], block.conv1.weight)).relu()
        wide = block.bn2(F.conv2d(thin, block.conv2.weight, padding=1)).relu()
        shortcut = block.downsample[1](F.conv2d(c2[:, :, ::2, ::2], block.downsample[0].weight))
        expected = (block.bn3(F.conv2d(wide, block.conv3.weight)) + shortcut).relu()
        torch.testing.assert_close(block(c2), expected)
        assert plain.stages[2][0](c2).shape == expected.shape
        assert not torch.allclose(plain.stages[2][0](c2), expected, atol=1e-3)
        images = torch.randn(1, 3, 65, 96)
        assert [f.shape for f in moved(images)] == [f.shape for f in plain(images)]


@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d", "mobilenet_v2"])
def test_only_resnets_with_bottlenecks_can_stride_in_the_1x1(name: str) -> None:
    with pytest.raises(ValueError, match="stride_in_1x1 is for resnet50, resnet101 and resnet152"):
        BackboneConfig.model_validate({"name": name, "stride_in_1x1": True})


def test_eval_bn_trains_scale_and_shift_and_keeps_its_statistics(resnet18_state: dict[str, Tensor]) -> None:
    norms: tuple[NormKind, ...] = ("eval_bn", "frozen_bn")
    fixed, frozen = (build("resnet18", resnet18_state, norm=norm, frozen_stages=2).train() for norm in norms)
    before = {name: value.clone() for name, value in fixed.named_buffers()}
    images = torch.randn(2, 3, 64, 64)
    features = fixed(images)
    for ours, same in zip(features, frozen(images), strict=True):
        torch.testing.assert_close(ours, same, rtol=1e-4, atol=1e-4)
    sum(f.sum() for f in features).backward()
    assert all(torch.equal(value, before[name]) for name, value in fixed.named_buffers())
    block = fixed.stages[3][0]
    assert block.bn1.weight.grad.abs().sum() > 0
    assert block.bn1.bias.grad.abs().sum() > 0
    assert fixed.stages[1][0].bn1.weight.grad is None, "a frozen stage"


def test_sync_bn_of_one_process_is_bn() -> None:
    images = torch.randn(2, 3, 64, 64)
    torch.manual_seed(0)
    plain = build("resnet18", norm="bn").train()
    torch.manual_seed(0)
    synchronised = build("resnet18", norm="sync_bn").train()
    assert plain.state_dict().keys() == synchronised.state_dict().keys()
    assert any(isinstance(module, nn.SyncBatchNorm) for module in synchronised.modules())
    for ours, same in zip(synchronised(images), plain(images), strict=True):
        torch.testing.assert_close(ours, same)
