"""The actions of `retinanet ablate`: all cells, one cell, only the report, or only an estimate."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import assert_never

from retinanet import distributed
from retinanet.ablation.cells import list_cells, read_records
from retinanet.ablation.claims import ClaimTaken, claimed
from retinanet.ablation.cluster import Cluster, connected
from retinanet.ablation.estimate import show_cells, show_estimate
from retinanet.ablation.forecast import pilot_folder, plan_warnings
from retinanet.ablation.local import Slots, ThisMachine
from retinanet.ablation.placement import Placement
from retinanet.ablation.report.collect import all_warnings, collect
from retinanet.ablation.run_cell import run_cell
from retinanet.ablation.runner import CellsFailed, run_cells
from retinanet.ablation.study import Study
from retinanet.ablation.study_folder import check_cells, make_data, prepare_study, study_file, take_tuning_cells
from retinanet.errors import ConfigError


def run_all(study: Study, where: Slots | Cluster, *, resume: bool, overwrite: bool) -> None:
    """Run the unfinished cells, then write the report, even if cells failed.

    Raises as `connected`, `prepare_study` and `run_cells`; failed cells are named after the report is written.
    """
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other: give one of them.")
    try:
        with _placement(study, where) as placement:
            prepare_study(study, resume=resume, overwrite=overwrite)
            _take_tuning_cells(study, pilot_folder(study))
            show_warnings(study)
            run_cells(study, placement)
    except CellsFailed:
        report(study)
        raise
    report(study)


@contextmanager
def _placement(study: Study, where: Slots | Cluster) -> Iterator[Placement]:
    match where:
        case Slots():
            yield ThisMachine(study, where)
        case Cluster():
            with connected(study, where) as nodes:
                yield nodes
        case _:
            assert_never(where)


def run_one(study: Study, name_or_index: str) -> None:
    """Run one cell in this process, or in those of torchrun; creates the study's folder if it does not exist."""
    if distributed.read_ranks().is_main:
        prepare_study(study, resume=True, overwrite=False)
    run_cell(study, name_or_index)


def dry_run(study: Study, slots: Slots) -> None:
    """List the cells, print warnings and estimate the hours; writes nothing into the study's folder."""
    make_data(study)
    check_cells(study)
    records = read_records(study.folder, [cell.name for cell in list_cells(study)])
    show_cells(study, records)
    show_warnings(study)
    show_estimate(study, records, slots.jobs)


def show_plan(
    study: Study, slots: Slots, given: Path | None, difference: float | None, seeds: int | None = None
) -> None:
    """Predict the primary comparison from a pilot: the study in the folder `given`, else one that is run, or continued.

    seeds: of the pilot that is run; None: `plan.PILOT_SEEDS`.
    Raises as `plan`, `prepare_study` and `run_cells`.
    """
    from retinanet.ablation.plan import PILOT_SEEDS, build_pilot, load_pilot, plan, primary_of

    primary_of(study)
    pilot = build_pilot(study, PILOT_SEEDS if seeds is None else seeds) if given is None else load_pilot(given)
    make_data(study)
    if given is None:
        prepare_study(pilot, resume=True, overwrite=False)
        _take_tuning_cells(pilot, study.folder)
        run_cells(pilot, ThisMachine(pilot, slots))
    plan(study, pilot, difference, slots.jobs)


def _take_tuning_cells(study: Study, other: Path) -> None:
    taken = take_tuning_cells(study, other)
    if taken:
        print(f"{taken} tuning cells are taken from {other}, where they were trained", flush=True)


def report(study: Study) -> None:
    """Write the report of the finished cells, unless another process is writing it."""
    from retinanet.ablation.report.levels_report import write_levels_report
    from retinanet.ablation.report.report import write_study_report

    if not study_file(study.folder).exists():
        raise ConfigError(
            f"--report: there is no study in {study.folder}; run it first, or give its folder with output=PATH."
        )
    check_cells(study)
    try:
        with claimed(study.folder, "report"):
            if study.levels or study.primary is not None or study.score_thresholds:
                parts = [collect(part, study.folder) for part in study.parts()]
                write_levels_report(parts, study.folder, plan_warnings(study))
            else:
                write_study_report(collect(study, study.folder), study.folder)
    except ClaimTaken:
        print(f"another process is writing the report in {study.folder}", flush=True)
        return
    print(f"report: {study.folder / 'report.md'} and {study.folder / 'report.html'}", flush=True)


def show_warnings(study: Study) -> None:
    """Print the study's warnings."""
    for warning in (*all_warnings(study, {}), *plan_warnings(study)):
        print(f"warning: {warning}", flush=True)
