"""The input of the report, from the records in a study's folder."""

from pathlib import Path
from typing import NamedTuple

from retinanet.ablation.arms import override_lines
from retinanet.ablation.cells import (
    Cell,
    CellRecord,
    CellStatus,
    cell_folder,
    chosen_lr,
    is_final,
    is_finished,
    list_cells,
    lr_of,
    read_records,
)
from retinanet.ablation.guards import study_warnings
from retinanet.ablation.study import Study
from retinanet.config.dump import dump_config


class ArmInfo(NamedTuple):
    """One arm as the study file describes it."""

    name: str
    overrides_text: tuple[str, ...]
    """`key.path: value` of each setting of the arm on top of the base and the study's own overrides."""
    paper: dict[str, float]
    """The paper's numbers in points from 0 to 100, as it prints them, by name (AP, AP50, ...); may be empty."""
    note: str


class CellResult(NamedTuple):
    """One training of one arm with one learning rate and one seed."""

    record: CellRecord
    """An unfinished cell has status WAITING; lr is then 0 until it is selected. No record has status TUNED: a cell
    whose learning rate was not selected is DONE, without test metrics. A failed cell has no metrics."""
    folder: Path
    """The run folder: config.yaml, metrics.jsonl, checkpoints/, and test/{eval.json,detections.json} if done."""
    tuning: bool
    """True for a learning rate that the grid rule tried and did not select: no part of any comparison."""


class StudyResult(NamedTuple):
    """A study, finished or not."""

    title: str
    note: str
    reference: str
    """Name of the arm with which the others are compared."""
    arms: tuple[ArmInfo, ...]
    cells: tuple[CellResult, ...]
    """Every cell, including unfinished and tuning ones, in the study's order."""
    lr_rule_text: str
    """The learning-rate rule in a sentence, with the rate that it selected for each arm."""
    guards: tuple[str, ...]
    """Warnings for the reader."""
    test_annotations: Path
    test_images: Path
    max_detections: int
    """Detections of a class and image that count, of the base config."""
    base_text: str
    """The resolved base config, with the study's own overrides, as YAML."""
    machine: str
    """The machines of the cells: host, device, torch version."""


def collect(study: Study, folder: Path) -> StudyResult:
    """Everything that the study has measured so far in `folder`."""
    study = study._replace(folder=folder)
    cells = list_cells(study)
    records = read_records(folder, [cell.name for cell in cells])
    return StudyResult(
        title=study.title,
        note=study.note,
        reference=study.reference,
        arms=tuple(
            ArmInfo(name=arm.name, overrides_text=override_lines(arm.overrides), paper=arm.paper, note=arm.note)
            for arm in study.arms
        ),
        cells=tuple(_result(study, cell, records) for cell in cells),
        lr_rule_text=lr_rule_text(study, records),
        guards=all_warnings(study, records),
        test_annotations=study.splits().test,
        test_images=Path(study.base.data.root) / study.test[1],
        max_detections=study.base.eval.max_detections,
        base_text=dump_config(study.base),
        machine=_machines(records),
    )


def all_warnings(study: Study, records: dict[str, CellRecord]) -> tuple[str, ...]:
    """Warnings for readers about the study and the learning rates that its grid selected."""
    arms = {arm.name: arm.config for arm in study.arms}
    warnings = list(study_warnings(arms, study.seeds, study.lr_values, study.splits()))
    for arm in study.arms if study.lr_values else ():
        lr = chosen_lr(study, arm, records)
        if lr in (study.lr_values[0], study.lr_values[-1]):
            side = "largest" if lr == study.lr_values[-1] else "smallest"
            warnings.append(f"arm {arm.name}: the selected learning rate {lr:g} is the {side} of the grid: widen it")
    return tuple(warnings)


def lr_rule_text(study: Study, records: dict[str, CellRecord]) -> str:
    """The learning-rate rule in words, with the rates in use."""
    if study.lr_values:
        chosen = [(arm.name, chosen_lr(study, arm, records)) for arm in study.arms]
        rates = ", ".join(f"{name} {'not selected yet' if lr is None else f'{lr:g}'}" for name, lr in chosen)
        return (
            f"Every arm tried the peak learning rates {', '.join(f'{lr:g}' for lr in study.lr_values)} with seed "
            f"{study.seeds[0]} and kept the one with the best AP on {study.base.data.val_annotations}, of equal ones "
            f"the smallest; the test split has other images. Selected: {rates}. Test numbers are of the final weights."
        )
    rates_in_use = {arm.name: arm.config.schedule.lr for arm in study.arms}
    if len(set(rates_in_use.values())) == 1:
        rates = f"{next(iter(rates_in_use.values())):g}"
    else:
        rates = ", ".join(f"{name} {lr:g}" for name, lr in rates_in_use.items())
    return (
        f"No learning rate was searched: peak learning rate {rates}, the same schedule for every arm. Losses of "
        "different magnitude may favour different rates. Test numbers are of the final weights."
    )


def _result(study: Study, cell: Cell, records: dict[str, CellRecord]) -> CellResult:
    record = records.get(cell.name)
    if record is None:
        lr = lr_of(study, cell, records) or 0.0
        record = CellRecord(cell=cell.name, arm=cell.arm.name, seed=cell.seed, lr=lr, status=CellStatus.WAITING)
    elif record.status == CellStatus.TUNED:
        status = CellStatus.DONE if is_finished(study, cell, records) else CellStatus.WAITING
        record = record._replace(status=status)
    elif record.status == CellStatus.FAILED:
        record = record._replace(val_metrics={}, test_metrics={})
    return CellResult(
        record=record,
        folder=cell_folder(study, cell),
        tuning=not is_final(study, cell, records),
    )


def _machines(records: dict[str, CellRecord]) -> str:
    found = [f"{record.host}, {record.device}, torch {record.torch}" for record in records.values() if record.host]
    return "; ".join(dict.fromkeys(found)) or "nothing has run yet"
