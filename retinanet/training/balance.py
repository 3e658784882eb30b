"""What a training does about rare classes: weights of the class loss, and images that are repeated."""

import numpy as np

from retinanet.config.schema import Config
from retinanet.data.coco import CocoDataset
from retinanet.data.repeats import class_factors, epoch_images
from retinanet.errors import ConfigError
from retinanet.losses.class_weights import inverse_effective_number, inverse_frequency


def resolve_class_weights(config: Config, train_set: CocoDataset) -> Config:
    """The config with numbers for `loss.class_weights`, from the objects of the training set (crowds do not count).

    Raises ConfigError for numbers that are not one for each class.
    """
    loss, classes = config.loss, len(train_set.categories)
    if loss.class_weights is None:
        return config
    objects_K = count_objects(train_set)
    if loss.class_weights == "inverse_frequency":
        weights_K = inverse_frequency(objects_K)
    elif loss.class_weights == "effective_number":
        weights_K = inverse_effective_number(objects_K, loss.class_weights_beta)
    elif len(loss.class_weights) == classes:
        return config
    else:
        raise ConfigError(
            f"loss.class_weights has {len(loss.class_weights)} numbers, but {train_set.annotation_file} has {classes} "
            "classes: give one for each, in the order of their ids, or inverse_frequency or effective_number"
        )
    return config.model_copy(update={"loss": loss.model_copy(update={"class_weights": weights_K})})


def continue_class_weights(config: Config, saved: Config) -> Config:
    """The config of a run to continue with the numbers that the run resolved for its name of class weights.

    For comparisons without the data; a run that is resumed computes the numbers again.
    """
    if not isinstance(config.loss.class_weights, str) or not isinstance(saved.loss.class_weights, tuple):
        return config
    numbers = {"class_weights": saved.loss.class_weights}
    return config.model_copy(update={"loss": config.loss.model_copy(update=numbers)})


def count_epoch(config: Config, train_set: CocoDataset) -> int:
    """Images of an epoch of config `data.repeat_threshold`, repeated ones counted each time."""
    return epoch_images(train_set.images, len(train_set.categories), config.data.repeat_threshold)


def count_objects(dataset: CocoDataset) -> list[int]:
    """Objects of each class, crowd regions left out."""
    labels_N = np.concatenate([np.zeros(0, np.int64), *(image.classes_G for image in dataset.images)])
    return [int(count) for count in np.bincount(labels_N, minlength=len(dataset.categories))]


def describe_balance(config: Config, train_set: CocoDataset) -> str:
    """One line each on the weights of a resolved config and on repeated images; empty without either."""
    names = [category.name for category in train_set.categories]
    threshold, weights_K = config.data.repeat_threshold, config.loss.class_weights
    lines = []
    if threshold is not None:
        images, factors_K = train_set.images, class_factors(train_set.images, len(names), threshold)
        rarest = int(factors_K.argmax())
        lines.append(
            f"images of rare classes are repeated: {count_epoch(config, train_set):,} an epoch instead of "
            f"{len(images):,}, those with {names[rarest]} {factors_K[rarest]:.2f} times"
            if factors_K[rarest] > 1
            else f"no image is repeated: every class is in more than {threshold:.3g} of the images"
        )
    if weights_K is not None:
        weighed = sorted(zip(weights_K, names, strict=True))
        (least, common), (most, rare) = weighed[0], weighed[-1]
        lines.append(f"class weights: {least:.3g} ({common}) to {most:.3g} ({rare})")
    return "\n".join(lines)
