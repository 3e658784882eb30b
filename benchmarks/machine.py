"""The machine that figures belong to: its hardware and releases, and its measured peaks."""

import os
import platform
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from torch.utils.benchmark import Timer

from benchmarks.contest import Precision
from benchmarks.report import Machine, Peaks, Spread, spread_of
from retinanet.model.processor import computes_bfloat16

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "pycocotools", "hotcoco")

DTYPES: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


def this_machine(device: torch.device) -> Machine:
    """The hardware and the installed releases."""
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        gpu=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        system=f"{platform.system()} {platform.machine()}",
        versions={"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
    )


def measure_peaks(device: torch.device, quick: bool) -> Peaks:
    """Time a large matrix product in each precision and a large copy on `device`, each for a second after a warm-up.

    Only in precisions that the device computes in: products that emulate one take minutes.
    """
    cuda = device.type == "cuda"
    side, megabytes, seconds = (256, 16, 0.05) if quick else (8192, 2048, 1.0) if cuda else (2048, 512, 1.0)
    known: list[Precision] = ["float32"]
    if computes_bfloat16(device):
        known.append("bfloat16")
    if cuda:
        known.append("float16")
    flops: dict[str, Spread] = {}
    for precision in known:
        a, b = (torch.randn(side, side, device=device, dtype=DTYPES[precision]) for _ in range(2))
        out = torch.empty_like(a)
        flops[precision] = _rates(partial(torch.mm, a, b, out=out), 2 * side**3, seconds)
    source = torch.ones(megabytes * 2**18, device=device)
    target = torch.empty_like(source)
    copied = _rates(partial(target.copy_, source), 2 * source.nbytes, seconds)
    return Peaks(flops=flops, side=side, bytes=copied, copied_mb=megabytes)


def _rates(work: Callable[[], object], amount: float, seconds: float) -> Spread:
    timer = Timer("work()", globals={"work": work}, num_threads=torch.get_num_threads())
    return spread_of([amount / taken for taken in timer.blocked_autorange(min_run_time=seconds).times])


def _processor() -> str:
    """The processor's name and the instruction sets that matter for speed here."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    name = next(names, platform.processor())
    features = torch.cpu.get_capabilities()
    known = [f for f in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16", "amx_fp16") if features.get(f)]
    return f"{name or platform.machine()} ({', '.join(known) or 'no AVX'})"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
