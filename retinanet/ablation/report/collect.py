"""From the records of a study's folder to what the report reads."""

from pathlib import Path
from typing import NamedTuple

from retinanet.ablation.cells import (
    DONE,
    FAILED,
    TUNED,
    Cell,
    CellRecord,
    cell_folder,
    chosen_lr,
    is_final,
    is_finished,
    list_cells,
    lr_of,
    read_records,
)
from retinanet.ablation.guards import study_warnings
from retinanet.ablation.study import Study, override_lines
from retinanet.config.dump import dump_config


class ArmInfo(NamedTuple):
    """One arm as the study file describes it."""

    name: str
    overrides_text: tuple[str, ...]
    """`key.path: value`, one a line, of what the arm sets on top of the base and the study's own overrides."""
    paper: dict[str, float]
    """The paper's own numbers, in points from 0 to 100 as it prints them, by name (AP, AP50, ...); may be empty."""
    note: str


class CellResult(NamedTuple):
    """One training of one arm with one learning rate and one seed."""

    arm: str
    lr: float
    seed: int
    folder: Path
    """The run folder: config.yaml, metrics.jsonl, checkpoints/, and test/{eval.json,detections.json} if done."""
    status: str
    """done, diverged, failed, or waiting (not finished yet)."""
    message: str
    """Why it diverged or failed; empty where it is done."""
    seconds: float
    """Training time, summed over interruptions, without validation and test."""
    test_metrics: dict[str, float]
    """The COCO numbers on the test split, 0 to 1, with the final weights; empty unless done."""
    val_metrics: dict[str, float]
    """The COCO numbers on the config's val split, with the final weights; empty unless done."""
    tuning: bool
    """True for a learning rate that the grid rule tried and did not choose: no part of any comparison."""


class StudyResult(NamedTuple):
    """A study, finished or not."""

    title: str
    note: str
    reference: str
    """Name of the arm that the others are compared with."""
    arms: tuple[ArmInfo, ...]
    cells: tuple[CellResult, ...]
    """Every cell, unfinished and tuning ones too, in the study's order."""
    lr_rule_text: str
    """The learning-rate rule in a sentence, with what it chose for each arm."""
    guards: tuple[str, ...]
    """What a reader is warned of."""
    test_annotations: Path
    test_images: Path
    base_text: str
    """The resolved base config, with the study's own overrides, as YAML."""
    machine: str
    """Where the cells ran: host, device, torch version."""


WAITING = "waiting"


def collect(study: Study, folder: Path) -> StudyResult:
    """Everything the study has measured so far in `folder`."""
    study = study._replace(folder=folder)
    cells = list_cells(study)
    records = read_records(folder, [cell.name for cell in cells])
    return StudyResult(
        title=study.title,
        note=study.note,
        reference=study.reference,
        arms=tuple(ArmInfo(arm.name, override_lines(arm.overrides), arm.paper, arm.note) for arm in study.arms),
        cells=tuple(_result(study, cell, records) for cell in cells),
        lr_rule_text=lr_rule_text(study, records),
        guards=all_warnings(study, records),
        test_annotations=study.splits().test,
        test_images=Path(study.base.data.root) / study.test[1],
        base_text=dump_config(study.base),
        machine=_machines(records),
    )


def all_warnings(study: Study, records: dict[str, CellRecord]) -> tuple[str, ...]:
    """What a reader must know of the study, and of the learning rates that its grid chose."""
    arms = {arm.name: arm.config for arm in study.arms}
    warnings = list(study_warnings(arms, study.seeds, study.lr_values, study.splits()))
    for arm in study.arms if study.lr_values else ():
        lr = chosen_lr(study, arm, records)
        if lr in (study.lr_values[0], study.lr_values[-1]):
            side = "largest" if lr == study.lr_values[-1] else "smallest"
            warnings.append(f"arm {arm.name}: the chosen learning rate {lr:g} is the {side} of the grid: widen it")
    return tuple(warnings)


def lr_rule_text(study: Study, records: dict[str, CellRecord]) -> str:
    """The learning-rate rule in words, with the rates in use."""
    if study.lr_values:
        chosen = [(arm.name, chosen_lr(study, arm, records)) for arm in study.arms]
        rates = ", ".join(f"{name} {'not chosen yet' if lr is None else f'{lr:g}'}" for name, lr in chosen)
        return (
            f"Every arm tried the peak learning rates {', '.join(f'{lr:g}' for lr in study.lr_values)} with seed "
            f"{study.seeds[0]} and kept the one with the best AP on {study.base.data.val_annotations}, ties to the "
            f"smaller; the test split is another. Chosen: {rates}. Test numbers are of the final weights."
        )
    rates_in_use = {arm.name: arm.config.schedule.lr for arm in study.arms}
    if len(set(rates_in_use.values())) == 1:
        rates = f"{next(iter(rates_in_use.values())):g}"
    else:
        rates = ", ".join(f"{name} {lr:g}" for name, lr in rates_in_use.items())
    return (
        f"No learning rate was searched: peak learning rate {rates}, the same schedule for every arm. Losses of "
        "another magnitude may favour another rate. Test numbers are of the final weights."
    )


def _result(study: Study, cell: Cell, records: dict[str, CellRecord]) -> CellResult:
    record = records.get(cell.name)
    folder = cell_folder(study, cell)
    lr = lr_of(study, cell, records)
    if record is None:
        return CellResult(cell.arm.name, lr or 0.0, cell.seed, folder, WAITING, "", 0.0, {}, {}, cell.tuning)
    finished = is_finished(study, cell, records)
    status = record.status
    if status == TUNED:
        status = DONE if finished else WAITING
    return CellResult(
        arm=cell.arm.name,
        lr=record.lr,
        seed=cell.seed,
        folder=folder,
        status=status,
        message=record.message,
        seconds=record.seconds,
        test_metrics=record.test_metrics if record.status == DONE else {},
        val_metrics=record.val_metrics if status != FAILED else {},
        tuning=not is_final(study, cell, records),
    )


def _machines(records: dict[str, CellRecord]) -> str:
    found = [f"{record.host}, {record.device}, torch {record.torch}" for record in records.values() if record.host]
    return "; ".join(dict.fromkeys(found)) or "nothing has run yet"
