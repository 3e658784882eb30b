"""The moving average against torch's own class, and what it costs a GPU."""

from collections.abc import Iterable

import pytest
import torch
from host_reads import HostReads, Operators
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from retinanet.training.moving_average import MovingAverage


def torchs_average(model: nn.Module, decay: float) -> AveragedModel:
    """The same average by torch's own class, tensor by tensor."""

    def update(averages: Iterable[Tensor], values: Iterable[Tensor], count: Tensor) -> None:
        share = 1.0 - min(decay, (1.0 + int(count)) / (10.0 + int(count)))
        for average, value in zip(averages, values, strict=True):
            if average.is_floating_point():
                average.lerp_(value, share)
            else:
                average.copy_(value)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)


def test_the_moving_average_has_the_bits_of_torchs_and_continues_its_checkpoints() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    ours, theirs = MovingAverage(model, 0.9), torchs_average(model, 0.9)
    for step in range(12):
        with torch.no_grad():
            for tensor in model.state_dict().values():
                tensor.add_(1 if tensor.dtype == torch.int64 else torch.randn(tensor.shape))
        if step == 6:
            ours = MovingAverage(model, 0.9)
            ours.load_state_dict(theirs.state_dict())
        ours.update_parameters(model)
        theirs.update_parameters(model)
        found, wanted = ours.state_dict(), theirs.state_dict()
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[name], wanted[name]) for name in wanted), step


@pytest.mark.parametrize("layers", [1, 4])
def test_the_moving_average_is_three_operators_and_waits_for_nothing(layers: int) -> None:
    model = nn.Sequential(*(nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)) for _ in range(layers)))
    average = MovingAverage(model, 0.9)
    average.update_parameters(model)
    with Operators() as called:
        average.update_parameters(model)
    assert sorted(called.names) == ["_foreach_copy_", "_foreach_lerp_", "fill_"]
    with HostReads() as reads:
        average.update_parameters(model)
    assert reads.found == []
