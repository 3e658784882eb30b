"""Levels of a study: their configs, data and cells; grids with seeds of their own; grids that are widened."""

from collections.abc import Callable
from pathlib import Path

import pytest

from retinanet.ablation.ablate import show_plan
from retinanet.ablation.cells import (
    CellRecord,
    CellStatus,
    build_cell_config,
    cell_folder,
    chosen_lr,
    is_finished,
    is_ready,
    is_wanted,
    list_cells,
    read_record,
    search_lr,
    widened_rates,
    write_record,
)
from retinanet.ablation.forecast import plan_warnings
from retinanet.ablation.local import Slots
from retinanet.ablation.plan import build_pilot, load_pilot
from retinanet.ablation.report.collect import collect
from retinanet.ablation.study import Study, load_study
from retinanet.ablation.study_folder import make_data, take_tuning_cells
from retinanet.ablation.study_text import study_text
from retinanet.config.dump import dump_config
from retinanet.errors import ConfigError, ResourceError

STUDY = """
base: {base}
shapes: {{train: 6, val: 3, test: 3, size: [64, 64], object_sizes: [8, 20]}}
levels:
  - {{name: many, note: seven, shapes: {{objects: [2, 4], empty: 0.0}}}}
  - {{name: very few, shapes: {{objects: [1, 1], empty: 0.5, train: 9}}, overrides: {{schedule.iterations: 9}}}}
  - {{name: no flips, overrides: {{data: {{flip: 0.0, root: {folder}/elsewhere}}}}}}
overrides: {{data.root: {folder}/made}}
arms:
  - {{name: FL}}
  - {{name: CE, overrides: {{loss.classification.kind: cross_entropy}}}}
reference: FL
seeds: [3, 5]
budget: {{iterations: 4}}
lr: {{rule: grid, values: [0.1, 0.2], seeds: [100, 101]}}
test: {{annotations: annotations/test.json, images: test}}
primary: {{arm: CE, against: FL, level: many}}
score_thresholds: [0.001, 0.05]
output: {folder}/out
"""
Make = Callable[..., Study]


@pytest.fixture
def make(tmp_path: Path, tiny_yaml: Path) -> Make:
    def make(*changes: tuple[str, str], words: tuple[str, ...] = ()) -> Study:
        text = STUDY
        for was, becomes in changes:
            assert was in text
            text = text.replace(was, becomes)
        path = tmp_path / "study.yaml"
        path.write_text(text.format(base=tiny_yaml, folder=tmp_path), encoding="utf-8")
        return load_study(path, list(words))

    return make


def records_of(study: Study, aps: dict[float, float | None]) -> dict[str, CellRecord]:
    """Records of the first level's FL for each rate: its AP with both seeds, None for one that diverged."""
    found = {}
    for cell in list_cells(study):
        if cell.tuning and cell.arm == study.all_arms()[0] and cell.lr in aps:
            ap = aps[cell.lr]
            status = CellStatus.DIVERGED if ap is None else CellStatus.TUNED
            found[cell.name] = CellRecord(
                cell=cell.name, arm="FL", seed=cell.seed, lr=cell.lr, status=status, val_metrics={"AP": ap or 0.0}
            )
    return found


def test_a_level_is_the_base_with_its_own_data_and_overrides(make: Make, tmp_path: Path) -> None:
    study = make(words=("schedule.warmup=1",))
    many, few, flips = study.parts()
    assert [part.levels[0].slug for part in study.parts()] == ["many", "very-few", "no-flips"]
    roots = [Path(arm.config.data.root) for part in study.parts() for arm in part.arms]
    assert roots == [tmp_path / "made/many"] * 2 + [tmp_path / "made/very-few"] * 2 + [tmp_path / "elsewhere"] * 2
    assert [arm.config.schedule.iterations for arm in study.all_arms()] == [4, 4, 9, 9, 4, 4]
    assert [arm.config.data.flip for arm in flips.arms] == [0.0, 0.0]
    assert many.shapes is not None
    assert many.shapes.model_dump() == {
        "train": 6,
        "val": 3,
        "test": 3,
        "size": [64, 64],
        "seed": 0,
        "objects": [2, 4],
        "object_sizes": [8, 20],
        "empty": 0.0,
    }
    assert few.shapes is not None
    assert (few.shapes.train, few.shapes.val) == (9, 3)
    assert flips.shapes == study.shapes
    assert study.base_of(few.arms[1]) == few.base
    assert study.primary is not None
    assert (study.primary.level, study.score_thresholds, study.lr_seeds) == ("many", (0.001, 0.05), (100, 101))


def test_cells_are_named_by_level_and_the_text_loads_back(make: Make, tmp_path: Path) -> None:
    study = make()
    names = [cell.name for cell in list_cells(study)]
    assert len(names) == len(set(names)) == 3 * 2 * (2 * 2 + 2)
    assert names[:3] == ["many-FL-lr0.1-seed100", "many-FL-lr0.2-seed100", "many-CE-lr0.1-seed100"]
    assert names[-6:-3] == ["many-FL-seed5", "many-CE-seed5", "very-few-FL-seed5"]
    assert [cell.name for cell in list_cells(study.parts()[1])] == [name for name in names if "very-few" in name]
    (tmp_path / "again").mkdir()
    again = tmp_path / "again" / "study.yaml"
    again.write_text(study_text(study), encoding="utf-8")
    assert load_study(again) == study


def test_a_plan_concerns_the_whole_study_and_no_level_of_it(make: Make) -> None:
    study = make((", level: many}}", "}}"))
    assert "2 seeds and 3 primary comparisons" in plan_warnings(study)[0]
    assert not any("primary" in text for part in study.parts() for text in collect(part, study.folder).guards)


def test_tuning_cells_are_trained_once_for_a_study_and_its_pilot(make: Make) -> None:
    study = make()
    pilot = build_pilot(study)
    cells = {cell.name: cell for cell in list_cells(study)}
    names = ["many-FL-lr0.1-seed100", "many-FL-lr0.2-seed100", "many-CE-lr0.1-seed100", "many-CE-lr0.2-seed101"]
    for name, status in zip(names, ("tuned", "failed", "diverged", "tuned"), strict=True):
        cell = cells[name]
        assert cell.lr is not None
        record = CellRecord(cell=name, arm=cell.arm.name, seed=cell.seed, lr=cell.lr, status=CellStatus(status))
        write_record(study.folder, record)
        trained = build_cell_config(cell, cell.lr).model_copy(update={"threads": 3 if name == names[-1] else 1})
        (cell_folder(study, cell) / "config.yaml").write_text(dump_config(trained), encoding="utf-8")
    assert take_tuning_cells(pilot, study.folder) == 2
    assert take_tuning_cells(pilot, study.folder) == 0, "they are there"
    assert sorted(path.name for path in (pilot.folder / "cells").iterdir()) == [names[2], names[0]]
    assert read_record(pilot.folder, names[0]) == read_record(study.folder, names[0])
    blocked = pilot._replace(folder=study.folder.with_name("blocked"))
    blocked.folder.mkdir()
    (blocked.folder / "cells").write_text("a file", encoding="utf-8")
    with pytest.raises(ResourceError, match=r"many-FL-lr0\.1-seed100: cannot be copied from .*; free some space"):
        take_tuning_cells(blocked, study.folder)
    assert build_pilot(study, seeds=2).seeds == (1000, 1001)
    with pytest.raises(ConfigError, match="--pilot-seeds is 1; seeds differ only if there are two or more"):
        build_pilot(study, seeds=1)
    of_one_seed = make((", seeds: [100, 101]}}", "}}"))._replace(folder=study.folder.with_name("other"))
    assert take_tuning_cells(of_one_seed, study.folder) == 0, "such a cell may be a result"


def test_every_level_generates_its_own_data(make: Make) -> None:
    study = make(("  - {{name: no flips, overrides: {{data: {{flip: 0.0, root: {folder}/elsewhere}}}}}}\n", ""))
    make_data(study)
    counts = []
    for part in study.parts():
        images = list(Path(part.base.data.root, "train").iterdir())
        counts.append(len(images))
    assert counts == [6, 9]
    assert not Path(study.base.data.root, "annotations").exists(), "no level uses the study's own data"


def test_cells_of_the_grids_own_seeds_are_no_results(make: Make) -> None:
    study = make()
    records = records_of(study, {0.1: 0.3, 0.2: 0.4})
    cells = {cell.name: cell for cell in list_cells(study)}
    assert all(is_finished(study, cells[name], records) for name in records), "they are not measured on test"
    assert chosen_lr(study, study.all_arms()[0], records) == 0.2
    assert chosen_lr(study, study.all_arms()[2], records) is None, "the same arm of another level"
    assert is_ready(study, cells["many-FL-seed3"], records)
    assert not is_ready(study, cells["many-CE-seed3"], records)
    one_seed = {name: record for name, record in records.items() if not name.endswith("lr0.2-seed101")}
    assert chosen_lr(study, study.all_arms()[0], one_seed) is None


@pytest.mark.parametrize(
    ("aps", "tried", "chosen"),
    [
        ({}, (0.1, 0.2), None),
        ({0.1: 0.3, 0.2: 0.4}, (0.1, 0.2, 0.4), None),
        ({0.1: 0.3, 0.2: 0.4, 0.4: 0.1}, (0.1, 0.2, 0.4), 0.2),
        ({0.1: 0.3, 0.2: 0.4, 0.4: 0.5, 0.8: 0.6}, (0.1, 0.2, 0.4, 0.8), 0.8),
        ({0.1: 0.3, 0.2: 0.2, 0.05: 0.4, 0.025: None}, (0.025, 0.05, 0.1, 0.2), 0.05),
        ({0.1: None, 0.2: None, 0.05: 0.0, 0.025: 0.1}, (0.025, 0.05, 0.1, 0.2), 0.025),
        ({0.1: 0.3, 0.2: 0.3, 0.05: 0.1}, (0.05, 0.1, 0.2), 0.1),
    ],
)
def test_a_grid_is_widened_while_its_best_rate_is_at_an_end(
    make: Make, aps: dict[float, float | None], tried: tuple[float, ...], chosen: float | None
) -> None:
    study = make(("seeds: [100, 101]", "seeds: [100, 101], widen: 2"))
    assert widened_rates(study) == (0.025, 0.05, 0.1, 0.2, 0.4, 0.8)
    records = records_of(study, aps)
    search = search_lr(study, study.all_arms()[0], records)
    assert (search.tried, search.chosen) == (tried, chosen)
    for cell in list_cells(study):
        if cell.tuning and cell.arm == study.all_arms()[0]:
            assert is_wanted(study, cell, records) == (cell.lr in tried)
            assert is_ready(study, cell, records) == (cell.lr in tried and cell.name not in records)
            if cell.lr not in tried:
                assert is_finished(study, cell, records) == (chosen is not None)


@pytest.mark.parametrize(
    ("was", "becomes", "part"),
    [
        ("seeds: [100, 101]", "seeds: [5, 3]", "lr.seeds: 3, 5 are among `seeds` too"),
        ("arm: CE", "arm: EC", "primary.arm: 'EC' is no arm other than the reference; did you mean CE?"),
        ("against: FL", "against: CE", "primary.against: 'CE' is not the reference, FL"),
        ("level: many", "level: man", "primary.level: no level 'man'; did you mean many?"),
        ("name: very few", "name: MANY", "its files would be those of level many"),
        ("schedule.iterations: 9", "seed: 9", "level very few: seed: the study sets it"),
        ("schedule.iterations: 9", "schedule.lrr: 9", "level very few: schedule.lrr: unknown key"),
        ("train: 9}}", "tain: 9}}", "levels[1].shapes.tain: unknown key; did you mean levels[1].shapes.train?"),
        ("[0.001, 0.05]", "[0.05, 0.05]", "the same threshold twice"),
        ("empty: 0.5", "empty: 1.0", "empty: expected"),
    ],
)
def test_what_levels_and_comparisons_cannot_be_is_named(make: Make, was: str, becomes: str, part: str) -> None:
    with pytest.raises(ConfigError) as raised:
        make((was, becomes))
    lines = str(raised.value).splitlines()[1:]
    assert [line for line in lines if part in line], raised.value
    assert all("study.yaml:" in line for line in lines)


def test_a_rule_without_a_search_takes_no_seeds_of_its_own(make: Make) -> None:
    with pytest.raises(ConfigError, match="no learning rate is searched"):
        make(("lr: {{rule: grid, values: [0.1, 0.2], seeds: [100, 101]}}", "lr: {{widen: 1}}"))


def test_a_pilot_has_the_primary_arms_seeds_of_its_own_and_the_studys_search(make: Make, tmp_path: Path) -> None:
    study = make()
    pilot = build_pilot(study)
    tuning = [f"many-{arm}-lr{lr}-seed{seed}" for seed in (100, 101) for arm in ("FL", "CE") for lr in (0.1, 0.2)]
    results = [f"many-{arm}-seed{seed}" for seed in range(1000, 1004) for arm in ("FL", "CE")]
    assert [cell.name for cell in list_cells(pilot)] == tuning + results
    assert set(tuning) < {cell.name for cell in list_cells(study)}
    assert build_pilot(study, seeds=2).seeds == (1000, 1001)
    with pytest.raises(ConfigError, match="--pilot-seeds is 1; seeds differ only if there are two or more"):
        build_pilot(study, seeds=1)
    of_one_seed = make((", seeds: [100, 101]}}", "}}"))
    assert build_pilot(of_one_seed).lr_seeds == (3,)
    assert pilot.folder == tmp_path / "out-pilot"
    (tmp_path / "again").mkdir()
    again = tmp_path / "again" / "study.yaml"
    again.write_text(study_text(pilot), encoding="utf-8")
    assert [cell.name for cell in list_cells(load_study(again))] == [cell.name for cell in list_cells(pilot)]
    with pytest.raises(ConfigError, match="names no primary comparison"):
        build_pilot(make()._replace(primary=None))
    with pytest.raises(ConfigError, match="holds no study"):
        load_pilot(tmp_path / "nothing")
    with pytest.raises(ConfigError, match="holds no study"):
        show_plan(make(), Slots(1, ()), tmp_path / "nothing", None)
    assert not (tmp_path / "made").exists(), "no data is generated for a pilot that is not there"
