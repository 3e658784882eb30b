"""A small study on disk: generated scenes, detections derived from the ground truth, metrics.jsonl."""

import json
from pathlib import Path

import numpy as np

from retinanet.ablation.cells import CellRecord, CellStatus
from retinanet.ablation.report.collect import ArmInfo, CellResult, StudyResult
from retinanet.prepare.shapes import generate_shapes
from retinanet.run.metrics import MetricsLog

SEEDS = (0, 1, 2)
STEPS = (50, 100, 150, 200)


def make_shapes(folder: Path, images: int = 12, side: int = 64) -> Path:
    """A generated data set whose val split is the study's test split."""
    generate_shapes(folder / "shapes", train_images=1, val_images=images, size=(side, side), seed=5)
    return folder / "shapes"


def make_detections(truth: dict, jitter: float, misses: float, false_rate: float, seed: int) -> list[dict]:
    """COCO results: objects with shifted boxes, some missed, and false positives with lower scores."""
    rng = np.random.default_rng(seed)
    sizes = {image["id"]: (image["width"], image["height"]) for image in truth["images"]}
    found = []
    for row in truth["annotations"]:
        if rng.random() < misses:
            continue
        x, y, w, h = row["bbox"]
        dx, dy, dw, dh = rng.normal(0, jitter, 4)
        box = [x + dx * w, y + dy * h, w * float(np.exp(dw)), h * float(np.exp(dh))]
        score = float(np.clip(rng.normal(0.65, 0.15), 0.05, 1))
        found.append({"image_id": row["image_id"], "category_id": row["category_id"], "bbox": box, "score": score})
    for image in truth["images"]:
        width, height = sizes[image["id"]]
        for _ in range(rng.poisson(false_rate)):
            side = float(rng.uniform(8, 30))
            box = [float(rng.uniform(0, width - side)), float(rng.uniform(0, height - side)), side, side]
            category = int(rng.choice([c["id"] for c in truth["categories"]]))
            score = float(rng.beta(1.5, 6))
            found.append({"image_id": image["id"], "category_id": category, "bbox": box, "score": max(score, 0.05)})
    return found


def write_cell(folder: Path, arm: str, truth: dict, quality: float, seed: int, status: str) -> CellResult:
    """The files of one cell. quality: 0 (bad) to 1; a cell that diverged stops half way and has no detections."""
    rng = np.random.default_rng(1000 + seed)
    done = status == "done"
    with MetricsLog(folder, resume_step=None, tensorboard=False, total_steps=STEPS[-1], terminal=False) as log:
        for step in range(10, (STEPS[-1] if done else STEPS[1]) + 1, 10):
            loss = (0.4 + 2 * (1 - quality)) * float(np.exp(-step / 90)) + 0.1 * float(rng.random())
            log.train(
                step, step / 20, {"loss": loss * 2, "loss_class": loss, "loss_box": loss}, {"images_per_second": 9}
            )
            if step in STEPS:
                log.evaluation(step, {"AP": quality * 0.6 * step / STEPS[-1] + 0.02 * float(rng.random())}, {})
    if done:
        (folder / "test").mkdir(parents=True, exist_ok=True)
        results = make_detections(truth, 0.03 + 0.12 * (1 - quality), 0.4 * (1 - quality), 3, seed)
        (folder / "test" / "detections.json").write_text(json.dumps(results), encoding="utf-8")
    message = {"diverged": "step 100: loss is nan", "failed": "out of <memory>"}.get(status, "")
    record = CellRecord(
        cell=f"{arm}-seed{seed}",
        arm=arm,
        lr=0.01,
        seed=seed,
        status=CellStatus(status),
        message=message,
        seconds=63.0 if done else 20.0,
        val_metrics={"AP": quality * 0.6} if done else {},
    )
    return CellResult(record=record, folder=folder, tuning=False)


def make_study(
    folder: Path, arms: dict[str, float], statuses: dict[tuple[str, int], str], **shapes: int
) -> StudyResult:
    """A study with SEEDS of each arm. arms: name -> quality, the first is the reference; statuses: of unusual cells."""
    data = make_shapes(folder, **shapes)
    annotations = data / "annotations" / "val.json"
    truth = json.loads(annotations.read_text(encoding="utf-8"))
    cells = [
        write_cell(
            folder / "cells" / f"{number}-{seed}", name, truth, quality, seed, statuses.get((name, seed), "done")
        )
        for number, (name, quality) in enumerate(arms.items())
        for seed in SEEDS
    ]
    infos = tuple(
        ArmInfo(
            name=name,
            overrides_text=(f"loss.classification.kind: kind_{number}",),
            paper={"AP": 34.0, "AP50": 52.5} if number < 2 else {},
            note="",
        )
        for number, name in enumerate(arms)
    )
    return StudyResult(
        title="Losses on generated shapes",
        note="A study made for a test.",
        reference=next(iter(arms)),
        arms=infos,
        cells=tuple(cells),
        lr_rule_text="No learning rate was searched: peak learning rate 0.01.",
        guards=("arm b: a warning",),
        test_annotations=annotations,
        test_images=data / "val",
        max_detections=100,
        base_text="model:\n  head:\n    prior: 0.01\n",
        machine="a host, cpu",
    )
