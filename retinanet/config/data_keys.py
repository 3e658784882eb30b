"""Config keys of `data`: the data set, what becomes of its images, and loading."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from retinanet.config.fields import Count, Fraction, Natural, Positive, Section
from retinanet.config.numbers import HOLD_OUT


class DataKeys(Section):
    """The data set, how its images are resized, augmented and loaded."""

    source: str | None = Field(
        None,
        description="Folder, .zip or file of a data set in any format that is recognised: COCO, YOLO, Pascal VOC ...; "
        "instead of root and the four paths. On a command line also `data=PATH`.",
    )
    hold_out: Annotated[float, Field(gt=0, lt=1)] = Field(
        HOLD_OUT, description="Part of the images of `source` that is evaluated on where it has no val split."
    )
    root: str = Field("data/coco", description="Folder that the four paths below are relative to.")
    train_annotations: str = Field("annotations/instances_train2017.json", description="COCO-format JSON to train on.")
    train_images: str = Field("train2017", description="Folder of its images.")
    val_annotations: str = Field("annotations/instances_val2017.json", description="COCO-format JSON to evaluate on.")
    val_images: str = Field("val2017", description="Folder of its images.")
    limit: Count | None = Field(
        None, description="Use only the first N images of each split, to see whether a model can fit them at all."
    )
    empty_images: bool = Field(
        True, description="Train on images without objects too (Detectron, torchvision and others do not)."
    )
    repeat_threshold: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None,
        description="Repeat images of classes that fewer than this share of the images have, sqrt(threshold / share) "
        "times an epoch (LVIS: 0.001); epochs get longer. null repeats none.",
    )
    depth_range: Annotated[tuple[float, ...], Field(min_length=2, max_length=2)] | None = Field(
        None,
        description="[low, high]: pixel values of images of more than 8 bits that become 0 and 255; null takes 16 bits "
        "as 0..65535, float pixels as 0..1 or 0..255.",
    )
    shorter_side: Annotated[tuple[Count, ...], Field(min_length=1)] = Field(
        (600,),
        description="Pixels of the shorter side; of several, each training batch draws one, evaluation takes the last.",
    )
    longer_side: Count = Field(1000, description="The longer side is shrunk to at most this many pixels.")
    canvas: Annotated[tuple[Count, ...], Field(min_length=2, max_length=2)] | None = Field(
        None,
        description="[height, width]: fit every image into this one canvas instead of shorter_side and longer_side.",
    )
    tile: Annotated[int, Field(ge=64)] | None = Field(
        None,
        description="Cut images into overlapping square tiles of this many pixels, at the image's own scale, to train, "
        "evaluate and predict on; instead of shorter_side, longer_side and canvas. null takes whole images.",
    )
    tile_overlap: Annotated[float, Field(ge=0, le=0.75)] = Field(
        0.2,
        description="Least part of a tile's side that it shares with the next one: more than the largest objects have.",
    )
    resize: Literal["antialias", "float_bilinear"] = Field(
        "antialias",
        description="`antialias` keeps bytes; `float_bilinear` is torchvision's detectors' own: sizes rounded down, no "
        "antialiasing, no rounding of pixels.",
    )
    canvases: Literal["groups", "tight"] = Field(
        "groups",
        description="Pad to one of a few canvases (fast), or to the largest image of a micro-batch in whole 32s "
        "(torchvision); then padding depends on ranks and accumulation.",
    )
    scale_jitter: Annotated[tuple[Positive, ...], Field(min_length=2, max_length=2)] = Field(
        (1.0, 1.0), description="[least, most] random zoom at training; what leaves the canvas is cropped."
    )
    color_jitter: Fraction = Field(
        0.0, description="Strength of random brightness, contrast and saturation at training."
    )
    flip: Fraction = Field(0.5, description="Probability of a horizontal flip at training.")
    vertical_flip: Fraction = Field(0.0, description="Probability of a vertical flip at training.")
    workers: Natural = Field(2, description="Threads of each rank that load ahead; 0 loads between steps.")
    cache_mib: Natural = Field(
        0,
        description="MiB of each rank's memory for training images that need not be decoded again, nor resized where "
        "they always have one size; a data set that does not fit is kept in part.",
    )
    feature_cache: bool = Field(
        False,
        description="Compute a frozen backbone's features of each image (and its mirror images) once and keep them in "
        "the cache folder; needs model.frozen: [backbone], and images that only flips change.",
    )
    check_images: Literal["none", "header", "decode"] = Field(
        "header",
        description="What validation opens before training: nothing, each file's header and end, or every pixel.",
    )

    on_bad_image: Literal["stop", "skip"] = Field(
        "stop",
        description="What training does with an image that can no longer be read: end, or name it and take another.",
    )
    bad_images: Fraction = Field(0.01, description="Largest part of the training images that `skip` passes over.")

    @model_validator(mode="after")
    def _ordered(self) -> "DataKeys":
        if self.scale_jitter[0] > self.scale_jitter[1]:
            raise ValueError("scale_jitter is [least, most]: the first must not be above the second")
        if self.depth_range and not self.depth_range[0] < self.depth_range[1]:
            raise ValueError("depth_range is [low, high]: the first must be below the second")
        return self
