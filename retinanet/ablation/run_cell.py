"""One cell in this process: start or continue its training, then measure the final weights on the test split."""

import json
import platform
import shutil
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import torch

from retinanet import distributed
from retinanet.ablation.cell_process import APPEARS_SECONDS, POLL_SECONDS, has_runner, stop_with_runner
from retinanet.ablation.cells import (
    Cell,
    CellRecord,
    CellStatus,
    build_cell_config,
    cell_folder,
    find_cell,
    is_finished,
    list_cells,
    lr_of,
    read_record,
    read_records,
    record_path,
    write_record,
)
from retinanet.ablation.claims import claimed
from retinanet.ablation.study import Study
from retinanet.config.fields import known
from retinanet.config.schema import Config
from retinanet.data.ground_truth import load_ground_truth
from retinanet.data.results import read_results
from retinanet.diagnostics.evaluate import evaluate_checkpoint
from retinanet.errors import ConfigError, Interrupted, NumericalError, ResourceError, judge
from retinanet.files import make_folder
from retinanet.run.metric_rows import FILE_NAME, mean_over_steps, read_rows
from retinanet.scoring.eval_file import read_eval_file
from retinanet.scoring.evaluation import above_score, coco_evaluation
from retinanet.training.engine import run_training


def run_cell(study: Study, name_or_index: str) -> None:
    """Train and measure one cell unless it is finished, and record the outcome.

    The folder must have been prepared. Under torchrun every rank calls this. A loss that is no longer finite is a
    result (`diverged`) and raises nothing. Raises ConfigError for a cell whose learning rate is not selected yet,
    ClaimTaken for one that another process is running, and the errors of training, after recording them.
    """
    cells = list_cells(study)
    cell = find_cell(cells, name_or_index)
    records = read_records(study.folder, [other.name for other in cells])
    if is_finished(study, cell, records):
        print(f"{cell.name} is finished: {records[cell.name].status}", flush=True)
        return
    lr = known_lr(study, cell)
    if not distributed.read_ranks().is_main:
        train_and_measure(study, cell, lr)
        return
    stop_with_runner()
    with claimed(study.folder, cell.name):
        run_claimed(study, cell, lr)


def run_claimed(study: Study, cell: Cell, lr: float) -> None:
    """`train_and_measure` in a process that has claimed the cell, with its record."""
    earlier = read_record(study.folder, cell.name)
    if earlier is not None and earlier.status in (CellStatus.DONE, CellStatus.DIVERGED):
        return
    if earlier is not None and earlier.status == CellStatus.FAILED:
        # The old message no longer holds, however this attempt ends.
        record_path(study.folder, cell.name).unlink()
    with _Recorder(study, cell, lr):
        outcome = train_and_measure(study, cell, lr)
        record = build_record(study, cell, lr, outcome)
        write_record(study.folder, record)
    print(f"{cell.name}: {record.status}", flush=True)


def known_lr(study: Study, cell: Cell) -> float:
    """The cell's learning rate. Raises ConfigError if it is not selected yet.

    A runner starts a cell only when its learning rate is selected, so that one that is missing will appear.
    """
    cells = list_cells(study)
    deadline = time.monotonic() + (APPEARS_SECONDS if has_runner() else 0.0)
    while True:
        lr = lr_of(study, cell, read_records(study.folder, [other.name for other in cells]))
        if lr is not None:
            return lr
        if time.monotonic() >= deadline:
            tuning = [other.name for other in cells if other.tuning and other.arm.name == cell.arm.name]
            raise ConfigError(
                f"--cell {cell.name}: first run the cells that select its learning rate: {', '.join(tuning)}"
            )
        time.sleep(POLL_SECONDS)


class Outcome(NamedTuple):
    """How a cell ended."""

    status: CellStatus
    message: str = ""
    test_metrics: dict[str, float] = {}  # noqa: RUF012 - a NamedTuple's default, never changed
    test_metrics_at: dict[str, dict[str, float]] = {}  # noqa: RUF012


class _Recorder:
    """Writes the record of a failed cell if an error leaves the block; interruptions are not recorded."""

    def __init__(self, study: Study, cell: Cell, lr: float) -> None:
        self.study, self.cell, self.lr = study, cell, lr

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or isinstance(error, Interrupted | KeyboardInterrupt | SystemExit | GeneratorExit):
            return
        verdict = judge(error)
        message = f"{type(error).__name__}: {error}" if verdict.is_bug else verdict.message.removeprefix("error: ")
        # On a full disk the record fails too, and the first error says more.
        with suppress(ResourceError):
            write_record(
                self.study.folder, build_record(self.study, self.cell, self.lr, Outcome(CellStatus.FAILED, message))
            )


def train_and_measure(study: Study, cell: Cell, lr: float) -> Outcome:
    """Train to the end and measure on test; a tuning cell that is selected is measured by a second call."""
    folder = cell_folder(study, cell)
    record = read_record(study.folder, cell.name)
    if record is None or record.status != CellStatus.TUNED:
        started = (folder / "config.yaml").exists() or (folder / "checkpoints" / "last.pt").exists()
        try:
            run_training(build_cell_config(cell, lr), folder, resume=started)
        except NumericalError as error:
            distributed.stop()
            return Outcome(CellStatus.DIVERGED, str(error))
        if cell.tuning:
            return Outcome(CellStatus.TUNED)
    base = study.base_of(cell.arm)
    metrics = measure_on_test(study, base, folder)
    if not study.score_thresholds or not metrics:
        return Outcome(CellStatus.DONE, test_metrics=metrics)
    at = metrics_at_thresholds(study, base, folder)
    return Outcome(CellStatus.DONE, test_metrics=at[str(study.score_thresholds[0])], test_metrics_at=at)


def metrics_at_thresholds(study: Study, base: Config, folder: Path) -> dict[str, dict[str, float]]:
    """Score threshold -> COCO metrics (0..1) of test/detections.json above it, for the study's thresholds.

    Equal to evaluations at each threshold (`above_score`).
    """
    truth = load_ground_truth(Path(base.data.root, study.test[0]))
    results = read_results(folder / "test" / "detections.json", truth)
    rule = base.eval
    found = {t: above_score(results, t) for t in study.score_thresholds}
    return {str(t): coco_evaluation(truth, rows, rule.engine, rule.max_detections).metrics for t, rows in found.items()}


def measure_on_test(study: Study, base: Config, folder: Path) -> dict[str, float]:
    """COCO metrics (0..1) of the final weights (checkpoints/last.pt; its moving average if there is one) on test.

    Writes test/eval.json and test/detections.json, of all detections above the lowest of the study's thresholds. base:
    the config that the arm starts from. Returns an empty dict on ranks other than the main one.
    """
    test, data, ranks = folder / "test", base.data, distributed.read_ranks()
    lowest = min(study.score_thresholds, default=base.eval.score_threshold)
    on_val = study.test == (data.val_annotations, data.val_images) and lowest == base.eval.score_threshold
    if ranks.world_size == 1 and on_val and _best_is_last(folder):
        make_folder(test)
        for name in ("detections.json", "eval.json"):
            shutil.copyfile(folder / name, test / name)
    else:
        words = [("data.root", data.root), ("data.val_annotations", study.test[0]), ("data.val_images", study.test[1])]
        overrides = [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in words]
        overrides += [f"device={base.device}", f"data.workers={data.workers}"]
        overrides += [f"eval.score_threshold={lowest}"] if study.score_thresholds else []
        evaluate_checkpoint(folder / "checkpoints" / "last.pt", overrides, test, report=False)
    if not ranks.is_main:
        return {}
    return {name: float(value) for name, value in read_eval_file(test / "eval.json")["metrics"].items()}


def _best_is_last(folder: Path) -> bool:
    """Whether eval.json, that of the best evaluation, is of the final weights."""
    evaluated = folder / "eval.json"
    last_step = read_rows(folder / FILE_NAME)[-1]["step"]
    return evaluated.exists() and bool(read_eval_file(evaluated)["step"] == last_step)


def build_record(study: Study, cell: Cell, lr: float, outcome: Outcome) -> CellRecord:
    """The outcome with the cell's numbers from metrics.jsonl and a description of this machine."""
    metrics = cell_folder(study, cell) / FILE_NAME
    rows = read_rows(metrics) if metrics.exists() else []
    evaluations = [row for row in rows if row["kind"] == "eval"]
    trained = [row for row in rows if row["kind"] == "train"]
    final = evaluations[-1] if evaluations and trained and evaluations[-1]["step"] == trained[-1]["step"] else {}
    base = study.base_of(cell.arm)
    cuda = torch.cuda.is_available() and base.device in ("auto", "cuda")
    return CellRecord(
        cell=cell.name,
        arm=cell.arm.name,
        seed=cell.seed,
        lr=lr,
        status=outcome.status,
        message=outcome.message,
        steps=trained[-1]["step"] if trained else 0,
        seconds=training_seconds(trained, known(base.schedule.batch_size)),
        memory_mb=max((row["clock"].get("memory_mb") or 0.0 for row in trained), default=0.0),
        val_metrics={k: v for k, v in final.items() if k not in ("kind", "step", "clock")},
        test_metrics=outcome.test_metrics,
        test_annotations=study.test[0],
        test_images=study.test[1],
        host=platform.node(),
        device=torch.cuda.get_device_name() if cuda else "cpu",
        torch=str(torch.__version__),
        level=cell.arm.level,
        positives_per_image=mean_over_steps(trained, "positives_per_image"),
        anchors_per_image=mean_over_steps(trained, "anchors_per_image"),
        logits_per_image=mean_over_steps(trained, "logits_per_image"),
        test_metrics_at=outcome.test_metrics_at,
    )


def training_seconds(rows: list[dict[str, Any]], batch_size: int) -> float:
    """Time of the training steps from metrics.jsonl's rows, each of which stands for the steps since the one before."""
    seconds, before = 0.0, 0
    for row in rows:
        speed = row["clock"].get("images_per_second")
        if speed:
            seconds += (row["step"] - before) * batch_size / speed
        before = row["step"]
    return seconds
