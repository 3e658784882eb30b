"""Fused epilogues: which layers they take, and the plain path, to which they fall back, equal to the bit.

The kernels themselves need a GPU: tests/gpu.
"""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from retinanet.build.network import build_loss_and_model
from retinanet.config.load import config_from_dict
from retinanet.model import epilogue
from retinanet.model.epilogue import ConvRelu, can_fuse, fuse_relus
from retinanet.model.folding import inference_copy

CASES = {
    ("resnet18", "frozen_bn"): 1 + 16,
    ("resnet50", "bn"): 1 + 3 * 16,
    ("mobilenet_v2", "bn"): 5,  # the tests' small network of that name
    ("resnet18", "gn"): 0,
}
"""Backbone and norm -> convolutions of the backbone that a ReLU follows."""
TOWERS = 2 * 2


def network_of(name: str, norm: str) -> nn.Module:
    """A network for inference with norms that are not the identity."""
    backbone = {"name": name, "norm": norm, "frozen_stages": 0}
    model = {"backbone": backbone, "fpn": {"channels": 8}, "head": {"depth": 2}}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        _, network = build_loss_and_model(config_from_dict({"model": model}, "test"), 3)
        for buffer_name, buffer in network.named_buffers():
            if buffer_name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    return inference_copy(network, torch.float32)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[torch.Size, bool]]:
    """Output shapes of the fused kernels, computed here by plain operators, and whether there is a sum in them."""
    noted: list[tuple[torch.Size, bool]] = []

    def plain(x: Tensor, weight: Tensor, bias: Tensor | None, *shape: Any) -> Tensor:
        out = F.relu(F.conv2d(x, weight, bias, *shape))
        noted.append((out.shape, False))
        return out

    def plain_sum(x: Tensor, weight: Tensor, z: Tensor, alpha: float, bias: Tensor | None, *shape: Any) -> Tensor:
        out = F.relu(F.conv2d(x, weight, bias, *shape) + alpha * z)
        noted.append((out.shape, True))
        return out

    monkeypatch.setattr(torch.ops.aten, "cudnn_convolution_relu", plain)
    monkeypatch.setattr(torch.ops.aten, "cudnn_convolution_add_relu", plain_sum)
    return noted


@pytest.mark.slow
@pytest.mark.parametrize(("name", "norm"), CASES)
def test_every_relu_after_a_convolution_is_fused_and_nothing_else_changes(
    name: str, norm: str, calls: list[tuple[torch.Size, bool]]
) -> None:
    network, images = network_of(name, norm), torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        plain = network(images)
        fuse_relus(network)
        fused = network(images)
    for own, wanted in zip(fused, plain, strict=True):
        assert torch.equal(own, wanted)
    levels = 5
    assert len(calls) == CASES[name, norm] + TOWERS * levels
    blocks = 0 if norm == "gn" else {"resnet18": 8, "resnet50": 16}.get(name, 0)
    assert sum(with_sum for _, with_sum in calls) == blocks


def test_without_a_kernel_a_layer_computes_the_same_plainly() -> None:
    """As on a CPU, where the operators have no kernel."""
    layer, x, added = ConvRelu(nn.Conv2d(3, 4, 3, padding=1)), torch.randn(2, 3, 8, 8), torch.randn(2, 4, 8, 8)
    assert layer.fused
    with torch.no_grad():
        assert torch.equal(layer(x), layer.convolution(x).relu())
        assert not layer.fused, "asked once"
        assert torch.equal(layer(x, added), (layer.convolution(x) + added).relu())


def test_the_compiler_sees_the_plain_operators(
    calls: list[tuple[torch.Size, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with torch.no_grad():
        ConvRelu(nn.Conv2d(3, 4, 3))(torch.randn(1, 3, 8, 8))
    assert not calls


def test_no_memory_is_not_taken_for_a_missing_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> Tensor:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(ConvRelu, "fused_forward", full)
    with pytest.raises(torch.OutOfMemoryError):
        ConvRelu(nn.Conv2d(3, 4, 3))(torch.randn(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("device", "precision", "deterministic", "expected"),
    [
        ("cuda", torch.bfloat16, False, True),
        ("cuda", torch.float16, False, True),
        ("cuda", torch.bfloat16, True, False),
        ("cuda", torch.float32, False, False),
        ("cpu", torch.bfloat16, False, False),
    ],
)
def test_where_they_are_used(
    device: str, precision: torch.dtype, deterministic: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(epilogue.torch.backends.cudnn, "is_available", lambda: True)
    assert can_fuse(torch.device(device), precision, deterministic=deterministic) == expected
