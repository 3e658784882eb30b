"""What a device computes fast, from the features of its processor or a short measurement."""

import platform
import time
from functools import lru_cache

import torch
from torch.nn.functional import conv2d

SLOW_DEPTHWISE = 4.0
"""Factor by which a depthwise convolution may be slower in bfloat16 than in float32: from about there on it costs a
MobileNetV2 more than the other convolutions gain. Measured were 0.4 to 0.6 and 17, so that noise decides nothing."""
TRIALS = 5


def computes_bfloat16(device: torch.device) -> bool:
    """Whether `device` has native bfloat16 arithmetic, so that it is not slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    features = torch.cpu.get_capabilities()
    if device.type != "cpu" or not (features.get("avx512_bf16") or features.get("amx_bf16")):
        return False
    return _has_avx512()  # ATEN_CPU_CAPABILITY may hold torch to less than the processor has


def trains_faster_in_nchw(device: torch.device) -> bool:
    """Whether convolutions' backward passes on `device` are slower in NHWC memory order than in NCHW.

    So they are in oneDNN on x86 without AVX512: on two such cores a ResNet's training step took 1.05 to 1.35 times as
    long. Forward passes are faster in NHWC there too.
    """
    if device.type != "cpu" or platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    return not _has_avx512()


def _has_avx512() -> bool:
    # The widest vectors of torch's own kernels: AVX512, AVX2, or DEFAULT for none of them.
    return torch.backends.cpu.get_cpu_capability().startswith("AVX512")


@lru_cache
def depthwise_slowdown(device: torch.device) -> float:
    """Time of a depthwise convolution's forward and backward pass in bfloat16 over that in float32, on a CPU.

    Measured in half a second, once in a process: on some CPUs with bfloat16 instructions it is far above 1.
    """
    times: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    for _ in range(TRIALS + 1):
        for dtype, taken in times.items():
            pixels = torch.ones((2, 144, 32, 32), dtype=dtype, device=device).to(memory_format=torch.channels_last)
            weight = torch.ones((144, 1, 3, 3), dtype=dtype, device=device)
            begun = time.perf_counter()
            with torch.enable_grad():
                result = conv2d(pixels.requires_grad_(), weight.requires_grad_(), padding=1, groups=144)
                torch.autograd.grad(result, (pixels, weight), torch.ones_like(result))
            taken.append(time.perf_counter() - begun)
    # The first trial of each type also prepares its kernels.
    return min(times[torch.bfloat16][1:]) / min(times[torch.float32][1:])


def gains_by_bfloat16(backbone: str, device: torch.device) -> bool:
    """Whether a network of this backbone is computed faster in bfloat16 than in float32 on `device`."""
    if not computes_bfloat16(device):
        return False
    depthwise = backbone == "mobilenet_v2" and device.type == "cpu"
    return not depthwise or depthwise_slowdown(device) < SLOW_DEPTHWISE
