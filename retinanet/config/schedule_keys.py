"""Config keys of `schedule`: length, batch, optimizer and learning rate."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from retinanet.config.fields import Auto, Count, Fraction, Natural, NonNegative, Positive, Section


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
