"""What the machine is: releases, compilers, GPU, its JPEG decoder and peaks.

python -m benchmarks.gpu.facts cpu|cuda
"""

import os
import platform
import re
import shutil
import subprocess
import sys
import time
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
import torchvision

from benchmarks.machine import measure_peaks

PYPROJECT = Path(__file__).resolve().parents[2] / "pyproject.toml"
EXTRA = ("triton", "pydantic-core", "onnxruntime", "pytest", "pytest-xdist")
"""Reported in addition to the project's own requirements."""


def main(device: str) -> int:
    """Print the facts. Returns 1 if a package is missing that the project requires."""
    print(
        f"python {platform.python_version()}, torch {torch.__version__}, torchvision {torchvision.__version__}, "
        f"cuda {torch.version.cuda}, {os.cpu_count()} cores"
    )
    releases = {name: release_of(name) for name in (*required_packages(), *EXTRA)}
    print(", ".join(f"{name} {release or 'MISSING'}" for name, release in releases.items()))
    print("compilers:", {name: shutil.which(name) for name in ("gcc", "g++", "cc", "nvcc", "ptxas")})
    if device == "cuda":
        print_gpu()
        print_jpeg_decoder()
        peaks = measure_peaks(torch.device(device), quick=False)
        products = ", ".join(f"{name} {spread.median / 1e12:.1f} TFLOP/s" for name, spread in peaks.flops.items())
        print(
            f"medians: products of {peaks.side} x {peaks.side}: {products}; copy {peaks.bytes.median / 1e12:.2f} TB/s"
        )
    return int(any(releases[name] is None for name in required_packages()))


def required_packages() -> list[str]:
    """Names of the project's requirements."""
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    return [re.split(r"[^\w.-]", requirement)[0] for requirement in project["dependencies"]]


def release_of(package: str) -> str | None:
    """The installed release; None if there is none."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def print_gpu() -> None:
    """Print the GPU's properties, its libraries, its settings and its state."""
    gpu = torch.cuda.get_device_properties(0)
    print(
        f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, {gpu.multi_processor_count} SMs, "
        f"cudnn {torch.backends.cudnn.version()}, nccl {torch.cuda.nccl.version()}, "
        f"bfloat16 {torch.cuda.is_bf16_supported(including_emulation=False)}, "
        f"tf32: cudnn {torch.backends.cudnn.allow_tf32}, matmul {torch.backends.cuda.matmul.allow_tf32}"
    )
    query = "name,driver_version,clocks.sm,clocks.max.sm,power.draw,temperature.gpu"
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"]
    print(subprocess.run(command, capture_output=True, text=True).stdout.strip())


def print_jpeg_decoder() -> None:
    """Print the speed of the GPU's JPEG decoder, and its difference from the CPU's."""
    from torchvision.io import decode_jpeg, encode_jpeg

    files = [encode_jpeg(torch.randint(0, 255, (3, 480, 640), dtype=torch.uint8)) for _ in range(64)]
    try:
        decode_jpeg(files[:2], device="cuda")
        torch.cuda.synchronize()
        started = time.perf_counter()
        decoded = decode_jpeg(files, device="cuda")
        torch.cuda.synchronize()
        seconds = time.perf_counter() - started
    except (RuntimeError, ValueError) as error:
        print(f"nvjpeg: {type(error).__name__} {str(error)[:150]}")
        return
    pairs = zip(decoded[:4], files)
    difference = max(int((gpu.cpu().int() - decode_jpeg(file).int()).abs().max()) for gpu, file in pairs)
    print(
        f"nvjpeg: {len(files) / seconds:.0f} noise images of 640 x 480 a second, "
        f"largest difference from the CPU decoder {difference}"
    )


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
