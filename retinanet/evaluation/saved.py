"""Loading a saved detector, and whether it fits a data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from retinanet import distributed
from retinanet.build.network import build_loss_and_model, prepare_torch
from retinanet.config.load import with_overrides
from retinanet.config.schema import Config
from retinanet.data.coco import CocoDataset
from retinanet.errors import DataError
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
    saved = open_checkpoint(Path(path))
    config = with_overrides(saved.config, overrides)
    prepare_torch(config)
    return prepare_detector(saved._replace(config=config), str(path))


def prepare_detector(saved: Checkpoint, source: str) -> SavedDetector:
    """The detector of a checkpoint on the device of its config; draws from torch's generator. source: names it."""
    config = saved.config
    device = distributed.choose_device(config.device, distributed.read_ranks())
    _, model = build_loss_and_model(config, len(saved.categories))
    load_weights(model, saved.weights(), source)
    detector = build_detector(config, model.to(device).eval(), device)
    return SavedDetector(detector=detector, config=config, categories=saved.categories, step=saved.progress.step)


def check_categories(known: tuple[Category, ...], dataset: CocoDataset, source: Path) -> None:
    """DataError if the classes of the data set differ from those that the checkpoint was trained on."""
    if known != dataset.categories:
        only_model = [f"{c.id} {c.name}" for c in known if c not in dataset.categories][:5]
        only_data = [f"{c.id} {c.name}" for c in dataset.categories if c not in known][:5]
        raise DataError(
            f"{dataset.annotation_file}: its categories differ from those of {source}: only in the checkpoint "
            f"{only_model}, only in the data {only_data}. Evaluate on data with the ids and names of the training data."
        )


def check_covers(known: tuple[Category, ...], dataset: CocoDataset, source: Path) -> int:
    """Number of classes that only the checkpoint knows; DataError if the data have one that it does not know.

    It may know more: torchvision's COCO models have outputs for ids that COCO does not use.
    """
    if not set(dataset.categories) <= set(known):
        check_categories(known, dataset, source)
    return len(known) - len(dataset.categories)
