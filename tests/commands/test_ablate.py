"""The command `retinanet ablate`."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

Tool = Callable[..., tuple[int, str, str]]

STUDY = """
base: {base}
overrides: {{log.pictures: 0}}
arms:
  - {{name: FL}}
  - {{name: flat, overrides: {{loss.classification.gamma: 0.0}}}}
reference: FL
seeds: [0]
budget: {{iterations: 1}}
output: {output}
"""


@pytest.fixture
def study(tmp_path: Path, tiny_yaml: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(STUDY.format(base=tiny_yaml, output=tmp_path / "out"), encoding="utf-8")
    return path


def assert_fails(outcome: tuple[int, str, str], code: int, *parts: str) -> None:
    given, out, err = outcome
    assert given == code, err
    assert "Traceback" not in out + err
    assert err.count("error: ") == 1
    for part in parts:
        assert part in err


def test_help_names_every_way_to_run(tool: Tool) -> None:
    code, out, _ = tool("ablate.py", "--help")
    assert code == 0
    for option in (
        "--resume",
        "--overwrite",
        "--dry-run",
        "--report",
        "--cell",
        "--jobs",
        "--gpus",
        "--ray",
        "--cell-gpus",
    ):
        assert option in out


@pytest.mark.slow
def test_a_dry_run_lists_cells_warnings_and_hours_and_writes_nothing(
    tool: Tool, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    code, out, err = tool("ablate.py", study, "--dry-run")
    assert (code, err) == (0, "")
    for part in ("FL-seed0", "flat-seed0", "loss.classification.gamma: 0.0", "10.8 AP row", "1 seed:"):
        assert part in out
    # Some seconds; minutes on a busy machine.
    assert re.search(r"2 cells to run, 1 at a time: about (\d+s|\d+m\d\ds)\n", out)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_cells_one_by_one_as_a_cluster_runs_them(tool: Tool, study: Path, tmp_path: Path) -> None:
    for number in "01":
        code, out, err = tool("ablate.py", study, "--cell", number)
        assert (code, err) == (0, ""), err
        assert ": done" in out
    code, out, err = tool("ablate.py", study, "--cell", "FL-seed0")
    assert (code, err) == (0, "")
    assert "FL-seed0 is finished: done" in out
    assert_fails(tool("ablate.py", study), 2, "already holds a study", "--resume", "--overwrite")
    assert_fails(
        tool("ablate.py", study, "schedule.lr=0.5", "--resume"), 2, "cell FL-seed0: schedule.lr: was 0.01, now 0.5"
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["cells", "claims", "logs", "study.yaml"]
    # Nothing is left to run, so that no process is started and the report is written.
    code, out, err = tool("ablate.py", study, "--resume")
    assert (code, err) == (0, ""), err
    assert (tmp_path / "out" / "report.md").stat().st_size > 1000
    assert (tmp_path / "out" / "report.html").stat().st_size > 1000
    assert "start" not in out


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--report"], ["no study in"]),
        (["--cell", "nine"], ["--cell nine", "0 FL-seed0, 1 flat-seed0"]),
        (["--resume", "--overwrite"], ["exclude each other"]),
        (["--report", "--resume"], ["apply only to running a whole study"]),
        (["--plan", "--overwrite"], ["apply only to running a whole study"]),
        (["--plan", "--resume"], ["names no primary comparison"]),  # as the message of an interrupted pilot advises
        (["--pilot-seeds", "8"], ["apply only to --plan"]),
        (["--plan", "--pilot-seeds", "8", "--pilot", "runs"], ["--pilot-seeds applies to a pilot that is run"]),
        (["--jobs", "0"], ["--jobs 0"]),
        (["--gpus", "0,1", "--jobs", "1"], ["--jobs 1 --gpus 0,1"]),
        (["--ray", "auto", "--gpus", "0"], ["--gpus and --ray exclude each other"]),
        (["--ray", "auto", "--cell", "0"], ["--ray applies only to running a whole study"]),
        (["--ray", "auto", "--cell-gpus", "2"], ["--cell-gpus 2"]),
        (["--cell-gpus", "0.5"], ["--cell-gpus", "--ray ADDRESS"]),
        (["schedule.rate=1"], ["override 'schedule.rate=1'", "schedule.rate"]),
        (["--dry-run", "--report"], ["not allowed with"]),
    ],
)
def test_a_wrong_command_line_is_2(tool: Tool, study: Path, arguments: list[str], parts: list[str]) -> None:
    assert_fails(tool("ablate.py", study, *arguments), 2, *parts)


def test_missing_data_is_3(tool: Tool, study: Path) -> None:
    assert_fails(tool("ablate.py", study, "data.root=nowhere"), 3, "nowhere", "data.root=PATH")


def test_what_is_no_study_is_2(tool: Tool, study: Path) -> None:
    assert_fails(tool("ablate.py", "none.yaml"), 2, "no study none.yaml")
    study.write_text("arms: [", encoding="utf-8")
    assert_fails(tool("ablate.py", study), 2, "mine.yaml:1: not valid YAML")
