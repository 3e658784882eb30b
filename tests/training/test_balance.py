"""Class weights and repeated images in a training: numbers in its files, steps of an epoch, lines of the console."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from retinanet import distributed
from retinanet.config.load import load_config
from retinanet.config.schema import Config
from retinanet.data.coco import CocoDataset
from retinanet.errors import ConfigError
from retinanet.losses.class_weights import inverse_effective_number, inverse_frequency
from retinanet.run.checkpoint import load_checkpoint
from retinanet.run.metric_rows import read_rows
from retinanet.training.balance import (
    continue_class_weights,
    count_epoch,
    count_objects,
    describe_balance,
    resolve_class_weights,
)
from retinanet.training.batches import load_data
from retinanet.training.engine import run_training

Tiny = Callable[..., Config]


@pytest.fixture
def train_set(tiny: Tiny) -> CocoDataset:
    return load_data(tiny("data.limit=8"), distributed.read_ranks())[0]


def test_names_of_weights_become_numbers_of_the_training_set(tiny: Tiny, train_set: CocoDataset) -> None:
    objects = [sum((image.classes_G == k).sum() for image in train_set.images) for k in range(3)]
    assert count_objects(train_set) == objects
    inverse = resolve_class_weights(tiny("loss.class_weights=inverse_frequency"), train_set)
    assert inverse.loss.class_weights == inverse_frequency(objects)
    effective = tiny("loss.class_weights=effective_number", "loss.class_weights_beta=0.9")
    assert resolve_class_weights(effective, train_set).loss.class_weights == inverse_effective_number(objects, 0.9)
    for config in (inverse, tiny(), tiny("loss.class_weights=[1, 2, 0.5]")):
        assert resolve_class_weights(config, train_set) is config
    with pytest.raises(ConfigError, match=r"loss\.class_weights has 2 numbers, but .*train\.json has 3 classes"):
        resolve_class_weights(tiny("loss.class_weights=[1, 2]"), train_set)


def test_the_console_names_the_extremes(tiny: Tiny, train_set: CocoDataset) -> None:
    assert describe_balance(tiny(), train_set) == ""
    names = [category.name for category in train_set.categories]
    config = tiny("loss.class_weights=[3, 0.5, 1]", "data.repeat_threshold=1.0")
    repeats, weights = describe_balance(config, train_set).splitlines()
    assert weights == f"class weights: 0.5 ({names[1]}) to 3 ({names[0]})"
    assert f"{count_epoch(config, train_set)} an epoch instead of 8" in repeats
    assert "no image is repeated" in describe_balance(tiny("data.repeat_threshold=0.001"), train_set)


def test_a_name_stands_for_the_numbers_of_a_run(tiny: Tiny) -> None:
    """As the check of a study's finished cells needs it."""
    saved, named = tiny("loss.class_weights=[1, 2, 0.5]"), tiny("loss.class_weights=effective_number")
    assert continue_class_weights(named, saved) == saved
    for config in (tiny(), tiny("loss.class_weights=[3, 2, 1]")):
        assert continue_class_weights(config, saved) is config
    assert continue_class_weights(named, tiny()) is named


@pytest.mark.slow
def test_a_run_keeps_the_numbers_and_resumes_from_the_name(tiny: Tiny, tmp_path: Path) -> None:
    """An epoch has as many steps as the repeated images fill."""
    words = ("loss.class_weights=inverse_frequency", "data.repeat_threshold=1.0", "model.fpn.channels=8")
    once, twice = (tiny(*words, f"schedule.epochs={epochs}") for epochs in (1, 2))
    images = count_epoch(once, load_data(once, distributed.read_ranks())[0])
    assert images > 12
    run_training(once, tmp_path)
    saved = load_checkpoint(tmp_path / "checkpoints" / "best.pt")
    assert saved.progress.step == math.ceil(images / 4)
    assert isinstance(saved.config.loss.class_weights, tuple)
    assert load_config(tmp_path / "config.yaml", []) == saved.config
    run_training(twice, tmp_path, resume=True)
    assert read_rows(tmp_path / "metrics.jsonl")[-1]["step"] == math.ceil(2 * images / 4)
