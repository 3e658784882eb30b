"""Loading a saved detector, and whether it fits a data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from retinanet import distributed
from retinanet.build.network import build_loss_and_model, prepare_torch
from retinanet.config.load import with_overrides
from retinanet.config.schema import Config
from retinanet.data.categories import aligned
from retinanet.data.coco import CocoDataset
from retinanet.evaluation.detector import AnyDetector, Detector, build_detector
from retinanet.run.checkpoint import Checkpoint, load_weights
from retinanet.run.published import open_checkpoint
from retinanet.structures import Category


class LoadedDetector(Protocol):
    """What evaluation needs: a `SavedDetector`, or an exported file that has been loaded."""

    @property
    def detector(self) -> AnyDetector:
        """What detects."""

    @property
    def config(self) -> Config:
        """The config of its training, after overrides."""

    @property
    def categories(self) -> tuple[Category, ...]:
        """The classes that it knows."""

    @property
    def step(self) -> int:
        """The number of updates of its training."""


class SavedDetector(NamedTuple):
    """A checkpoint ready to detect, with its config after overrides and the classes it knows."""

    detector: Detector
    config: Config
    categories: tuple[Category, ...]
    step: int


def load_detector(path: Path | str, overrides: Sequence[str] = ()) -> SavedDetector:
    """Read a checkpoint onto the device of its config. `overrides` are key=value words for that config.

    path: checkpoint of a run (.pt), or file written by retinanet convert (.pt or .safetensors).
    """
    return ready_detector(open_checkpoint(Path(path)), str(path), overrides)


def ready_detector(saved: Checkpoint, source: str, overrides: Sequence[str]) -> SavedDetector:
    """The detector of a checkpoint after `overrides`, torch prepared for its config. source: names it."""
    config = with_overrides(saved.config, overrides)
    prepare_torch(config)
    return prepare_detector(saved._replace(config=config), source)


def prepare_detector(saved: Checkpoint, source: str) -> SavedDetector:
    """The detector of a checkpoint on the device of its config; draws from torch's generator. source: names it."""
    config = saved.config
    device = distributed.choose_device(config.device, distributed.read_ranks())
    _, model = build_loss_and_model(config, len(saved.categories))
    load_weights(model, saved.weights(), source)
    detector = build_detector(config, model.to(device).eval(), device)
    return SavedDetector(detector=detector, config=config, categories=saved.categories, step=saved.progress.step)


def covered(known: tuple[Category, ...], dataset: CocoDataset, source: Path) -> CocoDataset:
    """The data set, its classes those of the checkpoint; DataError if it has one that the checkpoint does not know.

    The checkpoint may know more: torchvision's COCO models have outputs for ids that COCO does not use.
    """
    return dataset if set(dataset.categories) <= set(known) else aligned(dataset, known, str(source))


def count_unlisted(known: tuple[Category, ...], dataset: CocoDataset) -> int:
    """Number of classes that only the checkpoint knows."""
    listed = {row["id"] for row in dataset.ground_truth["categories"]}
    return len(known) - sum(category.id in listed for category in dataset.categories)
