"""`--plan`: from a pilot of the primary comparison's two arms, what the study will be able to see, and its hours."""

from pathlib import Path

from rich.console import Console
from rich.table import Table

from retinanet.ablation.cells import CellStatus, list_cells, tuning_seeds
from retinanet.ablation.forecast import FILE_NAME, StudyForecast, forecast, pilot_folder, plan_warnings, write_plan
from retinanet.ablation.power import paired_spread
from retinanet.ablation.report.collect import CellResult, StudyResult, collect
from retinanet.ablation.report.data import MAIN_METRIC, gather
from retinanet.ablation.report.statistics import paired_differences
from retinanet.ablation.run_cell import training_seconds
from retinanet.ablation.study import Study, load_study
from retinanet.ablation.study_file import PrimaryKeys
from retinanet.ablation.study_folder import study_file
from retinanet.config.fields import known
from retinanet.display.console import format_seconds
from retinanet.errors import ConfigError
from retinanet.run.metric_rows import FILE_NAME as METRICS
from retinanet.run.metric_rows import read_rows

FIRST_PILOT_SEED = 1000
"""Of a pilot that the command runs, which counts on from here; no study's results should have these seeds."""
PILOT_SEEDS = 4
"""Number of them, unless another is asked for."""


def plan(study: Study, pilot: Study, difference: float | None, jobs: int) -> None:
    """Predict the primary comparison from a pilot's cells, print it, and write plan.json into the study's folder.

    difference: AP points to be found; None: those of the study. jobs: cells at a time. Raises ConfigError for a pilot
    without two seeds of both arms at every level.
    """
    primary = primary_of(study)
    wanted = (difference or primary.difference) / 100
    results = {part.level: part for part in (collect(part, pilot.folder) for part in pilot.parts())}
    forecasts = [
        _forecast_level(study, part, results, wanted)
        for part in study.parts()
        if primary.level in (None, part.levels[0].name if part.levels else "")
    ]
    write_plan(study.folder, forecasts)
    show_forecasts(study, forecasts, jobs)


def primary_of(study: Study) -> PrimaryKeys:
    """The primary comparison. Raises ConfigError for a study that names none."""
    if study.primary is None:
        raise ConfigError(
            "--plan: the study names no primary comparison; add `primary: {arm: ..., against: ...}` to its file."
        )
    return study.primary


def build_pilot(study: Study, seeds: int = PILOT_SEEDS) -> Study:
    """The study of the two primary arms with `seeds` seeds that no result has, in another folder (see `pilot_folder`).

    It chooses learning rates as the study does: at a rate that does not suit an arm, its seeds vary far more. Raises
    ConfigError for a study without a primary comparison, or fewer than two seeds.
    """
    primary = primary_of(study)
    if seeds < 2:
        raise ConfigError(f"--pilot-seeds is {seeds}; seeds differ only if there are two or more.")
    both = (primary.arm, primary.against)
    levels = tuple(
        level._replace(arms=tuple(arm for arm in level.arms if arm.name in both))
        for level in study.levels
        if primary.level in (None, level.name)
    )
    return study._replace(
        title=f"Pilot of {study.title}",
        arms=tuple(arm for arm in study.arms if arm.name in both),
        levels=levels,
        seeds=tuple(range(FIRST_PILOT_SEED, FIRST_PILOT_SEED + seeds)),
        lr_seeds=tuning_seeds(study) if study.lr_values else None,
        folder=pilot_folder(study),
    )


def load_pilot(folder: Path) -> Study:
    """The study in a folder. Raises ConfigError if there is none."""
    if not study_file(folder).is_file():
        raise ConfigError(f"--pilot {folder}: holds no study (no {study_file(folder).name}); give a study's folder.")
    return load_study(study_file(folder), [f"output={folder}"])


def _forecast_level(study: Study, part: Study, results: dict[str, StudyResult], wanted: float) -> StudyForecast:
    """The forecast of one level of the study from the pilot's level of that name."""
    primary = primary_of(study)
    level = part.levels[0].name if part.levels else ""
    result = results.get(level)
    if result is None:
        raise ConfigError(f"--pilot: the pilot has no level {level!r}; it has {', '.join(results)}.")
    both = (primary.arm, primary.against)
    two = result._replace(
        arms=tuple(arm for arm in result.arms if arm.name in both),
        cells=tuple(cell for cell in result.cells if cell.record.arm in both),
        reference=primary.against,
    )
    data = gather(two, threshold=study.score_thresholds[0] if study.score_thresholds else None)
    samples = {arm.info.name: arm.samples for arm in data.arms}
    arm, against = (samples.get(name) for name in both)
    shared = set(arm.seeds) & set(against.seeds) if arm is not None and against is not None else set()
    if arm is None or against is None or len(shared) < 2:
        where = f" at level {level}" if level else ""
        raise ConfigError(
            f"--plan: the pilot has {len(shared)} seeds of both {both[0]} and {both[1]}{where}; it needs two or more."
        )
    pairs = paired_differences(arm, against, MAIN_METRIC)
    spread = paired_spread(pairs.point_S, pairs.samples_SR)
    found = forecast((spread, float(pairs.point_S.mean()), len(shared)), study, wanted, level)
    done = [cell for cell in two.cells if cell.record.status == CellStatus.DONE]
    seconds = [cell_seconds(part, cell) for cell in done]
    cells = sum(cell.arm.level == level for cell in list_cells(study) if not cell.tuning or cell.lr in study.lr_values)
    return found._replace(cell_seconds=sum(seconds) / max(len(seconds), 1), cells=cells)


def cell_seconds(part: Study, cell: CellResult) -> float:
    """Seconds of the cell's training steps and evaluations on val, and of as many again as test has, from its log."""
    rows = read_rows(cell.folder / METRICS)
    trained = [row for row in rows if row["kind"] == "train"]
    evaluations = [float(row["clock"].get("seconds") or 0.0) for row in rows if row["kind"] == "eval"]
    return training_seconds(trained, known(part.base.schedule.batch_size)) + sum(evaluations)


def show_forecasts(study: Study, forecasts: list[StudyForecast], jobs: int) -> None:
    """Print the forecasts, the study's cells and hours, and warnings."""
    primary = primary_of(study)
    first = forecasts[0]
    table = Table(title=f"{primary.arm} against {primary.against}, AP points", title_justify="left")
    for column in ("level", "pilot", "sd, seeds", "sd, images", "width", "finds", f"seeds for {100 * first.wanted:g}"):
        table.add_column(column, justify="left" if column == "level" else "right")
    for one in forecasts:
        shared, own = one.spread.images_shared, one.spread.images_own
        images = (shared**2 + own**2 / one.seeds) ** 0.5
        table.add_row(
            one.level or "the only one",
            f"{100 * one.pilot_difference:+.1f} ({one.pilot_seeds} seeds)",
            f"{100 * one.spread.seeds:.2f}",
            f"{100 * images:.2f}",
            f"{100 * one.width:.1f}",
            f"{100 * one.detectable:.1f}",
            "none enough" if one.needed is None else str(one.needed),
        )
    Console().print(table)
    seconds = sum(one.cells * one.cell_seconds for one in forecasts)
    cells = sum(one.cells for one in forecasts)
    print(
        "sd, seeds: of paired differences between seeds; sd, images: of their mean over test images; width: of the "
        f"95 % interval with {first.seeds} seeds; finds: the smallest difference found with 80 % power after Holm over "
        f"{first.comparisons} comparison{'s' * (first.comparisons > 1)}\n"
        f"{cells} cells, about {format_seconds(seconds)} of training and validation; {jobs} at a time "
        f"{format_seconds(seconds / jobs)}; not included: rates beyond the grid, the test split, starting processes\n"
        f"plan: {study.folder / FILE_NAME}"
    )
    for one in forecasts:
        if one.spread.seeds == 0:
            where = f"level {one.level}: " if one.level else ""
            print(
                f"warning: {where}all seeds of the pilot have the same difference, so it predicts nothing", flush=True
            )
    for warning in plan_warnings(study):
        print(f"warning: {warning}", flush=True)
