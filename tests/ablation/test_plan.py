"""`--plan` from end to end: a pilot that is trained, its plan, and the study that takes its tuning cells."""

import json
from pathlib import Path

import pytest

from retinanet.ablation import ablate, plan
from retinanet.ablation.cells import is_ready, list_cells, read_records
from retinanet.ablation.local import Slots, ThisMachine
from retinanet.ablation.run_cell import run_cell
from retinanet.ablation.study import Study, load_study
from retinanet.ablation.study_folder import prepare_study, take_tuning_cells

STUDY = """
base: {base}
overrides: {{log.pictures: 0, schedule.ema: 0.0}}
arms: [{{name: FL}}, {{name: CE, overrides: {{loss.classification.kind: cross_entropy}}}}]
reference: FL
seeds: [0, 1, 2]
budget: {{iterations: 2}}
lr: {{rule: grid, values: [0.001, 0.002], seeds: [100]}}
test: {{annotations: annotations/train.json, images: train}}
primary: {{arm: CE, against: FL}}
"""


def run_here(study: Study, placement: ThisMachine) -> None:
    """As `run_cells`, in this process."""
    cells = list_cells(study)
    while ready := [c for c in cells if is_ready(study, c, read_records(study.folder, [c.name for c in cells]))]:
        for cell in ready:
            run_cell(study, cell.name)


@pytest.mark.slow
def test_a_plan_is_made_from_a_pilot_at_the_rates_that_the_study_would_choose(
    tmp_path: Path, tiny_yaml: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(STUDY.format(base=tiny_yaml), encoding="utf-8")
    study = load_study(path, [f"output={tmp_path / 'out'}"])
    monkeypatch.setattr(ablate, "run_cells", run_here)
    ablate.show_plan(study, Slots(2, ()), None, None, seeds=2)
    assert "2 at a time" in capsys.readouterr().out
    (found,) = json.loads((study.folder / "plan.json").read_text(encoding="utf-8"))
    assert (found["pilot_seeds"], found["seeds"], found["cells"]) == (2, 3, 2 * 2 + 2 * 3)
    pilot = plan.build_pilot(study, seeds=2)
    records = read_records(pilot.folder, [cell.name for cell in list_cells(pilot)])
    assert len(records) == 2 * 2 + 2 * 2
    for arm in ("FL", "CE"):
        aps = {lr: records[f"{arm}-lr{lr}-seed100"].val_metrics["AP"] for lr in (0.001, 0.002)}
        best = min(lr for lr in aps if aps[lr] == max(aps.values()))
        assert {records[f"{arm}-seed{seed}"].lr for seed in (1000, 1001)} == {best}
    prepare_study(study, resume=True, overwrite=False)
    assert take_tuning_cells(study, pilot.folder) == 4
    taken = read_records(study.folder, [cell.name for cell in list_cells(study)])
    assert taken == {name: record for name, record in records.items() if "lr" in name}
