"""On what and with what a benchmark ran."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from retinanet.config.fields import Section

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "pycocotools", "hotcoco")


class Machine(Section):
    """The hardware and the releases that figures belong to."""

    processor: str
    cores: int
    """That this process may use."""
    threads: int
    memory_gb: float
    gpu: str | None
    system: str
    versions: dict[str, str]


def this_machine(device: torch.device) -> Machine:
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        gpu=torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        system=f"{platform.system()} {platform.machine()}",
        versions={"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
    )


def _processor() -> str:
    """The processor's name and the instructions that decide about its speed here."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    name = next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )
    features = torch.cpu.get_capabilities()
    known = [f for f in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16", "amx_fp16") if features.get(f)]
    return f"{name or platform.machine()} ({', '.join(known) or 'no AVX'})"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
