"""`retinanet.train`: a training that is started from Python."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.utils.deterministic

from retinanet.api.python_data import DetectionData, write_data
from retinanet.api.words import Overrides, override_words
from retinanet.config.load import config_name, load_config, with_values
from retinanet.config.shipped import find_config
from retinanet.errors import StoppedByCaller
from retinanet.evaluation.sources import print_source
from retinanet.run.folder import RunFolder
from retinanet.run.metric_rows import read_rows
from retinanet.scoring.eval_file import read_eval_file
from retinanet.training import engine


class TrainedRun(NamedTuple):
    """What a training has come to."""

    folder: Path
    """The run's folder."""
    best: Path | None
    """The checkpoint with the best AP, for `retinanet.load`; None before the first evaluation."""
    best_ap: float | None
    """AP of `best` on val, from 0 to 1, -1 if val has no objects."""
    metrics: dict[str, float]
    """The twelve COCO numbers of `best`, such as AP, AP50 and AR100; empty without an evaluation."""
    stopped: bool
    """Whether `on_row` stopped it."""

    @property
    def last(self) -> Path:
        """The checkpoint that `train(..., resume=True)` continues from."""
        return RunFolder(self.folder).last

    @property
    def detections(self) -> Path:
        """COCO results of `best` on val, for `retinanet.compare`."""
        return RunFolder(self.folder).detections

    def rows(self) -> list[dict[str, Any]]:
        """All rows of metrics.jsonl."""
        return read_rows(RunFolder(self.folder).metrics)


def train(
    config: str | Path,
    *,
    data: str | Path | DetectionData | tuple[DetectionData, DetectionData] | None = None,
    output: str | Path | None = None,
    overrides: Overrides = (),
    resume: bool = False,
    overwrite: bool = False,
    on_row: Callable[[dict[str, Any]], object] = lambda row: None,
) -> TrainedRun:
    """Train the detector that a config describes; as `retinanet train`, to its end or until it is stopped.

    config: a YAML file, or the name of one that ships with the project, such as "own" or "quickstart".
    data: a data set of one's own, as `data=PATH` on the command line; or an object with `categories`, `__len__` and
        `record(i)` (see `DetectionData`), a part `data.hold_out` of which is evaluated on; or two, (train, val). Such
        an object is read once, before the first step.
    output: folder of the run; None is config `output`, or runs/NAME.
    overrides: config keys to change: `{"schedule.epochs": 20}`, or words, `["schedule.epochs=20"]`. Tuples may be
        lists.
    resume: continue the run in `output`, if there is one. overwrite: start anew; the old run is deleted once the new
        one has a checkpoint.
    on_row: called in this thread with each row of metrics.jsonl ("kind" is "train", "eval" or "note"), once it is in
        the file. Where it returns False, and nothing else, the run stops after the next step, saves, and `train`
        returns a result with `stopped`; `resume=True` continues it. What it raises ends the run, without saving, and
        is passed on.

    In the main thread, SIGINT (Ctrl-C, or a notebook's stop button) and SIGTERM stop the run after saving, with
    Interrupted; in other threads no signal handlers are set. One training of a process at a time: torch's settings
    for repeatable numbers and its random numbers are set for the run, and restored.

    Raises what makes `retinanet train` exit with an error: ConfigError, DataError, CheckpointError, NumericalError and
    ResourceError, all of them UserError.
    """
    path = find_config(str(config))
    if data is None or isinstance(data, str | Path):
        resolved = load_config(path, override_words(overrides, data))
        print_source(resolved.data)
    else:
        resolved = load_config(path, override_words(overrides))
        train_data, val_data = data if isinstance(data, tuple) else (data, None)
        resolved = with_values(resolved, write_data(train_data, val_data, resolved.data.hold_out).keys())
    folder = Path(output or resolved.output or Path("runs") / config_name(path)).expanduser()
    stopped = False
    try:
        with torch_settings_restored():
            engine.run_training(resolved, folder, resume=resume, overwrite=overwrite, on_row=on_row)
    except StoppedByCaller as message:
        print(message, flush=True)
        stopped = True
    return read_run(folder, stopped=stopped)


def read_run(folder: Path, *, stopped: bool = False) -> TrainedRun:
    """The result of the run in a folder."""
    files = RunFolder(folder)
    metrics = read_eval_file(files.eval)["metrics"] if files.eval.is_file() else {}
    return TrainedRun(
        folder=folder,
        best=files.best if files.best.is_file() else None,
        best_ap=metrics.get("AP"),
        metrics=metrics,
        stopped=stopped,
    )


@contextmanager
def torch_settings_restored() -> Iterator[None]:
    """Leave torch's process-wide settings and its generator on the CPU as they were before this context."""
    threads, benchmark = torch.get_num_threads(), torch.backends.cudnn.benchmark
    tf32 = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    fills = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    deterministic = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    with torch.random.fork_rng(devices=[]):
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(deterministic, warn_only=warns)
            torch.utils.deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]
            torch.backends.cudnn.benchmark = benchmark
            torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = tf32
            torch.set_num_threads(threads)
