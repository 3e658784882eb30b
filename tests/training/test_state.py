"""The update of a step on the smallest network there is."""

import pytest
import torch
from torch import nn

from retinanet.run.checkpoint import Progress
from retinanet.training.moving_average import MovingAverage
from retinanet.training.state import TrainState, apply_gradients, clip_gradients


def linear_state(lr: float) -> TrainState:
    model = nn.Linear(2, 1, bias=False)
    nn.init.ones_(model.weight)
    average = MovingAverage(model, 0.9)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    return TrainState(model, model, average, optimizer, scaler, Progress(6, -1.0, 0, 0))


def test_an_update_clips_and_returns_the_norm_before() -> None:
    state = linear_state(lr=1.0)
    state.model.weight.grad = torch.tensor([[3.0, 4.0]])
    assert float(clip_gradients(state, clip_norm=0.5)) == pytest.approx(5.0)
    apply_gradients(state)
    torch.testing.assert_close(state.model.weight, torch.tensor([[0.7, 0.6]]))
    state.model.weight.grad = torch.tensor([[3.0, 4.0]])
    assert float(clip_gradients(state, clip_norm=None)) == pytest.approx(5.0)
    apply_gradients(state)
    torch.testing.assert_close(state.model.weight, torch.tensor([[-2.3, -3.4]]))


def test_the_moving_average_forgets_its_start() -> None:
    state = linear_state(lr=1.0)
    assert state.average is not None
    expected = None
    for count in range(1, 30):
        state.model.weight.grad = torch.tensor([[1.0, -1.0]])
        apply_gradients(state)
        value = state.model.weight.detach().double().clone()
        decay = min(0.9, (1 + count - 1) / (10 + count - 1))
        expected = value if expected is None else decay * expected + (1 - decay) * value
        torch.testing.assert_close(state.average.module.weight.double(), expected, atol=1e-4, rtol=1e-5)
