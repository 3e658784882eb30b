"""The detector that a command line names: a file, or a folder of a run."""

from pathlib import Path

from retinanet.commands.arguments import detector_path


def test_a_run_and_its_checkpoints_mean_the_best_one(tmp_path: Path) -> None:
    best = tmp_path / "run/checkpoints/best.pt"
    best.parent.mkdir(parents=True)
    assert detector_path(str(tmp_path / "run")) == tmp_path / "run", "a run without a checkpoint is left as it is"
    best.touch()
    for named in (tmp_path / "run", best.parent, best):
        assert detector_path(str(named)) == best
    for other in (tmp_path, tmp_path / "none.pt"):
        assert detector_path(str(other)) == other
