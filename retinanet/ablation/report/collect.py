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
    is_wanted,
    list_cells,
    lr_of,
    read_records,
    search_lr,
    tuning_seeds,
)
from retinanet.ablation.guards import study_warnings
from retinanet.ablation.study import Study
from retinanet.ablation.study_file import PrimaryKeys
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
    """The machines of the cells: device and torch version; names of hosts stay in the cells' records."""
    level: str = ""
    """Empty in a study without levels."""
    level_text: tuple[str, ...] = ()
    """`key.path: value` of each setting of the level, and its note."""
    thresholds: tuple[float, ...] = ()
    """Score thresholds at which test AP is measured, the main one first; empty: that of the detector."""
    primary: PrimaryKeys | None = None
    """The comparison that the study is made for."""
    rates_text: str = ""
    """The learning rate of each arm, if they were searched."""


def collect(study: Study, folder: Path) -> StudyResult:
    """Everything that a study without levels, or a part of one, has measured so far in `folder`."""
    study = study._replace(folder=folder)
    cells = list_cells(study)
    records = read_records(folder, [cell.name for cell in cells])
    cells = tuple(cell for cell in cells if is_wanted(study, cell, records))
    level = study.levels[0] if study.levels else None
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
        guards=tuple(all_warnings(study, records)),
        test_annotations=study.splits().test,
        test_images=Path(study.base.data.root) / study.test[1],
        max_detections=study.base.eval.max_detections,
        base_text=dump_config(study.base),
        machine=_machines(records),
        level="" if level is None else level.name,
        level_text=() if level is None else (*override_lines(level.overrides), *([level.note] if level.note else [])),
        thresholds=study.score_thresholds,
        primary=study.primary,
        rates_text=selected_rates_text(study, records) if study.lr_values else "",
    )


def all_warnings(study: Study, records: dict[str, CellRecord]) -> tuple[str, ...]:
    """Warnings for readers about the study and the learning rates that its grid selected."""
    warnings: list[str] = []
    for part in study.parts():
        arms = {arm.name: arm.config for arm in part.arms}
        warnings += study_warnings(arms, study.seeds, study.lr_values, part.splits())
        for arm in part.arms if study.lr_values else ():
            search = search_lr(study, arm, records)
            lr = search.chosen
            if lr is not None and lr in (search.tried[0], search.tried[-1]):
                side = "largest" if lr == search.tried[-1] else "smallest"
                where = f"level {arm.level}, arm {arm.name}" if arm.level else f"arm {arm.name}"
                warnings.append(f"{where}: the selected learning rate {lr:g} is the {side} of the grid: widen it")
    return tuple(dict.fromkeys(warnings))


def lr_rule_text(study: Study, records: dict[str, CellRecord]) -> str:
    """The learning-rate rule in words, with the rates in use."""
    if study.lr_values:
        return (
            f"{grid_rule_text(study)} Selected: {selected_rates_text(study, records)}. Test numbers are of the final "
            "weights."
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


def grid_rule_text(study: Study) -> str:
    """The rule `grid` in words."""
    seeds = tuning_seeds(study)
    with_seeds = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
    text = (
        f"Every arm tried the peak learning rates {', '.join(f'{lr:g}' for lr in study.lr_values)} with {with_seeds} "
        f"and kept the one with the best AP on {study.base.data.val_annotations}, of equal ones the smallest; the test "
        "split has other images."
    )
    if study.lr_seeds is not None:
        text += f" No result has {'these seeds' if len(seeds) > 1 else 'this seed'}."
    if study.lr_widen:
        text += (
            f" Where the best rate was the smallest or the largest tried, the next by the grid's own factor was tried "
            f"too, at most {study.lr_widen} at each end."
        )
    return text


def selected_rates_text(study: Study, records: dict[str, CellRecord]) -> str:
    """Each arm and the learning rate that the grid selected for it."""
    chosen = [(arm.name, chosen_lr(study, arm, records)) for arm in study.arms]
    return ", ".join(f"{name} {'not selected yet' if lr is None else f'{lr:g}'}" for name, lr in chosen)


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
    found = [f"{record.device}, torch {record.torch}" for record in records.values() if record.host]
    return "; ".join(dict.fromkeys(found)) or "nothing has run yet"
