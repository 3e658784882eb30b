"""The fixed parts of a step, from the config."""

import torch

from retinanet.build.losses import build_criterion
from retinanet.build.network import build_anchor_spec, build_channels_last, build_precision
from retinanet.build.rules import build_assign_rule, build_pixel_rule
from retinanet.config.schema import Config
from retinanet.distributed import Ranks
from retinanet.training.step import StepParts


def build_step_parts(config: Config, device: torch.device, ranks: Ranks) -> StepParts:
    """The step's values from the config."""
    return StepParts(
        anchors=build_anchor_spec(config.model),
        rule=build_assign_rule(config),
        criterion=build_criterion(config),
        normaliser=config.loss.normaliser,
        clip_norm=config.schedule.clip_norm,
        precision=build_precision(config, device),
        channels_last=build_channels_last(config.model, device, training=True),
        pixels=build_pixel_rule(config),
        seed=config.seed,
        device=device,
        ranks=ranks,
    )
