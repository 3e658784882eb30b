"""The exponential moving average of a network's weights (config `schedule.ema`)."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class MovingAverage(AveragedModel):
    """Exponential moving average of a network's weights and buffers with warm-up, without waiting for the device.

    The first update copies; update n + 1 has decay min(decay, (1 + n) / (10 + n)). Its state is AveragedModel's.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self.decay = decay
        self.updates = 0
        """`n_averaged` on the host."""

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Move the average towards `model`, which is on the same device; integers are copied."""
        share = 1.0 - min(self.decay, (1.0 + self.updates) / (10.0 + self.updates)) if self.updates else 1.0
        pairs = list(zip(tensors_of(self.module), tensors_of(model), strict=True))
        averaged = [pair for pair in pairs if pair[0].is_floating_point() and self.updates]
        copied = [pair for pair in pairs if not pair[0].is_floating_point() or not self.updates]
        for update, moved in ((partial(torch._foreach_lerp_, weight=share), averaged), (torch._foreach_copy_, copied)):
            if moved:
                averages, values = zip(*moved, strict=True)
                update(averages, values)
        self.updates += 1
        self.n_averaged.fill_(self.updates)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """As a module's, with the count of updates."""
        loaded = super().load_state_dict(state_dict, strict, assign)
        self.updates = int(self.n_averaged)
        return loaded


def tensors_of(model: nn.Module) -> list[Tensor]:
    """The parameters and buffers of a network, in its order."""
    return [*model.parameters(), *model.buffers()]
