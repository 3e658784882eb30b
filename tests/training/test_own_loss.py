"""A class loss in a user's file: it trains, its hash is kept, and a study has it as an arm."""

from pathlib import Path

import pytest

import retinanet
from retinanet.ablation.cells import CellStatus, list_cells, read_record
from retinanet.ablation.run_cell import run_cell
from retinanet.ablation.study import load_study
from retinanet.ablation.study_folder import check_cells, prepare_study, study_file
from retinanet.config.load import load_config
from retinanet.config.user_code import source_sha256
from retinanet.diagnostics.config_diff import read_config
from retinanet.run.checkpoint import load_checkpoint

SOURCE = """
import torch.nn.functional as F

def poly(logits, targets, *, epsilon: float = 1.0):
    p_t = (targets - (1 - logits.sigmoid())).abs()
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="none") + epsilon * (1 - p_t)

def mean(logits, targets):
    return F.binary_cross_entropy_with_logits(logits, targets)
"""


@pytest.fixture
def own_yaml(tiny_yaml: Path, tmp_path: Path) -> Path:
    """A config with a loss in a file next to it; the working folder is another one."""
    (tmp_path / "poly_losses.py").write_text(SOURCE, encoding="utf-8")
    path = tmp_path / "own.yaml"
    path.write_text(
        f"base: {tiny_yaml}\nschedule: {{iterations: 2}}\n"
        'loss: {classification: {kind: "poly_losses:poly", epsilon: 0.0}}\n',
        encoding="utf-8",
    )
    return path


def losses(run: retinanet.TrainedRun) -> list[float]:
    return [row["loss"] for row in run.rows() if row["kind"] == "train"]


@pytest.mark.slow
def test_a_users_loss_trains_and_its_checkpoint_runs_nothing(own_yaml: Path, tiny_yaml: Path, tmp_path: Path) -> None:
    source = own_yaml.parent / "poly_losses.py"
    run = retinanet.train(own_yaml, output=tmp_path / "own")
    same = retinanet.train(
        tiny_yaml,
        output=tmp_path / "same",
        overrides={"schedule.iterations": 2, "loss.classification.kind": "cross_entropy"},
    )
    assert losses(run) == pytest.approx(losses(same), rel=1e-5)
    assert run.best is not None
    saved = load_checkpoint(run.best).config.loss.classification
    assert saved.model_dump() == {
        "kind": "poly_losses:poly",
        "weight": 1.0,
        "source_sha256": source_sha256(source),
        "epsilon": 0.0,
    }
    # What evaluates or predicts neither needs the file nor runs it.
    source.write_text("raise SystemExit('run')", encoding="utf-8")
    assert retinanet.evaluate(run, output=tmp_path / "eval", report=False).ap == run.best_ap
    read_config(run.folder / "config.yaml")


@pytest.mark.slow
def test_a_run_is_not_continued_with_a_changed_loss(own_yaml: Path, tmp_path: Path) -> None:
    words = {"schedule.iterations": 2}
    retinanet.train(own_yaml, output=tmp_path / "own", overrides=words, on_row=lambda row: False)
    source = own_yaml.parent / "poly_losses.py"
    source.write_text(SOURCE + "\n", encoding="utf-8")
    with pytest.raises(retinanet.ConfigError, match=r"the file of poly_losses:poly has changed since .*last\.pt was"):
        retinanet.train(own_yaml, output=tmp_path / "own", overrides=words, resume=True)
    source.write_text(SOURCE, encoding="utf-8")
    assert not retinanet.train(own_yaml, output=tmp_path / "own", overrides=words, resume=True).stopped


def test_a_wrong_loss_ends_before_the_first_step(own_yaml: Path, tmp_path: Path) -> None:
    with pytest.raises(
        retinanet.ConfigError, match=r"loss\.classification: poly_losses:mean in .*poly_losses\.py: cann"
    ):
        retinanet.train(own_yaml, output=tmp_path / "wrong", overrides={"loss.classification.kind": "poly_losses:mean"})


@pytest.mark.slow
def test_a_study_has_it_as_an_arm(
    own_yaml: Path, tiny_yaml: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        f"""
base: {tiny_yaml}
arms:
  - {{name: focal}}
  - {{name: poly, overrides: {{loss.classification: {{kind: "poly_losses:poly", epsilon: 2.0}}}}}}
reference: focal
seeds: [0]
budget: {{iterations: 1}}
test: {{annotations: annotations/train.json, images: train}}
""",
        encoding="utf-8",
    )
    study = load_study(path, [f"output={tmp_path / 'out'}"])
    prepare_study(study, resume=False, overwrite=False)
    # As in the process of a cell, which reads the study from its folder.
    monkeypatch.chdir(tmp_path / "out")
    resolved = load_study(study_file(study.folder))
    assert resolved.arms[1].config.loss == study.arms[1].config.loss
    cell = next(cell for cell in list_cells(resolved) if cell.arm.name == "poly")
    run_cell(resolved, cell.name)
    record = read_record(study.folder, cell.name)
    assert record is not None
    assert record.status == CellStatus.DONE
    assert load_config(study.folder / "cells" / cell.name / "config.yaml", []).loss == resolved.arms[1].config.loss
    (own_yaml.parent / "poly_losses.py").write_text(SOURCE + "\n", encoding="utf-8")
    with pytest.raises(retinanet.ConfigError, match=r"cell poly-seed0: loss\.classification\.source_sha256: was"):
        check_cells(load_study(path, [f"output={tmp_path / 'out'}"]))
