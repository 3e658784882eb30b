"""What this machine can do: a large matrix product in each precision, and a large copy."""

import time
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.contest import Precision
from benchmarks.spread import Spread, spread_of
from benchmarks.timing import synchronise
from retinanet.build import computes_bfloat16
from retinanet.config.fields import Section

DTYPES: dict[Precision, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

REPEATS = 10


class Peaks(Section):
    """Measured ceilings. Shares are of the fastest repetition: whatever slows one down is no part of a ceiling."""

    flops: dict[str, Spread]
    """Floating point operations a second of a square matrix product, by precision."""
    side: int
    """Rows and columns of its matrices."""
    bytes: Spread
    """Bytes a second of a copy, those read and those written."""
    copied_mb: int


def measure_peaks(device: torch.device, quick: bool) -> Peaks:
    """Time matrix products and a copy on `device`, each REPEATS times after one to warm up.

    Only in precisions that the device computes in: products that emulate one take minutes.
    """
    cuda = device.type == "cuda"
    side, megabytes = (256, 16) if quick else (8192, 2048) if cuda else (2048, 512)
    known: list[Precision] = ["float32"]
    if computes_bfloat16(device):
        known.append("bfloat16")
    if cuda:
        known.append("float16")
    flops: dict[str, Spread] = {}
    for precision in known:
        a, b = (torch.randn(side, side, device=device, dtype=DTYPES[precision]) for _ in range(2))
        out = torch.empty_like(a)
        flops[precision] = _rates(partial(torch.mm, a, b, out=out), 2 * side**3, device)
    source = torch.ones(megabytes * 2**18, device=device)
    target = torch.empty_like(source)
    copied = _rates(partial(target.copy_, source), 2 * source.numel() * source.element_size(), device)
    return Peaks(flops=flops, side=side, bytes=copied, copied_mb=megabytes)


def _rates(work: Callable[[], object], amount: float, device: torch.device) -> Spread:
    rates = []
    for _ in range(1 + REPEATS):
        synchronise(device)
        started = time.perf_counter()
        work()
        synchronise(device)
        rates.append(amount / (time.perf_counter() - started))
    return spread_of(rates[1:])
