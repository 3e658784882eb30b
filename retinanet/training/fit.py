"""`schedule.batch_size: auto`: the largest micro-batch that fits into the GPU, found by trying a whole step."""

from collections.abc import Callable, Sequence

import torch

from retinanet.build.rules import build_resize_rule
from retinanet.config.fields import known
from retinanet.config.schema import Config
from retinanet.data.coco import ImageRecord
from retinanet.data.transforms import ResizeRule
from retinanet.distributed import Ranks, largest_over_ranks
from retinanet.errors import ResourceError
from retinanet.run.interrupts import StopRequest
from retinanet.structures import Batch, Targets
from retinanet.training.parts import build_step_parts
from retinanet.training.state import build_state
from retinanet.training.step import train_step

RESERVE = 0.1
"""Part of the GPU's memory that a tried step must leave free: fragmentation, other canvases, gradient buckets."""
OBJECTS = 20
"""Boxes of each image of a tried step."""


def fit_accumulation(
    config: Config, records: Sequence[ImageRecord], classes: int, device: torch.device, ranks: Ranks
) -> Config:
    """The config with the fewest micro-batches whose steps fit into the GPU; on other devices unchanged.

    The effective batch stays the same, so only rounding depends on the outcome. records: the training images, whose
    largest canvas is tried. Raises ResourceError if not even one image fits. Changes the random state of torch.
    """
    if device.type != "cuda":
        return config
    batch = known(config.schedule.batch_size) // ranks.world_size
    canvas = largest_canvas(records, build_resize_rule(config))

    def fits(micro_batch: int) -> bool:
        return step_fits(config, classes, device, micro_batch, canvas)

    accumulation = fewest_parts(batch, config.schedule.accumulation, fits)
    if accumulation is None:
        raise ResourceError(
            f"schedule.batch_size: auto: not even one image of {canvas[0]} x {canvas[1]} pixels fits into the GPU; use "
            "a smaller data.shorter_side and data.longer_side, or a smaller model.backbone.name"
        )
    accumulation = largest_over_ranks(accumulation, device)
    return config.model_copy(update={"schedule": config.schedule.model_copy(update={"accumulation": accumulation})})


def fewest_parts(batch: int, least: int, fits: Callable[[int], bool]) -> int | None:
    """The smallest divisor p >= `least` of `batch` for which micro-batches of batch / p images fit; None if none does.

    fits: whether a micro-batch of that many images fits.
    """
    return next((p for p in range(least, batch + 1) if batch % p == 0 and fits(batch // p)), None)


def largest_canvas(records: Sequence[ImageRecord], rule: ResizeRule) -> tuple[int, int]:
    """(height, width) of the canvas with the most pixels that training images can have."""
    shorter = max(rule.shorter_side)
    canvases = (
        rule.image_canvas(rule.fitted(r.height, r.width, shorter), rule.aspect_bucket(r.height, r.width), shorter)
        for r in records
    )
    return max(canvases, key=lambda canvas: canvas[0] * canvas[1])


def step_fits(config: Config, classes: int, device: torch.device, micro_batch: int, canvas: tuple[int, int]) -> bool:
    """Whether a step of a new network on random images leaves RESERVE of the GPU's memory free."""
    alone = Ranks(rank=0, local_rank=0, world_size=1)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    try:
        state = build_state(config, classes, device, alone, load_weights=False)
        train_step(state, [random_batch(micro_batch, canvas)], build_step_parts(config, device, alone), StopRequest())
        used = torch.cuda.max_memory_reserved(device)
    except torch.cuda.OutOfMemoryError:
        return False
    finally:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    return used <= (1 - RESERVE) * torch.cuda.get_device_properties(device).total_memory


def random_batch(images: int, canvas: tuple[int, int]) -> Batch:
    """Noise with OBJECTS random boxes of class 0 in each image."""
    height, width = canvas
    targets = []
    for _ in range(images):
        corners_G22 = (torch.rand(OBJECTS, 2, 2) * torch.tensor([width, height])).sort(dim=1).values
        targets.append(
            Targets(corners_G22.reshape(OBJECTS, 4), torch.zeros(OBJECTS, dtype=torch.int64), torch.zeros(0, 4))
        )
    return Batch(
        images=torch.randint(0, 256, (images, 3, height, width), dtype=torch.uint8),
        sizes_B2=torch.tensor([canvas] * images),
        original_sizes_B2=torch.tensor([canvas] * images),
        image_ids_B=torch.arange(images),
        targets=targets,
    )
