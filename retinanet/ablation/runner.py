"""Runs the unfinished cells of a study in separate processes, several at a time, until none is left.

Each cell's process claims its cell itself, so several runners, on one or more machines, can share a folder.
"""

import os
import subprocess
import sys
import time
from typing import NamedTuple

from retinanet.ablation.cells import (
    Cell,
    CellRecord,
    CellStatus,
    cell_folder,
    is_finished,
    is_ready,
    list_cells,
    lr_of,
    read_record,
    read_records,
    write_record,
)
from retinanet.ablation.claims import held, live_owner, take
from retinanet.ablation.run_cell import RUNNER_VARIABLE, CellTaken, Outcome, build_record
from retinanet.ablation.runner_console import CellProgress, RunnerConsole, read_progress
from retinanet.ablation.study import Study
from retinanet.ablation.study_folder import log_path, study_file
from retinanet.config.fields import known
from retinanet.errors import ConfigError, UserError, list_errors
from retinanet.run.interrupts import StopRequest, listen
from retinanet.run.metric_rows import FILE_NAME
from retinanet.training.optim import build_plan

POLL_SECONDS = 1.0
STOPPED_CODES = (130, 143, -2, -15)
"""Exit codes of a process that was stopped by SIGINT or SIGTERM."""
KILLED_CODE = -9
"""Exit code of a process that was stopped by SIGKILL."""


class CellsFailed(UserError):
    """Some cells of a study failed or were stopped; the others have finished (exit code 7)."""

    exit_code = 7


class Child(NamedTuple):
    """A cell's process."""

    cell: Cell
    process: subprocess.Popen[bytes]
    gpu: str | None
    started: float
    fresh: bool
    """Whether it started at step 0, so that its time is that of a whole cell."""


class Slots(NamedTuple):
    """Where cells may run on this machine."""

    jobs: int
    gpus: tuple[str, ...]
    """GPU of each slot; empty: each cell chooses its own."""

    def free_gpu(self, running: list[Child]) -> str | None:
        """A GPU on which no cell is running; None if the slots have none."""
        taken = {child.gpu for child in running}
        return next((gpu for gpu in self.gpus if gpu not in taken), None)


def build_slots(study: Study, jobs: int | None, gpus: tuple[str, ...]) -> Slots:
    """One slot for each GPU, else `jobs` slots, else the study's number. Raises ConfigError if that is invalid."""
    if jobs is not None and (jobs < 1 or gpus):
        raise ConfigError(
            f"--jobs {jobs}: give at least 1, and not together with --gpus, with which each GPU runs one cell."
        )
    if "" in gpus or len(set(gpus)) < len(gpus):
        raise ConfigError(f"--gpus {','.join(gpus)}: give each GPU once, as 0,1,2.")
    return Slots(len(gpus) or jobs or study.jobs, gpus)


def run_cells(study: Study, slots: Slots) -> None:
    """Run every cell that is not finished.

    Raises Interrupted after the cells have saved, and CellsFailed at the end if some have failed.
    """
    with listen() as stop, RunnerConsole(len(list_cells(study))) as console:
        runner = Runner(study, slots, console)
        try:
            while runner.step():
                if stop.signal:
                    runner.stop(stop)
                time.sleep(POLL_SECONDS)
        finally:
            runner.end()
    if runner.failed:
        lines = [f"{name}: {message}" for name, message in runner.failed.items()]
        raise CellsFailed(list_errors("cells are not finished; fix the cause and continue with --resume", lines))


class Runner:
    """The processes of one runner and its knowledge of the cells."""

    def __init__(self, study: Study, slots: Slots, console: RunnerConsole) -> None:
        self.study, self.slots, self.console = study, slots, console
        self.cells = list_cells(study)
        self.running: list[Child] = []
        self.failed: dict[str, str] = {}
        """Cell name -> why it failed or was stopped in this session; these are not tried again."""
        self.elsewhere: set[str] = set()
        """Cells that other processes were seen running."""
        self.walls: list[float] = []
        """Durations, in seconds, of whole cells in this session."""

    def step(self) -> bool:
        """Handle processes that have ended and start others; False when nothing is left to wait for."""
        for child in [child for child in self.running if child.process.poll() is not None]:
            self.running.remove(child)
            self.reap(child)
        records = self.records()
        finished = sum(is_finished(self.study, cell, records) for cell in self.cells)
        waiting = self.start_ready(records)
        self.console.progress(self.progress(), finished, self.seconds_left(records))
        return bool(self.running or waiting)

    def records(self) -> dict[str, CellRecord]:
        """Cell name -> its record, read anew."""
        return read_records(self.study.folder, [cell.name for cell in self.cells])

    def start_ready(self, records: dict[str, CellRecord]) -> bool:
        """Fill the free slots; True if a cell is left that this or another runner can still run."""
        waiting = False
        tried = self.failed.keys() | {child.cell.name for child in self.running}
        for cell in self.cells:
            if cell.name in tried or not is_ready(self.study, cell, records):
                continue
            if len(self.running) >= self.slots.jobs:
                return True
            owner = live_owner(self.study.folder, cell.name)
            if owner is None:
                self.start(cell)
                continue
            waiting = True
            if cell.name not in self.elsewhere:
                self.elsewhere.add(cell.name)
                self.console.say(f"{cell.name} is being run by {owner}")
        return waiting

    def start(self, cell: Cell) -> None:
        """Start the process of a cell."""
        gpu = self.slots.free_gpu(self.running)
        environment = {**os.environ, RUNNER_VARIABLE: str(os.getpid())}
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        if self.slots.jobs > 1 and not self.study.base.threads:
            # Otherwise each process would use every core, and they would slow each other down.
            environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // self.slots.jobs)))
        study = str(study_file(self.study.folder))
        command = [sys.executable, "-m", "retinanet", "ablate", study, "--cell", cell.name]
        fresh = not (cell_folder(self.study, cell) / "config.yaml").exists()
        with log_path(self.study.folder, cell.name).open("ab") as log:
            # In a session of its own: Ctrl-C reaches only this process, which passes it on once.
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        self.running.append(Child(cell=cell, process=process, gpu=gpu, started=time.monotonic(), fresh=fresh))
        where = f" on GPU {gpu}" if gpu is not None else ""
        self.console.say(f"{'start' if fresh else 'continue'} {cell.name}{where}")

    def reap(self, child: Child) -> None:
        """Record how a process ended."""
        name, code = child.cell.name, child.process.returncode
        wall = time.monotonic() - child.started
        if code == CellTaken.exit_code:
            return
        if code in STOPPED_CODES:
            self.failed[name] = "its process was stopped by a signal; its last checkpoint is kept"
            self.console.say(f"{name}: {self.failed[name]}")
            return
        if code != 0:
            self.note_failure(child.cell, code)
        records = self.records()
        record = records.get(name)
        if record is None or (code != 0 and record.status == CellStatus.TUNED):
            return
        if record.status == CellStatus.FAILED:
            self.failed[name] = record.message
        else:
            self.failed.pop(name, None)
            if child.fresh:
                self.walls.append(wall)
        self.console.ended(record, sum(is_finished(self.study, cell, records) for cell in self.cells), wall)

    def note_failure(self, cell: Cell, code: int) -> None:
        """Record a failed cell whose process could not do so itself, for instance because it was killed."""
        self.failed[cell.name] = reason = (
            f"its process ended with {f'signal {-code}' if code < 0 else f'exit code {code}'}"
            f"{' (out of memory?)' if code == KILLED_CODE else ''}; see {log_path(self.study.folder, cell.name)}"
        )
        claim = take(self.study.folder, cell.name)
        if claim is None:
            return
        with held(claim):
            record = read_record(self.study.folder, cell.name)
            lr = lr_of(self.study, cell, self.records())
            if record is None and lr is not None:
                write_record(self.study.folder, build_record(self.study, cell, lr, Outcome(CellStatus.FAILED, reason)))

    def progress(self) -> list[CellProgress]:
        """Progress of the running cells, from their metrics.jsonl."""
        schedule = self.study.base.schedule

        def total_at(step: int, epoch: float) -> int:
            return build_plan(schedule, round(step * known(schedule.batch_size) / epoch)).total_steps

        folders = [(child.cell.name, cell_folder(self.study, child.cell)) for child in self.running]
        return [read_progress(name, folder / FILE_NAME, total_at) for name, folder in folders]

    def seconds_left(self, records: dict[str, CellRecord]) -> float | None:
        """Estimate from the durations of cells so far; None without one."""
        if not self.walls:
            return None
        open_cells = sum(not is_finished(self.study, cell, records) for cell in self.cells)
        spent = sum(time.monotonic() - child.started for child in self.running)
        each = sum(self.walls) / len(self.walls)
        return max(0.0, open_cells * each - spent) / self.slots.jobs

    def stop(self, stop: StopRequest) -> None:
        """Pass a signal on, wait until every cell has saved, and raise Interrupted."""
        self.console.say(f"stopping: {len(self.running)} cells are saving")
        for child in self.running:
            child.process.send_signal(stop.signal)
        for child in self.running:
            child.process.wait()
        self.running.clear()
        stop.raise_asked(f"Saved what was running to {self.study.folder}. Continue with the same command and --resume.")

    def end(self) -> None:
        """Ask the processes that are still running to save and stop."""
        for child in self.running:
            child.process.terminate()
