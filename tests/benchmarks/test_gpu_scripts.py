"""The scripts for a GPU machine, rehearsed on the CPU at tiny sizes."""

from pathlib import Path

import pytest
import torch
from places import PROJECT

from benchmarks.gpu import facts, losses, numerics
from benchmarks.gpu.resume import compare
from retinanet.ablation.study import load_study
from retinanet.prepare.shapes import generate_shapes

GPU = PROJECT / "benchmarks" / "gpu"


def test_facts_name_every_requirement(capsys: pytest.CaptureFixture[str]) -> None:
    assert facts.main("cpu") == 0
    printed = capsys.readouterr().out
    assert {"torch", "filelock", "hotcoco"} <= set(facts.required_packages())
    assert all(f"{name} " in printed for name in facts.required_packages())


def test_facts_fail_where_a_requirement_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(facts, "release_of", lambda name: None if name == "filelock" else "1.0")
    assert facts.main("cpu") == 1
    assert "filelock MISSING" in capsys.readouterr().out


@pytest.mark.slow
def test_numerics_compare_the_cpu_with_itself(capsys: pytest.CaptureFixture[str]) -> None:
    allow = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    try:
        assert numerics.main("cpu") == 0
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = allow
        torch.use_deterministic_algorithms(False)
    printed = capsys.readouterr().out
    assert printed.endswith("ALL RIGHT\n")
    assert "BAD" not in printed
    assert "ohem_1_3: CPU and cpu, relative difference: loss_class 0.0e+00" in printed


def test_bad_checks_and_those_that_raise_are_counted_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    checks = numerics.Checks()
    checks.run("first", lambda: 1 / 0)
    checks.run("second", lambda: checks.check(False, "second: differs"))
    checks.run("third", lambda: checks.check(True, "third"))
    assert checks.bad == ["first: raised", "second: differs"]
    assert "ok   third" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.usefixtures("warm_python")
def test_losses_train_and_a_failed_one_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(PROJECT)
    data = tmp_path / "shapes"
    generate_shapes(data, train_images=8, val_images=2, size=(64, 64))
    assert losses.main("cpu", data, tmp_path / "runs", ["softmax_focal"]) == 0
    assert capsys.readouterr().out.startswith("ok   softmax_focal")
    assert losses.main("cpu", tmp_path / "nowhere", tmp_path / "runs", ["focal"]) == 1
    assert "BAD  focal" in (printed := capsys.readouterr().out)
    assert "nowhere" in printed
    first = tmp_path / "runs" / "softmax_focal"
    assert compare(first, first)[0], "what resume.py compares is there"


def test_all_kinds_of_class_losses_are_known() -> None:
    kinds = losses.all_kinds()
    assert len(kinds) == len(set(kinds)) == 12
    assert set(numerics.KINDS) < set(kinds)


@pytest.mark.parametrize(("name", "arms", "seeds"), [("study_bccd", 4, 5), ("study_small", 2, 2)])
def test_studies_can_be_read(name: str, arms: int, seeds: int) -> None:
    study = load_study(GPU / f"{name}.yaml", ["data.root=x", "model.backbone.weights=none"])
    assert len(study.arms) == arms
    assert len(study.seeds) == seeds


def test_the_scripts_call_files_that_exist() -> None:
    for script in GPU.glob("*.sh"):
        words = script.read_text(encoding="utf-8").split()
        modules = [word for word in words if word.startswith("benchmarks.gpu.")]
        files = [word for word in words if word.startswith(("benchmarks/", "tests/", "configs/")) and "." in word]
        for path in (*files, *(f"{module.replace('.', '/')}.py" for module in modules)):
            assert (PROJECT / path).is_file(), f"{script.name}: {path}"
