"""What determinism, the moving average, cuDNN's search, compiling and the batch cost a training step.

python -m benchmarks.gpu.switches cpu|cuda OUT.json; with a GPU also the kernels of a step, and how long it works.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from torch.profiler import DeviceType, ProfilerActivity, profile
from torch.utils.benchmark import timer

from benchmarks.contest import Precision
from benchmarks.project import build_training, one_update
from benchmarks.scenes import random_batch
from retinanet.compile import build_backend, compile_network
from retinanet.files import write_json
from retinanet.training.moving_average import MovingAverage

CLASSES = 80
EMA = 0.99


class Switches(NamedTuple):
    """What a step is run with; the defaults are a training run's."""

    name: str
    images: int
    deterministic: bool = True
    search: bool = False
    """Whether cuDNN searches for the fastest algorithms."""
    average: bool = False
    compiled: bool = False


def main(name: str, path: Path) -> int:
    """Measure, print and write every row."""
    small, device = name == "cpu", torch.device(name)
    batches = (1,) if small else (2, 8, 16, 24)
    top = batches[-2] if len(batches) > 1 else batches[0]  # the largest leaves no memory for a second network
    rows = [
        *(Switches("as a training run", images) for images in batches),
        Switches("without determinism", top, deterministic=False),
        Switches("without determinism, cuDNN searching", top, deterministic=False, search=True),
        Switches("with the moving average", top, average=True),
    ]
    if not small:
        rows += [Switches("compiled", images, compiled=True) for images in (2, top)]
        every = "compiled, without determinism, cuDNN searching"
        rows.append(Switches(every, top, deterministic=False, search=True, compiled=True))
    write_json(path, [measure(row, device) for row in rows], indent=1)
    return 0


def measure(switches: Switches, device: torch.device) -> dict[str, Any]:
    """Seconds of a step, images a second; with a GPU also its kernels, its busy seconds and its memory."""
    small = device.type == "cpu"
    torch.use_deterministic_algorithms(switches.deterministic, warn_only=True)
    torch.backends.cudnn.benchmark = switches.search
    if not small:
        torch.cuda.reset_peak_memory_stats()
    network, size = ("resnet18", (128, 160)) if small else ("resnet50", (800, 1344))
    precision: Precision = "float32" if small else "bfloat16"
    state, parts = build_training(network, precision, switches.images, CLASSES, device)
    if switches.average:
        state.average = MovingAverage(state.model, EMA)
    if switches.compiled:
        compile_network(state.model, build_backend(device, lambda _: None))
    update, batch = one_update(state, parts), random_batch(size, switches.images, CLASSES)
    seconds = time_steps(lambda: update(batch), warmups=1 if small else 3, count=1 if small else 8)
    row: dict[str, Any] = {"name": switches.name, "images": switches.images, "seconds": seconds}
    row["images_per_second"] = switches.images / seconds
    row |= {"kernels": None, "gpu_seconds": None, "memory_gib": None}
    text = f"{switches.name:48s} {switches.images:2d} images: {seconds * 1e3:7.1f} ms, "
    text += f"{row['images_per_second']:6.1f} images/s"
    if not small:
        row["kernels"], row["gpu_seconds"] = profile_step(lambda: update(batch))
        row["memory_gib"] = torch.cuda.max_memory_allocated() / 2**30
        text += f", {row['kernels']} kernels, GPU busy {row['gpu_seconds'] * 1e3:.1f} ms, {row['memory_gib']:.1f} GiB"
    print(text, flush=True)
    return row


def time_steps(step: Callable[[], object], warmups: int, count: int) -> float:
    """Median seconds of a step."""
    for _ in range(warmups):
        step()
    seconds = []
    for _ in range(count):
        started = timer()
        step()
        seconds.append(timer() - started)
    return median(seconds)


def profile_step(step: Callable[[], object]) -> tuple[int, float]:
    """Kernels of a step on the GPU, and the seconds that they take."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        step()
        torch.cuda.synchronize()
    events = [event for event in profiler.events() or () if event.device_type == DeviceType.CUDA]
    return len(events), sum(event.device_time for event in events) / 1e6


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], Path(sys.argv[2])))
