"""Every class loss through `retinanet train`, a few steps each.

python -m benchmarks.gpu.losses cpu|cuda DATA OUTPUT
"""

import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, get_args

from retinanet.config.class_losses import AnyClassLossKeys, ClassLossKeys

KEYS = ("schedule.warmup=2", "eval.every=0", "log.every=4", "log.pictures=0", "threads=1")
SIZES = {
    "cuda": (
        "schedule.iterations=12",
        "data.canvas=[512,512]",
        "schedule.batch_size=16",
        "schedule.reference_batch=16",
    ),
    "cpu": ("schedule.iterations=3", "data.canvas=[64,64]", "schedule.batch_size=4", "schedule.reference_batch=4"),
}
JOBS = {"cuda": 6, "cpu": 1}
"""Trainings at a time."""


class Outcome(NamedTuple):
    """How one training ended."""

    kind: str
    exit_code: int
    warnings: list[str]
    errors: str
    """The end of stderr."""


def main(device: str, data: Path, output: Path, kinds: Sequence[str] = ()) -> int:
    """Train with each kind (default: all) on the data set in `data`. Returns 1 if any training failed."""
    with ThreadPoolExecutor(JOBS[device]) as pool:
        outcomes = list(pool.map(lambda kind: train(kind, device, data, output / kind), kinds or all_kinds()))
    for outcome in outcomes:
        failed = outcome.exit_code != 0
        print("BAD " if failed else "ok  ", outcome.kind, *outcome.warnings[:3], outcome.errors if failed else "")
    return int(any(outcome.exit_code for outcome in outcomes))


def all_kinds() -> list[str]:
    """The values of loss.classification.kind, without losses of one's own."""
    union = get_args(AnyClassLossKeys)[0]
    keys: list[type[ClassLossKeys]] = [get_args(member)[0] for member in get_args(union)]
    return [str(kind.default) for kind in (one.model_fields["kind"] for one in keys) if not kind.is_required()]


def train(kind: str, device: str, data: Path, output: Path) -> Outcome:
    """A training of a few steps in a process of its own."""
    command = [sys.executable, "-m", "retinanet", "train", "configs/quickstart.yaml", *KEYS, *SIZES[device]]
    command += [f"data.root={data}", f"device={device}", f"loss.classification.kind={kind}", f"output={output}"]
    command += ["data.workers=0"] if device == "cpu" else []
    done = subprocess.run([*command, "--overwrite"], capture_output=True, text=True)
    warned = sorted({line.strip()[:160] for line in done.stderr.splitlines() if "Warning" in line})
    return Outcome(kind=kind, exit_code=done.returncode, warnings=warned, errors=done.stderr[-400:])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
