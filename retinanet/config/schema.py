"""The schema of a config: every key, its type, its default (the paper's) and its meaning.

`retinanet train CONFIG --print-config` prints a resolved config. Files are read in `load.py`; the keys of the losses
are in `class_losses.py`, those of `model`, `data`, `schedule` and `eval` in files of their own. Imports no tensor
library, so that a mistake in a config is reported at once.
"""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from retinanet.config.class_losses import AnyClassLossKeys, BoxLossKeys, FocalKeys
from retinanet.config.data_keys import DataKeys
from retinanet.config.eval_keys import EvalKeys
from retinanet.config.fields import (
    Count,
    Fraction,
    Natural,
    NonNegative,
    Positive,
    Section,
)
from retinanet.config.model_keys import ModelKeys
from retinanet.config.schedule_keys import ScheduleKeys


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
    callbacks: tuple[str, ...] = Field(
        (), description="Functions called with each row of metrics.jsonl, such as my_log:log for log in my_log.py."
    )
    callback_folder: str | None = Field(
        None,
        exclude=True,
        description="Where their files are, besides the working folder; null: the folder of the config.",
    )


class DistributedKeys(Section):
    """Training on several processes."""

    timeout: Positive = Field(
        100.0, description="Seconds that a rank waits for the others in a step; three times that until the first one."
    )
    gradients: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="Type in which ranks exchange gradients; `bfloat16` halves the traffic and rounds each gradient.",
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
        description="Autocast type of the network, not of losses; `auto`: bfloat16 where the device computes in it, "
        "on a CPU also depthwise convolutions (measured); "
        "`tf32`: float32 with the faster, less exact products of NVIDIA GPUs.",
    )
    deterministic: bool = Field(True, description="Resumed runs have the same bits; false: faster kernels on CUDA.")
    compile: bool | Literal["graphs", "auto"] = Field(
        "auto",
        description="Compile the network (torch.compile), for each canvas when it first occurs: takes minutes once, "
        "then steps are faster; equal up to rounding. `auto`: on CUDA, in runs of 5,000 steps or more; a run keeps its "
        "choice. `graphs`: replay it as CUDA graphs too, for small batches on one GPU.",
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto",
        description="`auto` takes CUDA, then an Apple GPU, then the CPU.",
        json_schema_extra={"remark": "CUDA_VISIBLE_DEVICES=0 before the command chooses a GPU, torchrun takes several"},
    )
    threads: Natural = Field(0, description="CPU threads of each rank; 0 leaves torch's choice.")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(
        0, description="Every random choice derives from (seed, epoch, image)."
    )
    output: str | None = Field(None, description="Run folder; null is runs/<config's name>.")

    @model_validator(mode="after")
    def _shapes_are_few(self) -> "Config":
        if self.compile not in (False, "auto") and self.data.canvases == "tight":
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
