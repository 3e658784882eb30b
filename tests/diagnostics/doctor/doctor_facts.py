"""Evidence of a healthy run, for tests to spoil in one place."""

from pathlib import Path

import numpy as np

from retinanet.config.schema import Config
from retinanet.diagnostics.doctor.facts import (
    AnchorFacts,
    BoxFormat,
    Evidence,
    FoundFacts,
    SampleScore,
    SplitFacts,
    TrialFacts,
)
from retinanet.structures import Category
from retinanet.training.causes import run_evidence
from retinanet.training.optim import build_plan

CATEGORIES = (Category(1, "cat"), Category(2, "dog"), Category(3, "hen"))
SAMPLE = SampleScore(images=16, ap50=0.8, ap50_kept=0.79, best_score=0.9, brightness=120.0, brightness_deviation=10.0)


def healthy_split(file: str) -> SplitFacts:
    """Twenty images with three objects each."""
    return SplitFacts(
        file=str(Path(file)),
        categories=CATEGORIES,
        images=20,
        objects_by_class={"cat": 20, "dog": 30, "hen": 10},
        objects_I=np.full(20, 3, dtype=np.int64),
        image_side=500.0,
        object_share=0.2,
        boxes=BoxFormat(boxes=60, over=0, as_corners=20, fractions=0),
    )


def healthy_evidence(config: Config) -> Evidence:
    """A run that found most objects of its val split."""
    rows = [
        {"kind": "train", "step": step, "loss": loss, "lr": 0.01, "grad_norm": 2.0, "positives_per_image": 9.0}
        for step, loss in ((1, 2.0), (500, 1.0), (1000, 0.7), (1500, 0.62), (2000, 0.6), (2500, 0.6))
    ]
    rows.append({"kind": "eval", "step": 2500, "AP": 0.5})
    found_KK = np.array([[18, 1, 0], [2, 26, 0], [0, 0, 9]])
    return Evidence(
        run=run_evidence(config, build_plan(config.schedule, images=20), rows),
        known=CATEGORIES,
        train=healthy_split("train.json"),
        val=healthy_split("val.json"),
        anchors=AnchorFacts(objects=60, reached=58, mean_iou=0.7, positive_iou=0.5, suggestion="", suggested_reached=0),
        found=FoundFacts(
            problem=None,
            detections=200,
            images=20,
            images_without=0,
            best_score=0.9,
            names=("cat", "dog", "hen"),
            found_KK=found_KK,
            objects_K=np.array([20, 30, 10]),
        ),
        trial=TrialFacts(
            train=SAMPLE, val=SAMPLE, input_mean=0.1, input_deviation=1.0, plain_ap50=0.8, average_ap50=0.8
        ),
    )
