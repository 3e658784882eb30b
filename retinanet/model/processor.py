"""What a device computes fast, from the features of its processor."""

import platform

import torch


def computes_bfloat16(device: torch.device) -> bool:
    """Whether `device` has native bfloat16 arithmetic, so that it is not slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    features = torch.cpu.get_capabilities()
    return device.type == "cpu" and bool(features.get("avx512_bf16") or features.get("amx_bf16"))


def trains_faster_in_nchw(device: torch.device) -> bool:
    """Whether convolutions' backward passes on `device` are slower in NHWC memory order than in NCHW.

    So they are in oneDNN on x86 without AVX512: a ResNet's training step takes 1.1 to 1.3 times as long. Forward passes
    are faster in NHWC there too.
    """
    if device.type != "cpu" or platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    # The widest vectors of torch's own kernels: AVX512, AVX2, or DEFAULT for none of them.
    return not torch.backends.cpu.get_cpu_capability().startswith("AVX512")
