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

from benchmarks.contest import Running
from benchmarks.options import Options
from benchmarks.parts.all_parts import build_contest
from benchmarks.timing import synchronise

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def peak_of(options: Options, part: str, name: str) -> float | None:
    """MB of a contestant's step in a fresh process (see Contest.memory); None where that process failed."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(measure_alone, options, part, name).result()
        except (BrokenProcessPool, RuntimeError, MemoryError):
            # It ran out of memory, or is a peer that cannot run here; the timing has told why.
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
    running = contestant.build()
    running.before()
    running.step()
    return second_step(running, contest.memory, empty, device) / 2**20


def second_step(running: Running, above: Literal["whole", "extra"], empty: int, device: torch.device) -> int:
    """Bytes of a step's peak above `empty` (whole) or above what is held just before it (extra)."""
    synchronise(device)
    gc.collect()
    _give_back()
    base = empty if above == "whole" else held(device)
    _reset_peak(device)
    running.step()
    synchronise(device)
    return max(0, peak(device) - base)


def held(device: torch.device) -> int:
    """Bytes in use now: the GPU's tensors, or this process's resident set."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return _status("VmRSS") if _STATUS.exists() else _largest()


def peak(device: torch.device) -> int:
    """Most bytes in use since the last reset (on systems without /proc: since the process began)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _status("VmHWM") if _STATUS.exists() else _largest()


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _CLEAR.exists():
        # 5 sets the peak of the resident set to its present size (proc(5)).
        _CLEAR.write_text("5", encoding="ascii")


def _give_back() -> None:
    """Hand freed memory that the C library keeps back to the system, so that it is not counted as held."""
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6", use_errno=True).malloc_trim(0)


def _status(field: str) -> int:
    lines = _STATUS.read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":"))


def _largest() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
