"""The schema of a config: every key, its type, its default (the paper's) and its meaning.

`retinanet train CONFIG --print-config` prints a resolved config. Files are read in `load.py`; the keys of the losses
are in `class_losses.py`, those of `model` in `model_keys.py`. Imports no tensor library, so that a mistake in a config
is reported at once.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from retinanet.config.class_losses import AnyClassLossKeys, BoxLossKeys, FocalKeys
from retinanet.config.fields import (
    Auto,
    Count,
    Fraction,
    Natural,
    NonNegative,
    Positive,
    Section,
)
from retinanet.config.model_keys import ModelKeys
from retinanet.config.numbers import COCO_DETECTIONS, HOLD_OUT


class AssignKeys(Section):
    """Which anchors learn which boxes: by IoU (paper section 4.1) or by ATSS (arXiv 1912.02424)."""

    kind: Literal["iou", "atss"] = Field(
        "iou",
        description="`iou`: two thresholds; `atss`: a threshold for each box from its candidates, which uses "
        "atss_cells and crowd_overlap only.",
    )
    atss_cells: Count = Field(
        9, description="ATSS: cells of each level, closest to a box's centre, whose anchors are its candidates (k)."
    )
    positive_iou: Fraction = Field(0.5, description="IoU with a box from which an anchor is positive.")
    negative_iou: Fraction = Field(0.4, description="IoU below which an anchor is background; between: ignored.")
    low_quality: bool = Field(
        False, description="Also make a box's best anchors positive, whatever their IoU (detectron2, torchvision: on)."
    )
    low_quality_min_iou: Fraction = Field(
        0.0, description="Least IoU of such an anchor with the box that it learns (Detectron: 0.4)."
    )
    low_quality_takes: Literal["best_box", "own_box"] = Field(
        "best_box",
        description="Such an anchor learns the box it overlaps most, or the box whose best anchor it is (mmdetection).",
    )
    crowd_overlap: Fraction = Field(
        0.5,
        description="Background anchors with more than this part of their area in a crowd region are ignored; 1: none "
        "(the peers drop crowd regions).",
    )

    @model_validator(mode="after")
    def _ordered(self) -> "AssignKeys":
        if self.negative_iou > self.positive_iou:
            raise ValueError("negative_iou must not be above positive_iou")
        return self


class LossKeys(Section):
    """The class and the box loss and what they are divided by."""

    classification: AnyClassLossKeys = Field(default_factory=FocalKeys)
    box: BoxLossKeys = Field(default_factory=BoxLossKeys)
    normaliser: Literal["batch_positives", "image_positives", "rank_positives", "running_positives"] = Field(
        "batch_positives",
        description="Divide by the positives of the effective batch (paper), each image by its own (torchvision), each "
        "rank by its own of a step (Detectron, mmdetection), or by a running mean of those (detectron2).",
    )
    class_weights: Literal["inverse_frequency", "effective_number"] | tuple[NonNegative, ...] | None = Field(
        None,
        description="Multiplier of the class loss of positives by their class, mean 1 over the training objects: by "
        "`inverse_frequency`, `effective_number` (arXiv 1901.05555), or one number for each class in the order of ids. "
        "A run's config and checkpoints have the numbers.",
    )
    class_weights_beta: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.999, description="beta of `effective_number`: near 1 is inverse_frequency, 0 weighs all classes alike."
    )
    kernels: Literal["auto", "plain"] = Field(
        "auto",
        description="`auto` compiles a dense class loss for large batches, where the machine can; `plain` never does. "
        "Equal to the rounding of the network's precision.",
    )


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


class ScheduleKeys(Section):
    """Length, batch, optimizer and learning rate."""

    epochs: Positive | Auto | None = Field(
        None,
        description="Length of training in passes over the data; or use iterations. `auto`: 12 + 4000 / images.",
    )
    iterations: Count | None = Field(
        None, description="Length of training in steps at the reference batch; or use epochs."
    )
    batch_size: Count | Auto = Field(
        16,
        description="Images of one optimizer step, over all ranks and accumulated micro-batches. `auto`: the reference "
        "batch, in the largest micro-batches that fit into the GPU.",
    )
    reference_batch: Count = Field(
        16,
        description="Batch size that lr, warmup and iterations are written for; another batch_size rescales all three.",
    )
    accumulation: Count = Field(1, description="Micro-batches that each rank splits its part of a batch into.")
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="Optimizer.")
    lr: Positive = Field(0.01, description="Peak learning rate at the reference batch.")
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="Momentum of SGD; beta1 of AdamW.")
    weight_decay: NonNegative = Field(1e-4, description="Weight decay.")
    norm_decay: bool = Field(True, description="Apply weight decay to normalisation parameters and biases too.")
    bias_decay: bool | None = Field(
        None, description="Whether biases of convolutions decay; null does as norm_decay says (torchvision v2: true)."
    )
    backbone_lr: Positive = Field(1.0, description="Multiplier of the learning rate for the backbone.")
    fpn_lr: Positive = Field(1.0, description="Multiplier of the learning rate for the feature pyramid.")
    head_lr: Positive = Field(1.0, description="Multiplier of the learning rate for both subnets.")
    bias_lr: Positive = Field(1.0, description="Multiplier for biases of convolutions (Detectron: 2).")
    warmup: Natural | Auto = Field(
        500,
        description="Steps (at the reference batch) of linear warmup; `auto`: a tenth of the run, at most 500.",
    )
    warmup_factor: Fraction = Field(0.001, description="Share of lr that warmup starts from.")
    shape: Literal["steps", "cosine", "constant"] = Field(
        "steps", description="What the learning rate does after warmup."
    )
    milestones: tuple[Positive, ...] = Field(
        (), description="Where `steps` multiplies lr by decay, in the unit of the length (epochs or iterations)."
    )
    decay: Positive = Field(0.1, description="Factor at each milestone.")
    final_factor: Fraction = Field(0.0, description="Share of lr that `cosine` ends at.")
    clip_norm: Positive | None = Field(None, description="Largest gradient norm; null does not clip.")
    ema: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="Decay of the weights' moving average; 0 is off.")
    early_stop: Count | None = Field(None, description="Stop after N evaluations without improvement; null disables.")

    @model_validator(mode="after")
    def _length_and_milestones(self) -> "ScheduleKeys":
        if (self.epochs is None) == (self.iterations is None):
            raise ValueError("give exactly one of epochs and iterations (the other null)")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError("milestones must ascend")
        if self.epochs == "auto" and self.milestones:
            raise ValueError("milestones need a length that is known: give epochs a number, or use shape=cosine")
        return self


class EvalKeys(Section):
    """Evaluation and what becomes a detection."""

    engine: Literal["auto", "pycocotools", "fast"] = Field(
        "auto",
        description="Library that computes the twelve numbers; `auto` takes the fast engine, which equals pycocotools.",
    )
    every: NonNegative | Auto = Field(
        1.0,
        description="Evaluate every N epochs (or steps, see `unit`) and at the end; 0: only at the end; `auto`: twelve "
        "times in a run, but not more often than each epoch.",
    )
    unit: Literal["epochs", "steps"] = Field("epochs", description="Unit of `every`.")
    batch_size: Count = Field(8, description="Images in one forward pass of each rank.")
    score_threshold: Fraction = Field(0.05, description="Detections below are dropped.")
    topk: Count = Field(1000, description="Best candidates kept on each level before NMS.")
    nms_iou: Fraction = Field(0.5, description="IoU from which the weaker of two boxes of a class is suppressed.")
    detections: Count = Field(100, description="Detections kept an image.")
    empty_boxes: Literal["keep", "drop_before_nms", "drop_last"] = Field(
        "keep",
        description="Boxes clipped to nothing: keep (torchvision), drop early (mmdetection) or last (detectron2).",
    )
    max_detections: Annotated[int, Field(ge=COCO_DETECTIONS)] = Field(
        COCO_DETECTIONS,
        description="Detections of a class and image that count in AP; COCO's own numbers are those of 100.",
    )
    shown_score: Fraction = Field(0.3, description="Detections below are left out of pictures; files hold them all.")

    @model_validator(mode="after")
    def _keeps_what_counts(self) -> "EvalKeys":
        if self.detections < self.max_detections and self.max_detections > COCO_DETECTIONS:
            raise ValueError(
                f"max_detections is {self.max_detections}, but the detector keeps only {self.detections} an image: set "
                "detections to as many or more"
            )
        return self


class LogKeys(Section):
    """What is logged and saved, and how often."""

    every: Count = Field(20, description="Steps between lines of metrics.jsonl and the console.")
    save_every: Count = Field(500, description="Steps between saves of checkpoints/last.pt.")
    keep: Count = Field(
        2, description="Checkpoints to resume from that are kept: last.pt and the ones before it, as step-N.pt."
    )
    pictures: Natural = Field(
        8,
        description="Validation images drawn with ground truth and predictions at each evaluation; 0: no pictures, of "
        "the data and the first batch neither.",
    )


class DistributedKeys(Section):
    """Training on several processes."""

    timeout: Positive = Field(
        100.0, description="Seconds that a rank waits for the others in a step; three times that until the first one."
    )


class Config(Section):
    """A whole experiment."""

    model: ModelKeys = Field(default_factory=ModelKeys)
    assign: AssignKeys = Field(default_factory=AssignKeys)
    loss: LossKeys = Field(default_factory=LossKeys)
    data: DataKeys = Field(default_factory=DataKeys)
    schedule: ScheduleKeys = Field(
        default_factory=lambda: ScheduleKeys(iterations=90_000, milestones=(60_000.0, 80_000.0))
    )
    eval: EvalKeys = Field(default_factory=EvalKeys)
    log: LogKeys = Field(default_factory=LogKeys)
    distributed: DistributedKeys = Field(default_factory=DistributedKeys)
    precision: Literal["auto", "float32", "tf32", "bfloat16", "float16"] = Field(
        "float32",
        description="Autocast type of the network, not of losses; `auto`: bfloat16 where the device computes in it; "
        "`tf32`: float32 with the faster, less exact products of NVIDIA GPUs.",
    )
    deterministic: bool = Field(True, description="Resumed runs have the same bits; false: faster kernels on CUDA.")
    compile: bool = Field(
        False,
        description="Compile the network (torch.compile) at training, for each canvas when it first occurs: takes "
        "minutes once, then steps are faster. Equal up to rounding.",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="`auto` takes CUDA, then an Apple GPU, then the CPU."
    )
    threads: Natural = Field(0, description="CPU threads of each rank; 0 leaves torch's choice.")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        0, description="Every random choice derives from (seed, epoch, image)."
    )
    output: str | None = Field(None, description="Run folder; null is runs/<config's name>.")

    @model_validator(mode="after")
    def _shapes_are_few(self) -> "Config":
        if self.compile and self.data.canvases == "tight":
            raise ValueError("compile needs data.canvases=groups: tight canvases would be compiled one after the other")
        return self

    @model_validator(mode="after")
    def _features_stay_the_same(self) -> "Config":
        data = self.data
        reasons = {
            "the backbone trains: model.frozen=[backbone]": "backbone" not in self.model.frozen,
            "zoomed images differ in every epoch: data.scale_jitter=[1,1]": data.scale_jitter != (1.0, 1.0),
            "recoloured images differ in every epoch: data.color_jitter=0": data.color_jitter > 0,
            "batches draw a size: one data.shorter_side": data.canvas is None and len(data.shorter_side) > 1,
            "padding depends on the batch: data.canvases=groups": data.canvases == "tight",
        }
        if data.feature_cache and any(reasons.values()):
            raise ValueError(f"data.feature_cache: {'; '.join(why for why, holds in reasons.items() if holds)}")
        return self
