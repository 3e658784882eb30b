"""Runs the unfinished cells of a study in separate processes, several at a time, until none is left.

Where they run is a `Placement`: this machine, or the nodes of a cluster. Each cell's process holds the lock of its
cell, so a cell that another runner or a SLURM job is running is left alone.
"""

import shutil
import signal
import time
from contextlib import suppress
from dataclasses import dataclass

from retinanet.ablation.cell_process import APPEARS_SECONDS
from retinanet.ablation.cells import (
    Cell,
    CellRecord,
    CellStatus,
    cell_folder,
    is_finished,
    is_ready,
    is_wanted,
    list_cells,
    lr_of,
    read_record,
    read_records,
    write_record,
)
from retinanet.ablation.claims import ClaimTaken, claim_owner, claimed
from retinanet.ablation.placement import CellProcess, Ended, Placement
from retinanet.ablation.run_cell import Outcome, build_record
from retinanet.ablation.runner_console import CellProgress, RunnerConsole, read_progress
from retinanet.ablation.study import Study
from retinanet.ablation.study_folder import log_path
from retinanet.config.fields import known
from retinanet.errors import ResourceError, UserError, list_errors
from retinanet.run.interrupts import StopRequest, listen
from retinanet.run.metric_rows import FILE_NAME
from retinanet.training.optim import build_plan

POLL_SECONDS = 1.0
STOPPED_CODES = (130, 143, -2, -15)
"""Exit codes of a process that was stopped by SIGINT or SIGTERM."""
KILLED_CODE = -9
"""Exit code of a process that was stopped by SIGKILL."""
LOSSES = 3
"""A cell fails when this many machines in a row were lost under it without a step of progress."""


def training_length(cell: Cell) -> float:
    """Steps or epochs of a cell's training, for comparing cells of levels that differ in it."""
    schedule = cell.arm.config.schedule
    length = schedule.epochs if schedule.iterations is None else schedule.iterations
    assert length is not None, "the schema wants one of both"
    return float(known(length))


class CellsFailed(UserError):
    """Some cells of a study failed or were stopped; the others have finished (exit code 7)."""

    exit_code = 7


@dataclass
class Child:
    """A cell whose process waits for a machine, runs, or has ended without a record that this machine sees yet."""

    cell: Cell
    process: CellProcess
    step: int
    """Step that the cell had logged before."""
    location: str = ""
    """Where it runs, as the end of a line."""
    began: float | None = None
    """Time at which it was seen running."""
    ended: float | None = None
    """Time at which it was seen to have ended."""

    def is_fresh(self) -> bool:
        """Whether it started at step 0, so that its time is that of a whole cell."""
        return self.step == 0


def run_cells(study: Study, placement: Placement) -> None:
    """Run every cell that is not finished.

    Raises Interrupted after the cells have saved, and CellsFailed at the end if some have failed.
    """
    with listen() as stop, RunnerConsole(len(list_cells(study))) as console:
        runner = Runner(study, placement, console)
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

    def __init__(self, study: Study, placement: Placement, console: RunnerConsole) -> None:
        self.study, self.placement, self.console = study, placement, console
        self.cells = list_cells(study)
        self.running: list[Child] = []
        self.failed: dict[str, str] = {}
        """Cell name -> why it failed or was stopped in this session; these are not tried again."""
        self.lost: dict[str, int] = {}
        """Cell name -> machines lost under it in a row without a step of progress."""
        self.elsewhere: set[str] = set()
        """Cells that other processes were seen running."""
        self.walls: list[tuple[float, float]] = []
        """Duration, in seconds, and `training_length` of each whole cell of this session."""

    def step(self) -> bool:
        """Handle processes that have begun or ended and start others; False when nothing is left to wait for."""
        for child in list(self.running):
            self.note_begin(child)
            ended = child.process.poll()
            if ended is not None and not self.awaits_record(child, ended):
                self.running.remove(child)
                self.reap(child, ended)
        records = self.records()
        finished = sum(is_finished(self.study, cell, records) for cell in self.cells)
        waiting = self.start_ready(records)
        placed = [child for child in self.running if child.began is not None]
        progress = [self.progress_of(child.cell) for child in placed]
        self.console.progress(progress, finished, self.seconds_left(records), len(self.running) - len(placed))
        return bool(self.running or waiting)

    def records(self) -> dict[str, CellRecord]:
        """Cell name -> its record, read anew."""
        return read_records(self.study.folder, [cell.name for cell in self.cells])

    def start_ready(self, records: dict[str, CellRecord]) -> bool:
        """Start what fits; True if a cell is left that this or another runner can still run."""
        waiting = False
        tried = self.failed.keys() | {child.cell.name for child in self.running}
        for cell in self.cells:
            if cell.name in tried or not is_ready(self.study, cell, records):
                continue
            if not self.placement.has_room(len(self.running)):
                return True
            owner = claim_owner(self.study.folder, cell.name)
            if not owner:
                self.start(cell)
                continue
            waiting = True
            if cell.name not in self.elsewhere:
                self.elsewhere.add(cell.name)
                self.console.say(f"{cell.name} is being run by {owner}")
        return waiting

    def start(self, cell: Cell) -> None:
        """Start the process of a cell."""
        step = self.progress_of(cell).step
        self.running.append(Child(cell, self.placement.start(cell), step))
        self.note_begin(self.running[-1])

    def note_begin(self, child: Child) -> None:
        """Print where a cell runs once it does."""
        location = child.process.location() if child.began is None else None
        if location is not None:
            child.location, child.began = location, time.monotonic()
            self.console.say(f"{'start' if child.is_fresh() else 'continue'} {child.cell.name}{location}")

    def awaits_record(self, child: Child, ended: Ended) -> bool:
        """Whether a process has finished its cell on another machine so recently that its record may still appear."""
        if ended.code != 0 or read_record(self.study.folder, child.cell.name) is not None:
            return False
        child.ended = child.ended or time.monotonic()
        return time.monotonic() - child.ended < APPEARS_SECONDS

    def reap(self, child: Child, ended: Ended) -> None:
        """Record how a process ended."""
        name = child.cell.name
        wall = time.monotonic() - (child.began or time.monotonic())
        if ended.code == ClaimTaken.exit_code:
            return
        if ended.code is None:
            self.note_loss(child, ended)
            return
        if ended.code in STOPPED_CODES:
            self.failed[name] = "its process was stopped by a signal; its last checkpoint is kept"
            self.console.say(f"{name}: {self.failed[name]}")
            return
        if ended.code != 0:
            self.note_failure(child.cell, ended)
        records = self.records()
        record = records.get(name)
        if record is None and ended.code == 0:
            self.failed[name] = (
                f"its process has ended, but {self.study.folder} has no record of it; do all machines share it?"
            )
        if record is None or (ended.code != 0 and record.status == CellStatus.TUNED):
            return
        if record.status == CellStatus.FAILED:
            self.failed[name] = record.message
        else:
            self.failed.pop(name, None)
            if child.is_fresh() and record.status != CellStatus.DIVERGED:  # one that diverges ends early
                self.walls.append((wall, training_length(child.cell)))
        self.console.ended(record, sum(is_finished(self.study, cell, records) for cell in self.cells), wall)

    def note_loss(self, child: Child, ended: Ended) -> None:
        """A machine is gone: its cell goes on on another from its last checkpoint, unless that keeps happening."""
        name = child.cell.name
        progressed = self.progress_of(child.cell).step > child.step
        self.lost[name] = 0 if progressed else self.lost.get(name, 0) + 1
        if self.lost[name] < LOSSES:
            self.console.say(f"{name}{child.location}: lost the node; the cell continues from its last checkpoint")
            return
        self.failed[name] = f"{LOSSES} nodes in a row were lost while they ran it: {ended.reason}"
        self.console.say(f"{name}: {self.failed[name]}")

    def note_failure(self, cell: Cell, ended: Ended) -> None:
        """Record a failed cell whose process could not do so itself, for instance because it was killed."""
        code = ended.code or 0
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        self.failed[cell.name] = reason = ended.reason or (
            f"its process ended with {how}{self.likely_cause(code)}; see {log_path(self.study.folder, cell.name)}"
        )
        # Without space for a record it stays in this session's list, and others can still finish.
        with suppress(ClaimTaken, OSError, ResourceError), claimed(self.study.folder, cell.name):
            record = read_record(self.study.folder, cell.name)
            lr = lr_of(self.study, cell, self.records())
            if record is None and lr is not None:
                write_record(self.study.folder, build_record(self.study, cell, lr, Outcome(CellStatus.FAILED, reason)))

    def likely_cause(self, code: int) -> str:
        """In brackets, what an exit code often means; on a full disk the cell's log may not say it."""
        if code == KILLED_CODE:
            return " (out of memory?)"
        free = shutil.disk_usage(self.study.folder).free
        return f" (disk full? {free / 1e6:,.1f} MB are free)" if code == ResourceError.exit_code else ""

    def progress_of(self, cell: Cell) -> CellProgress:
        """Progress of a cell, from its metrics.jsonl."""
        schedule = cell.arm.config.schedule

        def total_at(step: int, epoch: float) -> int:
            return build_plan(schedule, round(step * known(schedule.batch_size) / epoch)).total_steps

        return read_progress(cell.name, cell_folder(self.study, cell) / FILE_NAME, total_at)

    def seconds_left(self, records: dict[str, CellRecord]) -> float | None:
        """Estimate from the durations and lengths of cells so far; None without one."""
        began = [child.began for child in self.running if child.began is not None]
        if not self.walls or not began:
            return None
        wanted = [cell for cell in self.cells if is_wanted(self.study, cell, records)]
        left = sum(training_length(cell) for cell in wanted if not is_finished(self.study, cell, records))
        spent = sum(time.monotonic() - start for start in began)
        pace = sum(seconds for seconds, _ in self.walls) / sum(length for _, length in self.walls)
        return max(0.0, left * pace - spent) / len(began)

    def stop(self, stop: StopRequest) -> None:
        """Pass a signal on, wait until every cell has saved, and raise Interrupted."""
        names = [child.cell.name for child in self.running if child.began is not None]
        self.console.say(f"stopping: waiting for {', '.join(names)} to save" if names else "stopping")
        for child in self.running:
            child.process.send_signal(stop.signal)
        while any(child.process.poll() is None for child in self.running):
            time.sleep(POLL_SECONDS / 10)
        self.running.clear()
        stop.raise_asked(f"Saved what was running to {self.study.folder}. Continue with the same command and --resume.")

    def end(self) -> None:
        """Ask the processes that are still running to save and stop."""
        for child in self.running:
            child.process.send_signal(signal.SIGTERM)
