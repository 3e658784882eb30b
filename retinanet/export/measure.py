"""Compare exported files with their checkpoint: AP, differences and latency, measured in one run.

Legend: B images per batch, A anchors, K classes, N and M detections per image.
"""

import os
import platform
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from retinanet.config.eval_keys import EvalKeys
from retinanet.data.coco import CocoDataset
from retinanet.data.loader import eval_batches
from retinanet.data.transforms import ResizeRule
from retinanet.detection import boxes
from retinanet.display.progress import image_progress
from retinanet.evaluation.detector import AnyDetector, Detector
from retinanet.evaluation.evaluate import result_rows, results_on, to_results
from retinanet.export.graph import RawGraph
from retinanet.export.runtime import ExportedDetector
from retinanet.scoring.evaluation import coco_evaluation
from retinanet.structures import Batch, Category, Detections

SAME_BOX = 0.9
"""Least IoU at which detections of the same class by the file and by the checkpoint are the same."""

WARM_UP = 3
"""Untimed calls before the timed ones."""


class Contender(NamedTuple):
    """A detector to measure."""

    name: str
    at_threads: Callable[[int], AnyDetector]
    """The detector on N CPU threads."""


class ExportDifference:
    """The largest differences between a file and its checkpoint over the images added."""

    def __init__(self) -> None:
        self.raw_boxes = self.raw_scores = 0.0
        self.boxes = self.scores = 0.0
        self.counts = {"checkpoint": 0, "file": 0, "matched": 0}

    def add_raw(self, expected: tuple[Tensor, Tensor], found: tuple[Tensor, Tensor], threshold: float) -> None:
        """Add raw outputs: boxes (B, A, 4), of which those that score above `threshold` count, and scores (B, A, K)."""
        scoring_BA = expected[1].amax(2) > threshold
        self.raw_boxes = max(self.raw_boxes, largest_magnitude(expected[0][scoring_BA] - found[0][scoring_BA]))
        self.raw_scores = max(self.raw_scores, largest_magnitude(expected[1] - found[1]))

    def add_detections(self, expected: Detections, found: Detections) -> None:
        """Add the detections of one image, both in the same frame."""
        iou_NM = boxes.iou(expected.boxes_D4, found.boxes_D4)
        iou_NM = torch.where(expected.classes_D[:, None] == found.classes_D[None, :], iou_NM, 0.0)
        self.counts["checkpoint"] += len(expected.scores_D)
        self.counts["file"] += len(found.scores_D)
        if not iou_NM.numel():
            return
        best_N, index_N = iou_NM.max(1)
        same_N = best_N >= SAME_BOX
        pair_N = index_N[same_N]
        self.counts["matched"] += int(same_N.sum())
        self.boxes = max(self.boxes, largest_magnitude(expected.boxes_D4[same_N] - found.boxes_D4[pair_N]))
        self.scores = max(self.scores, largest_magnitude(expected.scores_D[same_N] - found.scores_D[pair_N]))

    def as_dict(self, raw: bool) -> dict[str, Any]:
        """As in the report: boxes in pixels, scores in 0..1."""
        detections = {"box_pixels": self.boxes, "score": self.scores, **self.counts}
        outputs = {"box_pixels": self.raw_boxes, "score": self.raw_scores} if raw else None
        return {"outputs": outputs, "detections": detections}


def largest_magnitude(difference: Tensor) -> float:
    """The largest absolute value; 0 for an empty tensor."""
    return float(difference.abs().max()) if difference.numel() else 0.0


def compare_exports(
    reference: Detector,
    exported: dict[str, ExportedDetector],
    dataset: CocoDataset,
    resize_rule: ResizeRule,
    batch_size: int,
    scoring: EvalKeys,
    categories: tuple[Category, ...],
) -> dict[str, dict[str, Any]]:
    """COCO metrics of a checkpoint and of files exported from it, and how far each file's outputs are from its own.

    Keyed by name, the checkpoint as "checkpoint". categories: those of the checkpoint; detections of categories that
    the data set does not have are ignored.
    """
    reference.prepare()
    graph = RawGraph(reference).eval()
    nothing = torch.zeros((0, 7), dtype=torch.float64)
    rows = {name: [nothing] for name in ("checkpoint", *exported)}
    differences = {name: ExportDifference() for name in exported}
    loader = eval_batches(dataset, resize_rule, batch_size=batch_size, rank=0, world_size=1, workers=0, pin=False)
    with image_progress("comparing", len(dataset.images)) as report, torch.no_grad():
        for batch in loader:
            ids_B = batch.image_ids_B
            wanted = reference(batch)
            rows["checkpoint"].append(result_rows(ids_B, wanted))
            raw = graph(batch.images, batch.sizes_B2)
            for name, detector in exported.items():
                outputs = detector.outputs(batch)
                found = [Detections(*map(Tensor.cpu, of_image)) for of_image in detector.detections(outputs, batch)]
                rows[name].append(result_rows(ids_B, found))
                for pair in zip(wanted, found, strict=True):
                    differences[name].add_detections(*pair)
                if not detector.info.nms:
                    on_cpu = outputs[0].cpu(), outputs[1].cpu()
                    differences[name].add_raw(raw, on_cpu, detector.rule.score_threshold)
            report(len(ids_B))
    results: dict[str, dict[str, Any]] = {}
    for name, found_rows in rows.items():
        found_results = results_on(dataset, to_results(torch.cat(found_rows), categories), categories)
        evaluation = coco_evaluation(dataset.ground_truth, found_results, scoring.engine, scoring.max_detections)
        results[name] = {"metrics": evaluation.metrics}
        if name in exported:
            results[name]["difference"] = differences[name].as_dict(raw=not exported[name].info.nms)
    return results


def first_batch(dataset: CocoDataset, resize_rule: ResizeRule) -> Batch:
    """A batch of the first image, as evaluation loads it."""
    loader = eval_batches(dataset, resize_rule, batch_size=1, rank=0, world_size=1, workers=0, pin=False)
    return next(iter(loader))


def repeated(batch: Batch, count: int) -> Batch:
    """A batch of one image, `count` times."""
    images, sizes, originals, ids = (tensor.repeat_interleave(count, dim=0) for tensor in batch[:4])
    targets = list(batch.targets) * count
    return Batch(images=images, sizes_B2=sizes, original_sizes_B2=originals, image_ids_B=ids, targets=targets)


def latency(
    contenders: Iterable[Contender], batch: Batch, sizes: list[int], threads: list[int], runs: int
) -> list[dict[str, Any]]:
    """Milliseconds from canvas to detections: p50 and p99 of `runs` calls per number of threads and batch size."""
    before = torch.get_num_threads()
    rows = []
    try:
        for count in threads:
            torch.set_num_threads(count)
            for contender in contenders:
                detector = contender.at_threads(count)
                for size in sizes:
                    times = call_times(detector, repeated(batch, size), runs)
                    p50, p99 = np.percentile(times, [50, 99]).tolist()
                    row = {"name": contender.name, "threads": count, "batch": size, "runs": runs}
                    rows.append({**row, "p50_ms": round(p50, 2), "p99_ms": round(p99, 2)})
    finally:
        torch.set_num_threads(before)
    return rows


def call_times(detector: AnyDetector, batch: Batch, runs: int) -> list[float]:
    """Milliseconds of each of `runs` calls, after WARM_UP calls that are not counted."""
    times = []
    for run in range(-WARM_UP, runs):
        start = time.perf_counter()
        detector(batch)
        if run >= 0:
            times.append((time.perf_counter() - start) * 1000)
    return times


def hardware() -> dict[str, Any]:
    """The processor's name, the cores that this process may use, the load average, and the system."""
    name = platform.processor()
    information = Path("/proc/cpuinfo")
    if information.is_file():
        lines = information.read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    load = round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None
    return {"cpu": name or platform.machine(), "cores": len(allowed), "load": load, "system": platform.platform()}
