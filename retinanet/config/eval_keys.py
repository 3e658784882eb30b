"""Config keys of `eval`: evaluation, and what becomes a detection."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from retinanet.config.fields import Auto, Count, Fraction, NonNegative, Section
from retinanet.config.numbers import COCO_DETECTIONS


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
    class_agnostic: bool = Field(
        False, description="Suppress overlaps between classes too, so that a place has one class (AP may fall)."
    )
    detections: Count = Field(100, description="Detections kept an image, or with data.tile each tile of an image.")
    empty_boxes: Literal["keep", "drop_before_nms", "drop_last"] = Field(
        "keep",
        description="Boxes clipped to nothing: keep (torchvision), drop early (mmdetection) or last (detectron2).",
    )
    max_detections: Annotated[int, Field(ge=COCO_DETECTIONS)] = Field(
        COCO_DETECTIONS,
        description="Detections of a class and image that count in AP; COCO's own numbers are those of 100.",
    )
    tta_flip: bool = Field(
        False, description="Test-time augmentation: detect on the mirror image too (twice the time)."
    )
    tta_scales: Annotated[tuple[Annotated[float, Field(ge=0.1, le=10)], ...], Field(min_length=1)] = Field(
        (1.0,),
        description="Test-time augmentation: detect on images of these multiples of their usual size in the network.",
    )
    shown_score: Fraction = Field(0.3, description="Detections below are left out of pictures; files hold them all.")

    onnx_provider: Literal["cpu", "cuda", "tensorrt"] = Field(
        "cpu",
        description="Execution provider of onnxruntime for ONNX files; the others need onnxruntime-gpu and a GPU.",
    )

    @model_validator(mode="after")
    def _keeps_what_counts(self) -> "EvalKeys":
        if self.detections < self.max_detections and self.max_detections > COCO_DETECTIONS:
            raise ValueError(
                f"max_detections is {self.max_detections}, but the detector keeps only {self.detections} an image: set "
                "detections to as many or more"
            )
        if len(set(self.tta_scales)) < len(self.tta_scales):
            raise ValueError("tta_scales has a scale twice")
        return self
