"""A step that ended a run is kept and repeated, and the layer that made its numbers infinite is named."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from retinanet.config.schema import Config
from retinanet.diagnostics.replay import replay, report_replay, watching
from retinanet.errors import CheckpointError, NumericalError
from retinanet.run.failures import read_failure
from retinanet.training import step as engine_step
from retinanet.training.engine import run_training
from retinanet.training.state import TrainState


@pytest.fixture(scope="module")
def failed(tiny: Callable[..., Config], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose second update makes a weight of the class head enormous, but finite."""
    run, update = tmp_path_factory.mktemp("failed") / "run", engine_step.apply_gradients

    def explode(state: TrainState) -> None:
        update(state)
        if state.progress.step == 1:
            state.model.get_parameter("class_head.predict.weight").data.fill_(3e38)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_step, "apply_gradients", explode)
        with pytest.raises(NumericalError) as caught:
            run_training(tiny("schedule.iterations=4", "log.save_every=1"), run)
    assert re.search(r"step 3: the loss .* is in .*step-3: retinanet replay .*step-3\. Saved step 2", str(caught.value))
    return run


@pytest.mark.slow
def test_the_step_is_repeated_from_its_files(failed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = replay(read_failure(failed))
    assert result.forward is not None
    assert (result.forward.layer, result.forward.kind) == ("class_head.predict", "Conv2d")
    assert not result.bad_weights
    assert result.backward is None
    assert len(result.bad_image_ids) == 4
    report_replay(failed / "failures" / "step-3", [])
    shown = " ".join(capsys.readouterr().out.split())
    assert "ended with step 3: the loss is not finite" in shown
    assert re.search(r"forward class_head\.predict \(Conv2d\): [\d.]+% of its output is not finite", shown)


def test_a_folder_without_a_failed_step_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no failed step"):
        read_failure(tmp_path)


class Root(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.sqrt()


def test_the_first_layer_of_each_pass_is_named() -> None:
    """The square root of 0 is finite, its derivative is not."""
    network = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), Root(), nn.Linear(2, 1))
    network[0].weight.data.zero_()
    network[0].bias.data.zero_()
    with watching(network) as (forward, backward):
        network(torch.ones(1, 2)).sum().backward()
    assert not forward
    assert [finding.layer for finding in backward][:1] == ["2"]
    network[0].weight.data.fill_(3e38)
    with watching(network) as (forward, _):
        network(torch.full((1, 2), 10.0)).sum().backward()
    assert forward[0].layer == "0"
    assert forward[0].largest_input == 10.0
