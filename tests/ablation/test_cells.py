"""Cells: their order, configs and learning rates, and the studies that may continue in a folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retinanet.ablation.cells import (
    CellRecord,
    CellStatus,
    build_cell_config,
    chosen_lr,
    find_cell,
    is_finished,
    is_ready,
    list_cells,
    lr_slug,
    read_record,
    record_path,
    write_record,
)
from retinanet.ablation.claims import claimed
from retinanet.ablation.report.collect import collect
from retinanet.ablation.run_cell import training_seconds
from retinanet.ablation.study import Study, load_study
from retinanet.ablation.study_folder import prepare_study, study_file
from retinanet.config.dump import dump_config
from retinanet.errors import ConfigError, DataError, ResourceError

STUDY = """
base: {base}
arms:
  - {{name: FL, paper: {{AP: 34.0}}}}
  - {{name: CE, overrides: {{loss.classification.kind: cross_entropy}}}}
reference: FL
seeds: [3, 5]
budget: {{iterations: 4}}
output: {folder}/out
"""
GRID = "lr: {{rule: grid, values: [0.2, 0.1, 0.1]}}\ntest: {{annotations: annotations/train.json, images: train}}\n"
Make = Callable[..., Study]


@pytest.fixture
def make(tmp_path: Path, tiny_yaml: Path) -> Make:
    def make(extra: str = "", *overrides: str, text: str = STUDY) -> Study:
        path = tmp_path / "study.yaml"
        path.write_text((text + extra).format(base=tiny_yaml, folder=tmp_path), encoding="utf-8")
        return load_study(path, list(overrides))

    return make


def record(cell: str, status: str, ap: float = 0.0, test: bool = False) -> CellRecord:
    metrics = {"AP": ap}
    return CellRecord(
        cell=cell,
        arm="FL",
        seed=3,
        lr=0.1,
        status=CellStatus(status),
        val_metrics=metrics,
        test_metrics=metrics if test else {},
    )


def test_cells_go_seed_by_seed_through_the_arms(make: Make) -> None:
    cells = list_cells(make())
    assert [cell.name for cell in cells] == ["FL-seed3", "CE-seed3", "FL-seed5", "CE-seed5"]
    assert [cell.number for cell in cells] == [0, 1, 2, 3]
    config = build_cell_config(cells[3], cells[3].lr or 0)
    assert (config.seed, config.schedule.lr, config.schedule.iterations, config.output) == (5, 0.01, 4, None)
    assert config.loss.classification.kind == "cross_entropy"
    assert find_cell(cells, "2") == find_cell(cells, "FL-seed5") == cells[2]
    with pytest.raises(ConfigError, match=r"--cell 7: .* 0 FL-seed3"):
        find_cell(cells, "7")


def test_a_grid_is_tuned_with_the_first_seed(make: Make) -> None:
    cells = list_cells(make(GRID))
    tuning = ["FL-lr0.1-seed3", "FL-lr0.2-seed3", "CE-lr0.1-seed3", "CE-lr0.2-seed3"]
    assert [cell.name for cell in cells] == [*tuning, "FL-seed5", "CE-seed5"]
    assert [cell.lr for cell in cells] == [0.1, 0.2, 0.1, 0.2, None, None]
    assert len({lr_slug(lr) for lr in (1e5, 1e-5, 1e30, 1e-30, 0.1, 0.1000001)}) == 6


@pytest.mark.parametrize(
    ("first", "second", "chosen"),
    [
        (("tuned", 0.3), ("tuned", 0.4), 0.2),
        (("tuned", 0.4), ("tuned", 0.4), 0.1),
        (("tuned", 0.4), ("diverged", 0.9), 0.1),
        (("diverged", 0.0), ("tuned", 0.0), 0.2),
        (("diverged", 0.0), ("diverged", 0.0), 0.1),
        (("tuned", 0.3), ("failed", 0.0), None),
        (("tuned", 0.3), None, None),
    ],
)
def test_the_best_learning_rate_of_the_selection_split_is_chosen(
    make: Make, first: tuple[str, float], second: tuple[str, float] | None, chosen: float | None
) -> None:
    study = make(GRID)
    cells = list_cells(study)
    names = [cells[0].name, cells[1].name]
    found = {name: record(name, *given) for name, given in zip(names, (first, second), strict=True) if given}
    assert chosen_lr(study, study.arms[0], found) == chosen
    assert chosen_lr(study, study.arms[1], found) is None
    later = cells[4]
    assert is_ready(study, later, found) == (chosen is not None)
    for cell in cells[:2]:
        given = found.get(cell.name)
        to_measure = given is not None and given.status == "tuned" and cell.lr == chosen
        to_train = given is None or given.status == "failed"
        assert is_ready(study, cell, found) == (to_measure or to_train)
        if chosen is not None:
            assert is_finished(study, cell, found) == (not to_measure)


def test_finished_is_done_or_diverged(make: Make) -> None:
    study = make()
    cell = list_cells(study)[0]
    for status, finished in (("done", True), ("diverged", True), ("failed", False)):
        found = {cell.name: record(cell.name, status)}
        assert is_finished(study, cell, found) == finished
        assert is_ready(study, cell, found) == (not finished)


def test_a_record_reads_back_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    assert read_record(tmp_path, "a") is None
    write_record(tmp_path, record("a", "done", 0.5, test=True))
    assert read_record(tmp_path, "a") == record("a", "done", 0.5, test=True)
    text = record_path(tmp_path, "a").read_text(encoding="utf-8")
    for damaged in ('{"cell": 1}', "[1]", text.replace('"done"', '"gone"')):
        record_path(tmp_path, "a").write_text(damaged, encoding="utf-8")
        with pytest.raises(DataError, match="delete it to run the cell again"):
            read_record(tmp_path, "a")


def test_training_seconds_count_every_step_once() -> None:
    def row(step: int, speed: float | None) -> dict[str, Any]:
        return {"step": step, "clock": {"images_per_second": speed}}

    # 1 step at 4 s, 9 at 2 s, and after a resume 5 more at 1 s; batches of 8.
    assert training_seconds([row(1, 2.0), row(10, 4.0), row(15, 8.0)], 8) == 4 + 18 + 5
    assert training_seconds([row(1, None)], 8) == 0


def test_results_are_collected_in_order(make: Make) -> None:
    study = make(GRID)
    for name, status, ap in (("FL-lr0.1-seed3", "tuned", 0.3), ("FL-lr0.2-seed3", "done", 0.4)):
        write_record(study.folder, record(name, status, ap, test=status == "done")._replace(lr=float(name[5:8])))
    write_record(study.folder, record("CE-lr0.1-seed3", "failed")._replace(message="no disk"))
    result = collect(study, study.folder)
    assert [(cell.record.status, cell.tuning) for cell in result.cells] == [
        *(("done", True), ("done", False), ("failed", True), ("waiting", True), ("waiting", False), ("waiting", False))
    ]
    records = [cell.record for cell in result.cells]
    assert records[0].test_metrics == {}, "a rate that was not selected is not measured on test"
    assert (records[1].test_metrics, records[1].lr) == ({"AP": 0.4}, 0.2)
    assert (records[2].message, records[2].val_metrics) == ("no disk", {})
    assert (records[4].lr, records[5].lr) == (0.2, 0.0)
    assert result.arms[0].paper == {"AP": 34.0}
    assert result.arms[1].overrides_text == ("loss.classification.kind: cross_entropy",)
    assert "FL 0.2, CE not selected yet" in result.lr_rule_text
    assert any("0.2 is the largest of the grid" in guard for guard in result.guards)
    assert result.test_annotations.name == "train.json"


def test_a_folder_is_taken_until_resume_or_overwrite(make: Make) -> None:
    study = make()
    prepare_study(study, resume=False, overwrite=False)
    with pytest.raises(ConfigError, match="--resume"):
        prepare_study(study, resume=False, overwrite=False)
    prepare_study(study, resume=True, overwrite=False)
    write_record(study.folder, record("FL-seed3", "done"))
    (study.folder / "mine.txt").write_text("kept", encoding="utf-8")
    with claimed(study.folder, "FL-seed3"), pytest.raises(ResourceError, match="FL-seed3: process"):
        prepare_study(study, resume=False, overwrite=True)
    prepare_study(study, resume=False, overwrite=True)
    assert read_record(study.folder, "FL-seed3") is None
    assert (study.folder / "mine.txt").exists()


def test_a_study_may_grow_but_its_cells_may_not_change(make: Make) -> None:
    study = make()
    prepare_study(study, resume=False, overwrite=False)
    cell = list_cells(study)[0]
    folder = study.folder / "cells" / cell.name
    folder.mkdir()
    (folder / "config.yaml").write_text(dump_config(build_cell_config(cell, 0.01)), encoding="utf-8")
    arms = STUDY.replace("reference:", "  - {{name: more, overrides: {{loss.classification.gamma: 1.0}}}}\nreference:")
    grown = make("", text=arms)
    prepare_study(grown, resume=True, overwrite=False)
    assert load_study(study_file(study.folder)) == grown
    prepare_study(make("", "data.workers=1", "log.every=3", "device=auto"), resume=True, overwrite=False)
    with pytest.raises(ConfigError, match="2 errors") as raised:
        prepare_study(make("", "schedule.lr=0.02", "data.flip=0.1"), resume=True, overwrite=False)
    assert "cell FL-seed3: schedule.lr: was 0.01, now 0.02" in str(raised.value)
    write_record(study.folder, record(cell.name, "done", test=True)._replace(test_annotations="a", test_images="b"))
    with pytest.raises(ConfigError, match=r"cell FL-seed3: test: was a, b, now annotations/val\.json, val"):
        prepare_study(study, resume=True, overwrite=False)


def test_missing_data_is_reported_at_once(make: Make, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.root=PATH"):
        prepare_study(make("", f"data.root={tmp_path}/none"), resume=False, overwrite=False)
    with pytest.raises(DataError, match="2 errors") as raised:
        prepare_study(make("test: {{annotations: a.json, images: b}}\n"), resume=False, overwrite=False)
    assert "test.annotations: no file" in str(raised.value)
    assert not study_file(make().folder).exists()


def test_records_are_plain_json(tmp_path: Path) -> None:
    write_record(tmp_path, record("a", "diverged"))
    assert json.loads(record_path(tmp_path, "a").read_text(encoding="utf-8"))["status"] == "diverged"
