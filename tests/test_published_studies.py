"""The tables of README.md and RESULTS.md about losses are those of the cells that docs/studies publishes."""

import csv
import re
import statistics
from pathlib import Path

import pytest
from places import PROJECT

from retinanet.display.numbers import p_text, signed_points

FOLDER = PROJECT / "docs" / "studies"
P_VALUE = "p_images_and_seeds"
README_LEVELS = {"1 : 109": "common", "1 : 1,580": "rare", "1 : 13,696": "very-rare"}


def read_cells(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def aps_of(file: Path) -> dict[str, list[float]]:
    """AP of every arm's seeds on the test split, 0..1, by seed."""
    found: dict[str, list[float]] = {}
    for row in sorted(read_cells(file), key=lambda row: int(row["seed"])):
        if row["tuning"] == "no":
            found.setdefault(row["arm"], []).append(float(row["AP"]))
    return found


def mean_text(aps: list[float], *, deviation: bool = True) -> str:
    spread = f" ± {100 * statistics.stdev(aps):.1f}" if deviation else ""
    return f"{100 * statistics.mean(aps):.1f}{spread}"


def difference_text(aps: list[float], reference: list[float]) -> str:
    return signed_points(statistics.mean(a - b for a, b in zip(aps, reference, strict=True)))


def rows_of(document: str, heading: str, level: int = 2) -> list[list[str]]:
    """The cells of the table rows below a heading, up to the next one."""
    text = (PROJECT / document).read_text(encoding="utf-8")
    section = re.split(r"\n#+ ", text.split(f"\n{'#' * level} {heading}\n", 1)[1], maxsplit=1)[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


@pytest.mark.parametrize(
    "file",
    sorted(set(FOLDER.glob("*/*.csv")) - set(FOLDER.glob("*/primary.csv"))),
    ids=lambda file: f"{file.parent.name}/{file.stem}",
)
def test_every_finished_cell_has_the_hash_of_its_detections(file: Path) -> None:
    rows = read_cells(file)
    assert len(rows) > 20
    hashes = [row["detections_sha256"] for row in rows if row["status"] == "done"]
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in hashes)
    results = [row["detections_sha256"] for row in rows if row["status"] == "done" and row["tuning"] == "no"]
    assert len(set(results)) == len(results), "two trainings of a study have the same detections"


@pytest.mark.parametrize(("file", "column"), [("cells", 1), ("lr0.0025", 4)])
def test_the_results_of_the_papers_extremes_are_those_of_their_cells(file: str, column: int) -> None:
    rows = {cells[0]: cells for cells in rows_of("RESULTS.md", "The paper's Tables 1a and 1b in small", level=3)}
    arms: dict[str, list[dict[str, str]]] = {}
    for row in read_cells(FOLDER / "paper_1ab_small" / f"{file}.csv"):
        arms.setdefault(row["arm"], []).append(row)
    assert len(arms) == 12
    for arm, cells in arms.items():
        cells.sort(key=lambda row: int(row["seed"]))
        texts = [f"{100 * float(row['AP']):.1f}" if row["status"] == "done" else "-" for row in cells]
        assert rows[arm][column] == " ".join(texts)
        mean = rows[arm][{1: 3, 4: 5}[column]]
        assert mean == mean_text([float(row["AP"]) for row in cells], deviation=False)


def test_the_readmes_first_claim_is_what_was_measured() -> None:
    rows = {cells[0]: cells for cells in rows_of("README.md", "Compare losses") if cells[0] in README_LEVELS}
    assert rows.keys() == README_LEVELS.keys()
    primary = {row["level"]: row for row in read_cells(FOLDER / "rarity" / "primary.csv")}
    for ratio, level in README_LEVELS.items():
        aps = aps_of(FOLDER / "rarity" / f"{level}.csv")
        focal, other = aps["focal"], aps["cross entropy"]
        assert rows[ratio][1:3] == [mean_text(focal, deviation=False), mean_text(other, deviation=False)]
        found = primary[level.replace("-", " ")]
        low, high = (signed_points(float(found[name])) for name in ("low", "high"))
        assert rows[ratio][3:] == [f"{difference_text(other, focal)} [{low}, {high}]", p_text(float(found[P_VALUE]))]


def test_the_results_on_photographs_are_those_of_their_cells() -> None:
    aps = aps_of(FOLDER / "fod" / "cells.csv")
    rows = {cells[0]: cells for cells in rows_of("RESULTS.md", "The same on photographs of debris", level=3)}
    assert len(aps) == 5
    for arm, seeds in aps.items():
        assert rows[arm][1:3] == [mean_text(seeds), " ".join(f"{100 * ap:.1f}" for ap in seeds)]
        assert rows[arm][5].split(" ")[0] == ("reference" if arm == "focal" else difference_text(seeds, aps["focal"]))
    (primary,) = read_cells(FOLDER / "fod" / "primary.csv")
    low, high, worse = (f"{-100 * float(primary[name]):.1f}" for name in ("low", "high", "difference"))
    claim = f"behind by {worse} AP [{high}, {low}], p {p_text(float(primary[P_VALUE]))}"
    assert claim in " ".join((PROJECT / "README.md").read_text(encoding="utf-8").split())


def test_the_readme_has_the_differences_of_the_pilot() -> None:
    aps = [aps_of(FOLDER / "rarity" / f"pilot-{level}.csv") for level in README_LEVELS.values()]
    assert all(len(seeds) == 8 for arms in aps for seeds in arms.values())
    common, rare, very_rare = (difference_text(arms["cross entropy"], arms["focal"]) for arms in aps)
    text = " ".join((PROJECT / "README.md").read_text(encoding="utf-8").split())
    assert f"Eight other seeds repeat it: {common}, {rare} and {very_rare}." in text


def test_the_results_of_rarity_are_those_of_its_cells() -> None:
    rows = rows_of("RESULTS.md", "How rare must objects be before the loss matters?")
    checked = 0
    for level in README_LEVELS.values():
        aps = aps_of(FOLDER / "rarity" / f"{level}.csv")
        for arm, seeds in aps.items():
            (row,) = [cells for cells in rows if cells[:2] == [level.replace("-", " "), arm]]
            assert row[3:5] == [mean_text(seeds), " ".join(f"{100 * ap:.1f}" for ap in seeds)]
            assert row[7].split(" ")[0] == ("reference" if arm == "focal" else difference_text(seeds, aps["focal"]))
            checked += 1
    assert checked == 15
