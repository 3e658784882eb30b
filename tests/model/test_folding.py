"""Folded norms against the norms themselves: outputs, gradients, names, and copies made for inference."""

import copy

import pytest
import torch
from host_reads import Operators
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from retinanet.build.network import build_model
from retinanet.config.model_keys import ModelKeys
from retinanet.model.backbone import Backbone, NormKind, build_backbone
from retinanet.model.folding import FoldedConv, FrozenNorm, inference_copy
from retinanet.model.retinanet import RetinaNet

NAMES = ("resnet18", "resnet50", "resnext50_32x4d", "mobilenet_v2")


def randomise(network: nn.Module) -> None:
    """Norms that do something."""
    torch.manual_seed(5)
    for module in network.modules():
        if isinstance(module, FrozenBatchNorm2d | nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight, 0.7, 1.2),
                (module.bias, -0.3, 0.3),
                (module.running_mean, -0.2, 0.2),
                (module.running_var, 0.6, 1.4),
            ):
                assert tensor is not None
                nn.init.uniform_(tensor, low, high)


def build(name: str, *, fold: bool, stride_in_1x1: bool = False) -> Backbone:
    return build_backbone(
        name=name, weights=None, norm="frozen_bn", frozen_stages=0, stride_in_1x1=stride_in_1x1, fold=fold
    )


def pair(name: str) -> tuple[Backbone, Backbone]:
    """The same backbone plain and folded."""
    plain, folded = (build(name, fold=fold) for fold in (False, True))
    randomise(plain)
    folded.load_state_dict(plain.state_dict())
    return plain, folded


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_folded_and_plain_have_the_same_outputs_gradients_and_names(name: str) -> None:
    plain, folded = (network.double() for network in pair(name))
    images = torch.randn((2, 3, 64, 96), dtype=torch.float64)
    wanted, found = plain(images), folded(images)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
    weights = [torch.randn_like(level) for level in wanted]
    for levels in (wanted, found):
        sum(((level * weight).sum() for level, weight in zip(levels, weights)), torch.zeros(())).backward()
    assert plain.state_dict().keys() == folded.state_dict().keys()
    named = dict(folded.named_parameters())
    assert named.keys() == dict(plain.named_parameters()).keys()
    for path, parameter in plain.named_parameters():
        gradient = named[path].grad
        assert parameter.grad is not None
        assert gradient is not None
        scale = float(parameter.grad.abs().max())
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-8, atol=1e-10 * scale, msg=path)


@pytest.mark.parametrize("name", NAMES)
def test_every_frozen_norm_is_folded(name: str) -> None:
    _, folded = pair(name)
    norms = [module for module in folded.modules() if isinstance(module, FrozenNorm)]
    convolutions = [module for module in folded.modules() if isinstance(module, nn.Conv2d)]
    assert norms
    assert all(norm.folded for norm in norms)
    assert all(isinstance(convolution, FoldedConv) for convolution in convolutions)
    assert [id(c.norm[0]) for c in convolutions if isinstance(c, FoldedConv)] == [id(norm) for norm in norms]


def test_a_deep_copy_folds_its_own_norms() -> None:
    """As the moving average of the weights is one."""
    _, folded = pair("resnet18")
    copied = copy.deepcopy(folded)
    randomise(folded)
    images = torch.randn((1, 3, 64, 64))
    before = [level.clone() for level in copied(images)]
    for norm in folded.modules():
        if isinstance(norm, FrozenNorm):
            nn.init.constant_(norm.weight, 3.0)
    assert all(torch.equal(a, b) for a, b in zip(copied(images), before, strict=True))
    assert not torch.allclose(folded(images)[0], before[0])


def test_constants_of_the_norms_are_computed_once_and_anew_when_they_change() -> None:
    _, folded = pair("resnet18")
    images = torch.randn((1, 3, 64, 64))
    convolutions = sum(isinstance(module, FoldedConv) for module in folded.modules())
    launched = []
    for _ in range(2):
        with Operators() as operators:
            before = folded(images)[0].detach()
        launched.append(operators.names)
    assert (launched[0].count("rsqrt"), launched[1].count("rsqrt")) == (convolutions, 0)
    assert len(launched[0]) - len(launched[1]) >= 5 * convolutions
    changed = {name: value * 1.5 for name, value in folded.state_dict().items()}
    copied = copy.deepcopy(folded)
    for network in (folded, copied):
        network.load_state_dict(changed)
        assert not torch.allclose(network(images)[0], before)
    assert torch.equal(copied(images)[0], folded(images)[0])


def test_under_autocast_activations_stay_in_bfloat16() -> None:
    """The plain norm lifts every activation to float32, which is what folding saves."""
    plain, folded = pair("resnet18")
    images = torch.randn((1, 3, 64, 64))
    exact = [level.detach() for level in folded(images)]
    with torch.autocast("cpu", torch.bfloat16):
        assert {level.dtype for level in plain(images)} == {torch.float32}
        found = folded(images)
    assert {level.dtype for level in found} == {torch.bfloat16}
    for level, wanted in zip(found, exact, strict=True):
        assert float((level.detach().float() - wanted).abs().mean()) < 0.02 * float(wanted.abs().mean())


def network(norm: NormKind, head_norm: str = "none") -> RetinaNet:
    torch.manual_seed(1)
    backbone = {"name": "resnet18", "weights": "none", "norm": norm}
    config = ModelKeys.model_validate(
        {"backbone": backbone, "fpn": {"channels": 32}, "head": {"depth": 1, "norm": head_norm}}
    )
    model = build_model(config, 3, [-4.0] * 3)
    randomise(model)
    return model


@pytest.mark.parametrize("norm", ["frozen_bn", "eval_bn", "bn", "gn"])
@pytest.mark.parametrize("head_norm", ["none", "gn"])
def test_the_copy_for_inference_gives_the_same_and_leaves_the_original_alone(norm: NormKind, head_norm: str) -> None:
    model = network(norm, head_norm).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    copied = inference_copy(model, torch.float32)
    assert not any(isinstance(m, FrozenBatchNorm2d | nn.BatchNorm2d | FoldedConv) for m in copied.modules())
    assert not any(parameter.requires_grad for parameter in copied.parameters())
    assert model.training
    images = torch.randn((2, 3, 96, 64))
    with torch.no_grad():
        for a, b in zip(copied(images), model.eval()(images), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5 * float(b.abs().max()))
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_the_copy_in_bfloat16_gives_what_autocast_gives() -> None:
    model = network("gn", "gn").eval()
    copied = inference_copy(model, torch.bfloat16)
    images = torch.randn((1, 3, 96, 64))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found: tuple[Tensor, ...] = copied(images)
        assert all(torch.equal(a, b) for a, b in zip(found, model(images), strict=True))


def test_a_folded_copy_in_bfloat16_rounds_as_the_folded_network_does() -> None:
    model = network("frozen_bn").eval()
    copied = inference_copy(model, torch.bfloat16)
    assert isinstance(copied, RetinaNet)
    images = torch.randn((1, 3, 96, 64))
    with torch.no_grad():
        exact = model.backbone(images)
        with torch.autocast("cpu", torch.bfloat16):
            features = (copied.backbone(images), model.backbone(images), exact)
            for found, same, wanted in zip(*features, strict=True):
                scale = float(wanted.std())
                assert float((found.float() - same.float()).std()) < 0.02 * scale
                assert float((found.float() - wanted).std()) < 0.02 * scale


@pytest.mark.slow
def test_the_strides_of_caffes_bottlenecks_stay_where_they_were_moved() -> None:
    plain, folded = (build("resnet50", fold=fold, stride_in_1x1=True) for fold in (False, True))
    randomise(plain)
    folded.load_state_dict(plain.state_dict())
    images = torch.randn((1, 3, 65, 96), dtype=torch.float64)
    with torch.no_grad():
        for a, b in zip(folded.double()(images), plain.double()(images), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)
