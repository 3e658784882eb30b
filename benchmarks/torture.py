"""`make torture`: what chance decides about reliability, tried many times. Prints a table row for each kind.

    python -m benchmarks.torture [kill signals disk study own foreign fuzz soak] [--tries N] [--steps N]

Full disks are small tmpfs file systems where this runs as root, else limits of a file's size.
"""

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
import yaml

from benchmarks.damage import changed, count_refused
from benchmarks.torture_runs import (
    CONFIG,
    STUDY,
    Place,
    Row,
    bytes_of,
    content,
    errors,
    logged,
    numbers,
    start,
    unbroken,
    wait,
)
from retinanet.config.load import load_config
from retinanet.data.coco import load_coco
from retinanet.errors import UserError
from retinanet.interop.weights_file import read_weights
from retinanet.prepare.shapes import generate_shapes
from retinanet.run.checkpoint import load_checkpoint
from retinanet.run.folder import RunFolder
from retinanet.training import engine  # noqa: F401 - imported before forks


def main() -> None:
    """Try the kinds that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", choices=[*KINDS, []], help="default: all")
    parser.add_argument(
        "--tries",
        type=int,
        default=30,
        help="of kinds that run a training; a study two thirds, others ten times as many",
    )
    parser.add_argument("--steps", type=int, default=5000, help="of the soak")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate_shapes(folder / "shapes", train_images=8, val_images=4, size=(64, 64), seed=3)
        config = folder / "torture.yaml"
        config.write_text(CONFIG.replace("ROOT", str(folder / "shapes")), encoding="utf-8")
        place = Place(folder=folder, config=config, tries=arguments.tries, steps=arguments.steps)
        for kind in arguments.kinds or KINDS:
            began = time.monotonic()
            row = KINDS[kind](place)
            print(
                f"| {row.kind} | {row.good} of {row.tries} | {row.remark} | {time.monotonic() - began:.0f} s |",
                flush=True,
            )


def try_kill(place: Place) -> Row:
    """Runs that SIGKILL hits again and again at random moments equal an unbroken one."""
    expected, folder, rng = unbroken(place), place.folder / "killed", random.Random(1)
    kills = good = of_this_run = runs = 0
    while kills < place.tries or of_this_run:
        pid = start(place, folder, "--resume")
        if kills < place.tries:
            time.sleep(rng.uniform(0.5, 6.0))
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        code = wait(pid)
        kills, of_this_run = kills + (code == -signal.SIGKILL), of_this_run + (code == -signal.SIGKILL)
        if code == -signal.SIGKILL:
            continue
        good += of_this_run * (code == 0 and content(folder) == expected)
        of_this_run, runs = 0, runs + 1
        shutil.rmtree(folder)
    return Row("SIGKILL at a random moment, then --resume: equal to the bit", good, kills, f"{runs} runs to the end")


def try_signals(place: Place) -> Row:
    """SIGTERM, SIGINT and SIGHUP save and stop; SIGUSR1 saves and goes on."""
    good, rng = 0, random.Random(2)
    kinds = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
    for number in range(place.tries):
        folder, kind = place.folder / "signalled", kinds[number % len(kinds)]
        shutil.rmtree(folder, ignore_errors=True)
        pid = start(place, folder, "log.save_every=1000", "eval.every=0", "schedule.iterations=100000")
        while logged(folder) < rng.randint(1, 5):
            time.sleep(0.02)
        os.kill(pid, kind)
        if kind == signal.SIGUSR1:
            deadline = time.monotonic() + 20
            while not RunFolder(folder).last.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            goes_on = os.waitpid(pid, os.WNOHANG)[0] == 0
            os.kill(pid, signal.SIGKILL)
            good += (
                wait(pid) == -signal.SIGKILL and goes_on and load_checkpoint(RunFolder(folder).last).progress.step > 0
            )
        else:
            code = wait(pid)
            good += code == 128 + kind and load_checkpoint(RunFolder(folder).last).progress.step == logged(folder)
    return Row("SIGTERM, SIGINT, SIGHUP save and stop; SIGUSR1 saves", good, place.tries, "exit code, step saved")


def try_disk(place: Place) -> Row:
    """A disk that is full at a random moment: one message, exit code 6, nothing left, resumable to the same bits."""
    expected, rng, good = unbroken(place), random.Random(3), 0
    whole = bytes_of(place.folder / "unbroken")
    as_root = os.geteuid() == 0
    for _ in range(place.tries):
        disk = place.folder / "disk"
        disk.mkdir(exist_ok=True)
        size = rng.randint(200_000, int(0.95 * whole))
        if as_root:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], check=True)
        code = wait(start(place, disk / "run", most=0 if as_root else rng.randint(1000, int(0.9 * whole / 4))))
        text = errors(place)
        said = "error: " in text and "Traceback" not in text and str(disk) in text
        clean = not list(disk.rglob("*partial*"))
        if as_root:
            subprocess.run(["mount", "-o", f"remount,size={4 * whole}", str(disk)], check=True)
        again = wait(start(place, disk / "run", "--resume"))
        same = again == 0 and content(disk / "run") == expected
        good += code == 6 and said and clean and same
        if not (code == 6 and said and clean and same):
            print("disk:", size, code, said, clean, again, same, text[-300:], file=sys.stderr)
        if as_root:
            subprocess.run(["umount", str(disk)], check=True)
        shutil.rmtree(disk)
    return Row("disk full at a random moment", good, place.tries, "tmpfs" if as_root else "RLIMIT_FSIZE")


def try_study(place: Place) -> Row:
    """A disk that is full at a random moment of a study: messages, no partial file, then the same numbers."""
    tries, rng, good, whole_study = max(2 * place.tries // 3, 1), random.Random(7), 0, place.folder / "study"
    if os.geteuid() != 0:
        return Row("disk full in a study", 0, 0, "needs root")
    (place.folder / "study.yaml").write_text(STUDY, encoding="utf-8")
    assert wait(start(place, whole_study, command="ablate")) == 0, errors(place)
    expected, whole = numbers(whole_study), bytes_of(whole_study)
    for _ in range(tries):
        disk, size = place.folder / "disk", rng.randint(300_000, int(0.9 * whole))
        disk.mkdir(exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], check=True)
        code = wait(start(place, disk / "s", command="ablate"))
        text = errors(place)
        clean = not list(disk.rglob("*partial*")) and "Traceback" not in text and "error: " in text
        subprocess.run(["mount", "-o", f"remount,size={4 * whole}", str(disk)], check=True)
        again = wait(start(place, disk / "s", "--resume", command="ablate"))
        same = again == 0 and numbers(disk / "s") == expected
        good += code in (6, 7) and clean and same
        if not (code in (6, 7) and clean and same):
            print("study:", size, code, clean, again, same, text[-600:], errors(place)[-600:], file=sys.stderr)
        subprocess.run(["umount", str(disk)], check=True)
        shutil.rmtree(disk)
    return Row("disk full in a study, then --resume: the same numbers", good, tries, "tmpfs; exit code 6 or 7")


def try_own(place: Place) -> Row:
    """Damaged checkpoints of this project."""
    unbroken(place)
    path, tries = place.folder / "own.pt", 20 * place.tries
    shutil.copyfile(place.folder / "unbroken/checkpoints/best.pt", path)
    good = count_refused(path, lambda file: load_checkpoint(file).model, tries, 4)
    return Row("own checkpoint with a flipped bit, a zeroed piece or a cut", good, tries, "refused or unharmed")


def try_foreign(place: Place) -> Row:
    """Damaged foreign weights with a checksum: torch's zip archives, and files with a hash in the name."""
    import hashlib

    state, tries = {f"layer.{i}.weight": torch.rand(64, 64) for i in range(4)}, 10 * place.tries
    zipped, legacy = place.folder / "a.pth", place.folder / "b.pth"
    torch.save(state, zipped)
    torch.save(state, legacy, _use_new_zipfile_serialization=False)
    named = legacy.rename(place.folder / f"b-{hashlib.sha256(legacy.read_bytes()).hexdigest()[:16]}.pth")
    good = sum(count_refused(path, lambda file: read_weights(file).tensors, tries, 5) for path in (zipped, named))
    return Row("foreign weights with a checksum, damaged likewise", good, 2 * tries, "zip CRC; hash in the name")


def try_fuzz(place: Place) -> Row:
    """Random changes of a config and of an annotation file: a message or a result, never a traceback."""
    rng, good, tries = random.Random(6), 0, 10 * place.tries
    coco = place.folder / "shapes/annotations/val.json"
    target = place.folder / "shapes/annotations/fuzz.json"
    for number in range(tries):
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(UserError):
                if number % 2:
                    path = place.folder / "fuzz.yaml"
                    path.write_bytes(changed(place.config.read_bytes(), yaml.safe_load(place.config.read_text()), rng))
                    load_config(path, [])
                else:
                    target.write_bytes(changed(coco.read_bytes(), json.loads(coco.read_bytes()), rng))
                    load_coco(target, place.folder / "shapes/val")
            good += 1
        except Exception:
            traceback.print_exc()
    return Row("configs and annotations changed at random", good, tries, "no traceback")


def try_soak(place: Place) -> Row:
    """A long run with evaluations: memory, open files and threads of the second fifth and of the last one."""
    folder, samples = place.folder / "soak", list[tuple[float, float, float]]()
    words = (f"schedule.iterations={place.steps}", "eval.every=250", "log.save_every=250", "log.every=20")
    pid = start(place, folder, *words)
    status = Path(f"/proc/{pid}/status")
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        fields = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines() if ":" in line)
        with contextlib.suppress(KeyError, FileNotFoundError):
            files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
            samples.append((int(fields["VmRSS"].split()[0]) / 1024, files, int(fields["Threads"])))
        time.sleep(1)
    fifth = max(len(samples) // 5, 1)
    early, late = (
        [statistics.median(column) for column in zip(*part)] for part in (samples[fifth : 2 * fifth], samples[-fifth:])
    )
    names = zip(("MiB", "files", "threads"), early, late, strict=True)
    flat = late[0] < 1.1 * early[0] and late[1] <= early[1] + 1 and late[2] <= early[2] + 1
    ended = logged(folder) == place.steps
    return Row(
        f"soak of {place.steps:,} steps",
        int(flat and ended),
        1,
        ", ".join(f"{a:.0f} to {b:.0f} {n}" for n, a, b in names),
    )


KINDS: dict[str, Callable[[Place], Row]] = {
    "kill": try_kill,
    "signals": try_signals,
    "disk": try_disk,
    "study": try_study,
    "own": try_own,
    "foreign": try_foreign,
    "fuzz": try_fuzz,
    "soak": try_soak,
}

if __name__ == "__main__":
    main()
