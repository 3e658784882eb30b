"""What a device computes fast."""

import platform

import pytest
import torch

from retinanet.model.processor import computes_bfloat16, depthwise_slowdown, trains_faster_in_nchw

CPU = torch.device("cpu")


def test_bfloat16_of_the_cpu_follows_its_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    for features, expected in (({}, False), ({"avx2": True}, False), ({"avx512_bf16": True}, True)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda features=features: features)
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
        assert computes_bfloat16(CPU) is expected
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")  # as ATEN_CPU_CAPABILITY asks
        assert not computes_bfloat16(CPU)
    assert computes_bfloat16(torch.device("mps")) is False


@pytest.mark.parametrize(
    ("machine", "vectors", "device", "expected"),
    [
        ("x86_64", "AVX512", "cpu", False),
        ("x86_64", "AVX2", "cpu", True),
        ("AMD64", "DEFAULT", "cpu", True),
        ("x86_64", "AVX2", "cuda", False),
        ("aarch64", "DEFAULT", "cpu", False),
    ],
)
def test_nchw_trains_faster_on_x86_without_avx512(
    machine: str, vectors: str, device: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: vectors)
    assert trains_faster_in_nchw(torch.device(device)) is expected


def test_depthwise_convolutions_are_measured_once_and_draw_nothing() -> None:
    state = torch.get_rng_state()
    first = depthwise_slowdown(CPU)
    assert 0.0 < first < 1e4
    assert depthwise_slowdown(CPU) == first
    assert torch.equal(torch.get_rng_state(), state)
