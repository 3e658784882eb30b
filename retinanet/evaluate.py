"""Model + data -> detections -> COCO numbers. The numbers are pycocotools' own.

Legend: D detections of an image, rows N of a data set's detections.
"""

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor, nn

from retinanet.anchors import AnchorSpec, pyramid_anchors
from retinanet.data.coco import CocoDataset
from retinanet.data.json_file import write_json
from retinanet.data.loader import eval_batches
from retinanet.data.transforms import Sizing, normalise, to_device
from retinanet.distributed import Ranks, gather_rows
from retinanet.postprocess import DetectRule, detect
from retinanet.structures import Batch, Category, Detections

METRIC_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""The twelve numbers in pycocotools' order."""


class Evaluation(NamedTuple):
    """COCO numbers of a set of detections; -1 where the ground truth has nothing to measure."""

    metrics: dict[str, float]
    per_class: list[dict[str, Any]]
    """id, name, AP, AP50, AP75, instances (without crowd) of each category."""

    def as_dict(self) -> dict[str, Any]:
        """What eval.json holds."""
        return {"metrics": self.metrics, "per_class": self.per_class}


class Detector(NamedTuple):
    """A network with all that turns its outputs into detections."""

    model: nn.Module
    anchors: AnchorSpec
    scores: Callable[[Tensor], Tensor]
    """The class loss's own: raw outputs -> scores in 0..1."""
    rule: DetectRule
    device: torch.device
    precision: torch.dtype
    channels_last: bool

    @torch.no_grad()
    def __call__(self, batch: Batch) -> list[Detections]:
        """Detections of each image in its original frame; the model must be in evaluation mode."""
        batch = to_device(batch, self.device)
        images = normalise(batch.images, batch.sizes_B2, self.channels_last)
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            outputs = self.model(images)
        pyramid = pyramid_anchors((images.shape[2], images.shape[3]), self.anchors, self.device)
        return detect(
            self.scores(outputs.logits_BAK),
            outputs.deltas_BA4,
            pyramid,
            batch.sizes_B2,
            batch.original_sizes_B2,
            self.rule,
        )


def detect_all(detector: Detector, batches: Iterator[Batch], on_batch: Callable[[int], None]) -> Tensor:
    """Detections of a whole data set as rows (N, 7) float64 on the CPU: image id, class index, x, y, w, h, score.

    on_batch is told the number of images after each batch; what it raises ends the work.
    """
    detector.model.eval()
    rows = [torch.zeros((0, 7), dtype=torch.float64)]
    for batch in batches:
        rows += [result_rows(i, found) for i, found in zip(batch.image_ids_B.tolist(), detector(batch), strict=True)]
        on_batch(len(batch.targets))
    return torch.cat(rows)


def result_rows(image_id: int, found: Detections) -> Tensor:
    """Detections of one image as rows (D, 7) float64 on the CPU: image id, class index, x, y, w, h, score."""
    boxes_D4 = found.boxes_D4.cpu().double()
    ids = torch.full((len(boxes_D4), 1), image_id, dtype=torch.float64)
    classes, scores = found.classes_D.cpu().double()[:, None], found.scores_D.cpu().double()[:, None]
    return torch.cat([ids, classes, boxes_D4[:, :2], boxes_D4[:, 2:] - boxes_D4[:, :2], scores], dim=1)


def evaluate_dataset(
    detector: Detector,
    dataset: CocoDataset,
    sizing: Sizing,
    batches: tuple[int, int],
    ranks: Ranks,
    on_batch: Callable[[int], None],
) -> tuple[Evaluation, list[dict[str, Any]]]:
    """COCO numbers and results of a data set; every rank does its share and returns the same.

    batches: images of one forward pass and loader processes of a rank.
    """
    batch_size, workers = batches
    pin = detector.device.type == "cuda"
    loader = eval_batches(
        dataset, sizing, batch_size=batch_size, rank=ranks.rank, ranks=ranks.size, workers=workers, pin=pin
    )
    with contextlib.closing(loader):
        rows_N7 = detect_all(detector, loader, on_batch)
    rows_N7 = gather_rows(rows_N7.to(detector.device) if pin else rows_N7).cpu()
    results = to_results(rows_N7, dataset.categories)
    return coco_evaluation(dataset.ground_truth, results), results


def write_evaluation(
    eval_file: Path, detections_file: Path, evaluation: Evaluation, results: list[dict[str, Any]], step: int
) -> None:
    """eval.json and detections.json of one evaluation."""
    write_json(detections_file, results)
    write_json(eval_file, {"step": step, **evaluation.as_dict()})


def to_results(rows_N7: Tensor, categories: tuple[Category, ...]) -> list[dict[str, Any]]:
    """COCO results in image-id order: boxes to 0.001 pixels, scores to 1e-6."""
    order = np.argsort(rows_N7[:, 0].numpy(), kind="stable")
    return [
        {
            "image_id": int(row[0]),
            "category_id": categories[int(row[1])].id,
            "bbox": [round(v, 3) for v in row[2:6]],
            "score": round(row[6], 6),
        }
        for row in rows_N7[torch.from_numpy(order)].tolist()
    ]


def index_coco(dataset: dict[str, Any]) -> COCO:
    """pycocotools' view of a COCO dict. COCOeval will write keys of its own into the dict's annotations."""
    coco = COCO()
    coco.dataset = dataset
    coco.createIndex()
    return coco


def coco_evaluation(ground_truth: dict[str, Any], results: list[dict[str, Any]]) -> Evaluation:
    """The twelve COCO box numbers and AP by class, by pycocotools.

    ground_truth: a validated COCO dict; results: validated COCO results, an empty list allowed. Neither is changed.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        # COCOeval writes "ignore" and "_ignore" into the annotations that it is given.
        truth = index_coco({**ground_truth, "annotations": [dict(row) for row in ground_truth["annotations"]]})
        empty = {"images": ground_truth["images"], "categories": ground_truth["categories"], "annotations": []}
        found = truth.loadRes([dict(result) for result in results]) if results else index_coco(empty)
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return Evaluation(
        dict(zip(METRIC_NAMES, map(float, evaluation.stats), strict=True)),
        _per_class(ground_truth, evaluation.params.catIds, evaluation.eval["precision"]),
    )


def _per_class(
    ground_truth: dict[str, Any], category_ids: list[int], precision_TRKAM: np.ndarray
) -> list[dict[str, Any]]:
    """AP by class from precision over thresholds T, recalls R, classes K, areas A and detection limits M."""
    instances: dict[int, int] = {}
    for annotation in ground_truth["annotations"]:
        if not annotation.get("iscrowd", 0):
            instances[annotation["category_id"]] = instances.get(annotation["category_id"], 0) + 1
    names = {category["id"]: category["name"] for category in ground_truth["categories"]}

    def mean(values: np.ndarray) -> float:
        known = values[values > -1]
        return float(known.mean()) if known.size else -1.0

    rows = []
    for k, category_id in enumerate(category_ids):
        precision_TR = precision_TRKAM[:, :, k, 0, -1]
        rows.append(
            {
                "id": int(category_id),
                "name": names[category_id],
                "AP": mean(precision_TR),
                "AP50": mean(precision_TR[0]),
                "AP75": mean(precision_TR[5]),
                "instances": instances.get(category_id, 0),
            }
        )
    return rows
