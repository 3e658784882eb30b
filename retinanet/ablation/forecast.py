"""plan.json: what `--plan` predicts of a study, and the warnings that follow from it."""

from pathlib import Path
from typing import Any, NamedTuple

from retinanet.ablation.power import PairedSpread, detectable_difference, predicted_width, seeds_needed
from retinanet.ablation.study import Study
from retinanet.errors import DataError
from retinanet.files import make_folder, read_json, write_json

FILE_NAME = "plan.json"


class StudyForecast(NamedTuple):
    """What a pilot predicts of the primary comparison at one level. AP is of 0..1."""

    level: str
    pilot_seeds: int
    pilot_difference: float
    spread: PairedSpread
    seeds: int
    """Seeds that the study has."""
    comparisons: int
    """Levels of the primary comparison, over which Holm corrects."""
    wanted: float
    """The difference that is to be found."""
    detectable: float
    """The smallest difference that the study finds with 80 % power."""
    needed: int | None
    """Seeds that find `wanted` with 80 % power; None if no number does, with these test images."""
    width: float
    """Of the 95 % interval over images and seeds."""
    cell_seconds: float
    """Mean of the pilot's cells."""
    cells: int
    """Of the study at this level, learning rates included."""


def forecast(pilot: tuple[PairedSpread, float, int], study: Study, wanted: float, level: str) -> StudyForecast:
    """The forecast of a level from the pilot's spread, difference and number of seeds, without times."""
    spread, difference, pilot_seeds = pilot
    comparisons, seeds = primary_comparisons(study), len(study.seeds)
    return StudyForecast(
        level=level,
        pilot_seeds=pilot_seeds,
        pilot_difference=difference,
        spread=spread,
        seeds=seeds,
        comparisons=comparisons,
        wanted=wanted,
        detectable=detectable_difference(spread.of_one_seed(seeds), seeds, comparisons),
        needed=seeds_needed(wanted, spread, comparisons),
        width=predicted_width(spread, seeds),
        cell_seconds=0.0,
        cells=0,
    )


def primary_comparisons(study: Study) -> int:
    """Number of tests of the primary comparison."""
    return len(study.parts()) if study.primary is not None and study.primary.level is None else 1


def pilot_folder(study: Study) -> Path:
    """Where `--plan` runs the pilot of a study."""
    return study.folder.with_name(f"{study.folder.name}-pilot")


def write_plan(folder: Path, forecasts: list[StudyForecast]) -> None:
    """Write plan.json into a study's folder. Raises ResourceError if it cannot."""
    make_folder(folder)
    rows = [one._asdict() | {"spread": one.spread._asdict()} for one in forecasts]
    write_json(folder / FILE_NAME, rows, indent=1)


def read_plan(folder: Path) -> list[StudyForecast]:
    """The forecasts of a study's plan.json; none without one. Raises DataError for a file that is not one."""
    path = folder / FILE_NAME
    if not path.exists():
        return []
    rows: Any = read_json(path)
    try:
        return [StudyForecast(**{**row, "spread": PairedSpread(**row["spread"])}) for row in rows]
    except (TypeError, KeyError) as error:
        raise DataError(f"{path}: not a plan ({error}); delete it, or write it anew with --plan.") from error


def plan_warnings(study: Study) -> list[str]:
    """Warnings of a study that cannot tell what it asks, by its plan; or that has a primary comparison and no plan."""
    primary = study.primary
    if primary is None:
        return []
    found = {one.level: one for one in read_plan(study.folder)}
    if not found:
        seeds, comparisons = len(study.seeds), primary_comparisons(study)
        limit = detectable_difference(1.0, seeds, comparisons)
        return [
            f"there is no plan: {seeds} seed{'s' * (seeds > 1)} and {comparisons} primary "
            f"comparison{'s' * (comparisons > 1)} find only differences of {limit:.1f} standard deviations (of paired "
            "differences between seeds) with 80 % power; --plan measures that deviation"
        ]
    warnings = []
    for one in found.values():
        detectable = detectable_difference(one.spread.of_one_seed(len(study.seeds)), len(study.seeds), one.comparisons)
        if 100 * detectable > primary.difference:
            where = f"level {one.level}: " if one.level else ""
            enough = "no number of seeds is enough" if one.needed is None else f"{one.needed} seeds are needed"
            warnings.append(
                f"{where}the study cannot tell what it asks: by its plan, {len(study.seeds)} seeds find differences of "
                f"{100 * detectable:.1f} AP with 80 % power; it asks for {primary.difference:g}, for which {enough}"
            )
    return warnings
