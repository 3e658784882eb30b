"""The actions of `retinanet ablate`: all cells, one cell, only the report, or only an estimate."""

from retinanet import distributed
from retinanet.ablation.cells import find_cell, list_cells, read_records
from retinanet.ablation.claims import held, take
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
    """Run the unfinished cells, then write the report, even if cells failed.

    Raises as `prepare` and `run_cells`; failed cells are named after the report is written.
    """
    if resume and overwrite:
        raise ConfigError("--resume and --overwrite exclude each other: give one of them.")
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
    """Raise ConfigError if a flag would be ignored."""
    if runs_no_study and for_a_study:
        raise ConfigError("--resume and --overwrite apply only to running a whole study: remove them here.")


def run_one(study: Study, name_or_index: str) -> None:
    """Run one cell in this process, or in those of torchrun; creates the study's folder if it does not exist."""
    find_cell(list_cells(study), name_or_index)
    if distributed.read_ranks().is_main:
        prepare(study, resume=True, overwrite=False)
    run_cell(study, name_or_index)


def dry_run(study: Study, jobs: int | None = None, gpus: tuple[str, ...] = ()) -> None:
    """List the cells, print warnings and estimate the hours; writes nothing into the study's folder."""
    slots = build_slots(study, jobs, gpus)
    make_data(study)
    check_cells(study)
    records = read_records(study.folder, [cell.name for cell in list_cells(study)])
    show_cells(study, records)
    show_warnings(study)
    show_estimate(study, records, slots.jobs)


def report(study: Study) -> None:
    """Write the report of the finished cells, unless another process is writing it."""
    from retinanet.ablation.report.report import write_study_report

    if not study_file(study.folder).exists():
        raise ConfigError(
            f"--report: there is no study in {study.folder}; run it first, or give its folder with output=PATH."
        )
    check_cells(study)
    claim = take(study.folder, "report")
    if claim is None:
        print(f"another process is writing the report in {study.folder}", flush=True)
        return
    with held(claim):
        write_study_report(collect(study, study.folder), study.folder)
    print(f"report: {study.folder / 'report.md'} and {study.folder / 'report.html'}", flush=True)


def show_warnings(study: Study) -> None:
    """Print the study's warnings."""
    for warning in all_warnings(study, {}):
        print(f"warning: {warning}", flush=True)
