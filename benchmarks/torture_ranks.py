"""Two ranks under torchrun: seconds until it ends, exit code and message, after one dies or hangs, SIGTERM, a restart.

python -m benchmarks.torture_ranks
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from benchmarks.torture_runs import CONFIG, logged
from retinanet.prepare.shapes import generate_shapes
from retinanet.run.checkpoint import load_checkpoint
from retinanet.run.folder import RunFolder


class Case(NamedTuple):
    """What happens to which process."""

    name: str
    number: signal.Signals
    rank: int | None
    """None: torchrun itself."""
    restarts: int = 0


CASES = (
    Case("rank 1 killed", signal.SIGKILL, 1),
    Case("rank 1 stopped (SIGSTOP), distributed.timeout=5", signal.SIGSTOP, 1),
    Case("SIGTERM to torchrun", signal.SIGTERM, None),
    Case("rank 1 killed, --max-restarts 1", signal.SIGKILL, 1, restarts=1),
)


def main() -> None:
    """Print a table row for each case."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate_shapes(folder / "shapes", train_images=8, val_images=4, size=(64, 64), seed=3)
        config = folder / "ranks.yaml"
        config.write_text(CONFIG.replace("ROOT", str(folder / "shapes")), encoding="utf-8")
        for number, case in enumerate(CASES):
            print(try_case(case, config, folder / f"run{number}"), flush=True)


def try_case(case: Case, config: Path, run: Path) -> str:
    """The table row of a case."""
    steps = 60 if case.restarts else 100_000
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [f"--max-restarts={case.restarts}", "-m", "retinanet", "train", str(config), f"output={run}"]
    keys = [f"schedule.iterations={steps}", "log.save_every=1", "eval.every=0", "distributed.timeout=5"]
    printed = run.with_suffix(".txt")
    with printed.open("w", encoding="utf-8") as file:
        process = subprocess.Popen([*launcher, *words, *keys], stdout=file, stderr=file)
        while logged(run) < 3:
            time.sleep(0.05)
        victim = process.pid if case.rank is None else worker(process.pid, case.rank)
        began = time.monotonic()
        os.kill(victim, case.number)
        process.wait(120)
    seconds = time.monotonic() - began
    text = printed.read_text(encoding="utf-8", errors="replace")
    own = re.search(r"^error: (rank 0: .*?);|^(Interrupted by .*?\.)", text, flags=re.MULTILINE)
    pairs = re.findall(r"^ *rank *: (\d+).*?^ *exitcode *: (-?\d+)", text, flags=re.MULTILINE | re.DOTALL)
    codes_of_ranks = dict(pairs)
    codes = ", ".join(codes_of_ranks[rank] for rank in sorted(codes_of_ranks)) or "-"
    saved = load_checkpoint(RunFolder(run).last).progress.step
    message = (own[1] or own[2]) if own else "-"
    whole = "; finished" if case.restarts and saved == steps else ""
    return f"| {case.name} | {seconds:.1f} s | {process.returncode} | {codes} | {message} | step {saved}{whole} |"


def worker(launcher: int, rank: int) -> int:
    """The process id of a rank."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text(encoding="utf-8").split()
    for child in children:
        if f"\0RANK={rank}\0".encode() in b"\0" + Path(f"/proc/{child}/environ").read_bytes():
            return int(child)
    raise LookupError(f"no rank {rank} among {children}")


if __name__ == "__main__":
    main()
