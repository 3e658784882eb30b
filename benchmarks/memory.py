"""Peak memory of one contestant's step, measured in a process that holds nothing else."""

import ctypes
import gc
import multiprocessing
import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Literal

import torch

from benchmarks.contest import Step
from benchmarks.options import Options
from benchmarks.parts import build_contest

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def peak_of(options: Options, part: str, name: str) -> float | None:
    """MB of a contestant's step in a fresh process (see Contest.memory); None if that process failed."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(measure_alone, options, part, name).result()
        except (BrokenProcessPool, RuntimeError, MemoryError):
            # It ran out of memory, or is a peer that cannot run here; its failure was reported when it was timed.
            return None


def measure_alone(options: Options, part: str, name: str) -> float:
    """MB of the second step of a contestant, in a process made for this."""
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    contest = build_contest(part, options)
    assert contest.memory is not None, f"{part} measures no memory"
    contestant = next(c for c in contest.contestants if c.name == name)
    empty = held(device)
    with contestant.build()() as step:
        step()
        return second_step(step, contest.memory, empty, device) / 2**20


def second_step(step: Step, above: Literal["whole", "extra"], empty: int, device: torch.device) -> int:
    """Bytes of a step's peak above `empty` (whole) or above what is held just before it (extra)."""
    gc.collect()
    if sys.platform == "linux":  # freed memory that the C library keeps is not held
        ctypes.CDLL("libc.so.6", use_errno=True).malloc_trim(0)
    base = empty if above == "whole" else held(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR.exists():
        # 5 sets the peak of the resident set to its present size (proc(5)).
        _CLEAR.write_text("5", encoding="ascii")
    step()
    return max(0, peak(device) - base)


def held(device: torch.device) -> int:
    """Bytes in use now: the GPU's tensors, or this process's resident set."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else _resident("VmRSS")


def peak(device: torch.device) -> int:
    """Most bytes in use since the last reset (on systems without /proc: since the process began)."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _resident("VmHWM")


def _resident(field: Literal["VmRSS", "VmHWM"]) -> int:
    """Bytes of a field of /proc/self/status; without /proc the largest resident set so far."""
    if _STATUS.exists():
        lines = _STATUS.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
