"""What `retinanet ablate` does: all cells, one cell, only the report, or only an estimate."""

from retinanet import distributed
from retinanet.ablation.cells import find_cell, list_cells, read_records
from retinanet.ablation.claims import kept, take
from retinanet.ablation.estimate import show_cells, show_estimate
from retinanet.ablation.report.collect import all_warnings, collect
from retinanet.ablation.run_cell import run_cell
from retinanet.ablation.runner import CellsFailed, build_slots, run_cells
from retinanet.ablation.study import Study
from retinanet.ablation.study_folder import check_cells, make_data, prepare, study_file
from retinanet.errors import ConfigError


def run_all(
    study: Study, *, resume: bool, overwrite: bool, jobs: int | None = None, gpus: tuple[str, ...] = ()
) -> None:
    """Run what is unfinished, then write the report, also where cells failed.

    Raises as `prepare` and `run_cells`; the cells that failed are named after the report is written.
    """
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite: give one of them.")
    slots = build_slots(study, jobs, gpus)
    prepare(study, resume=resume, overwrite=overwrite)
    show_warnings(study)
    try:
        run_cells(study, slots)
    except CellsFailed:
        report(study)
        raise
    report(study)


def check_flags(runs_no_study: bool, for_a_study: bool) -> None:
    """ConfigError where a flag would be ignored."""
    if runs_no_study and for_a_study:
        raise ConfigError("--resume and --overwrite belong to running a study: leave them out here.")


def run_one(study: Study, name_or_index: str) -> None:
    """Run one cell in this process, or in those of torchrun; the study's folder is made where it is not there."""
    find_cell(list_cells(study), name_or_index)
    if distributed.read_ranks().is_main:
        prepare(study, resume=True, overwrite=False)
    run_cell(study, name_or_index)


def dry_run(study: Study, jobs: int | None = None, gpus: tuple[str, ...] = ()) -> None:
    """List the cells, warn, and estimate the hours; nothing is written into the study's folder."""
    slots = build_slots(study, jobs, gpus)
    make_data(study)
    check_cells(study)
    records = read_records(study.folder, [cell.name for cell in list_cells(study)])
    show_cells(study, records)
    show_warnings(study)
    show_estimate(study, records, slots.jobs)


def report(study: Study) -> None:
    """Write the report of what is finished, unless another process is just writing it."""
    from retinanet.ablation.report.report import write_report

    if not study_file(study.folder).exists():
        raise ConfigError(f"--report: there is no study in {study.folder}; run it first, or give its output=PATH.")
    check_cells(study)
    claim = take(study.folder, "report")
    if claim is None:
        print(f"another process is writing the report in {study.folder}", flush=True)
        return
    with kept(claim):
        write_report(collect(study, study.folder), study.folder)
    print(f"report: {study.folder / 'report.md'} and {study.folder / 'report.html'}", flush=True)


def show_warnings(study: Study) -> None:
    for warning in all_warnings(study, {}):
        print(f"warning: {warning}", flush=True)
