"""Cells on this machine: one process each, several at a time, on GPUs that they may share."""

import os
import subprocess
from typing import NamedTuple

from retinanet.ablation.cell_process import start_process
from retinanet.ablation.cells import Cell
from retinanet.ablation.placement import CellProcess, Ended
from retinanet.ablation.study import Study
from retinanet.ablation.study_folder import log_path, study_file
from retinanet.ablation.warm_start import ForkedCell, can_fork
from retinanet.errors import ConfigError


class Slots(NamedTuple):
    """Where cells may run on this machine."""

    jobs: int
    gpus: tuple[str, ...]
    """GPU of each slot, the same one several times if cells share it; empty: each cell chooses its own."""

    def free_gpu(self, taken: list[str]) -> str | None:
        """A GPU with a free slot; None if the slots have no GPUs. taken: GPU of each running cell."""
        free = list(self.gpus)
        for gpu in taken:
            free.remove(gpu)
        return free[0] if free else None


def build_slots(study: Study, jobs: int | None, gpus: tuple[str, ...]) -> Slots:
    """The slots of `--jobs` and `--gpus`; without both, the study's `jobs`.

    A GPU that is listed N times runs N cells at a time; more jobs than listed GPUs are divided among them. Raises
    ConfigError if jobs or gpus are invalid.
    """
    if jobs is not None and jobs < 1:
        raise ConfigError(f"--jobs {jobs}: give at least 1.")
    if "" in gpus:
        raise ConfigError(f"--gpus {','.join(gpus)}: give numbers of GPUs such as 0,1,2, or 0,0 for two cells on one.")
    if gpus and jobs is not None and jobs < len(gpus):
        raise ConfigError(
            f"--jobs {jobs} --gpus {','.join(gpus)}: {jobs} cells cannot use {len(gpus)} GPUs; list fewer, or leave "
            "out --jobs."
        )
    count = jobs or len(gpus) or study.jobs
    return Slots(count, tuple(gpus[number % len(gpus)] for number in range(count)) if gpus else ())


class LocalProcess:
    """The process of a cell on this machine."""

    def __init__(self, process: "subprocess.Popen[bytes] | ForkedCell", gpu: str | None) -> None:
        self._process, self.gpu = process, gpu

    def location(self) -> str:
        """The GPU that the cell was given."""
        return f" on GPU {self.gpu}" if self.gpu is not None else ""

    def poll(self) -> Ended | None:
        """How it ended; None while it runs."""
        code = self._process.poll()
        return None if code is None else Ended(code)

    def send_signal(self, number: int) -> None:
        """Send a signal to the process."""
        self._process.send_signal(number)


class ThisMachine:
    """The slots of this machine: a `Placement`."""

    def __init__(self, study: Study, slots: Slots) -> None:
        self._study, self._slots = study, slots
        self._started: list[LocalProcess] = []

    def has_room(self, running: int) -> bool:
        """Whether a slot is free."""
        return running < self._slots.jobs

    def start(self, cell: Cell) -> CellProcess:
        """Start the process of a cell in a free slot."""
        running = [process for process in self._started if process.poll() is None]
        gpu = self._slots.free_gpu([process.gpu for process in running if process.gpu is not None])
        variables = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
        if self._slots.jobs > 1 and not self._study.base.threads:
            # Otherwise each process would use every core, and they would slow each other down. Set here, too, because
            # a fork server reads it when it imports torch.
            os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // self._slots.jobs)))
        folder = self._study.folder
        start = ForkedCell if can_fork() else start_process
        process = start(study_file(folder), cell.name, log_path(folder, cell.name), variables)
        self._started = [*running, LocalProcess(process, gpu)]
        return self._started[-1]
