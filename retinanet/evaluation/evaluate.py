"""Model + data -> detections -> COCO numbers (`retinanet.scoring`).

Legend: D detections of an image, rows N of a data set's detections.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from retinanet.config.eval_keys import EvalKeys
from retinanet.data.coco import CocoDataset
from retinanet.data.loader import eval_batches
from retinanet.data.transforms import NO_AUGMENT, ResizeRule
from retinanet.data.views import USUAL_LOOK, WHOLE_IMAGES, Look, ViewRule, tiled
from retinanet.distributed import Ranks, gather_rows
from retinanet.evaluation.detector import AnyDetector, Detector
from retinanet.evaluation.features import open_features
from retinanet.evaluation.merging import merged_rows
from retinanet.files import write_json
from retinanet.scoring.analysis.analyse import analyse
from retinanet.scoring.eval_file import write_eval_file
from retinanet.scoring.evaluation import Evaluation, coco_evaluation
from retinanet.structures import Batch, Category, Detections


def detect_all(detector: AnyDetector, batches: Iterator[Batch], on_batch: Callable[[int], None]) -> Tensor:
    """Detections of a whole data set as rows (N, 7) float64 on the CPU: image id, class index, x, y, w, h, score.

    on_batch: called with the number of images after each batch; an exception that it raises ends the evaluation.
    """
    detector.prepare()
    rows = [torch.zeros((0, 7), dtype=torch.float64)]
    for batch in batches:
        rows.append(result_rows(batch.image_ids_B, detector(batch)))
        on_batch(len(batch.targets))
    return torch.cat(rows)


def result_rows(image_ids_B: Tensor, found: list[Detections]) -> Tensor:
    """Detections of a batch as rows (N, 7) float64 on the CPU: image id, class index, x, y, w, h, score.

    image_ids_B: on the CPU.
    """
    columns = [torch.cat(tensors) for tensors in zip(*found, strict=True)]
    boxes_N4, scores_N, classes_N = columns
    packed_N6 = torch.cat([classes_N[:, None].to(boxes_N4), boxes_N4, scores_N[:, None]], dim=1)  # one copy from a GPU
    classes_N1, low_N2, high_N2, scores_N1 = packed_N6.cpu().double().split([1, 2, 2, 1], dim=1)
    counts_B = torch.tensor([len(of_image.scores_D) for of_image in found])
    ids_N1 = image_ids_B.double().repeat_interleave(counts_B)[:, None]
    return torch.cat([ids_N1, classes_N1, low_N2, high_N2 - low_N2, scores_N1], dim=1)


def evaluate_dataset(
    detector: AnyDetector,
    dataset: CocoDataset,
    resize_rule: ResizeRule,
    batches: tuple[int, int],
    ranks: Ranks,
    on_batch: Callable[[int], None],
    scoring: EvalKeys,
    categories: tuple[Category, ...],
    views: ViewRule = WHOLE_IMAGES,
) -> tuple[Evaluation, list[dict[str, Any]]]:
    """COCO numbers and results of a data set; every rank evaluates its part of it and returns the same.

    batches: images per forward pass and loader threads, of each rank. on_batch: called with the number of views after
    each batch (`views.count_views`). scoring: config `eval`, for its engine and max_detections. categories: the classes
    that the detector knows; its detections of those that the data set does not have are left out. views: how the images
    are seen.
    """
    cut = tiled(dataset, views)
    # A batch names its images by id, and the tiles of an image have one id.
    numbered = replace(cut, images=tuple(record._replace(id=place) for place, record in enumerate(cut.images)))
    looks = views.looks()
    rows = [look_at(detector, numbered, resize_rule, batches, ranks, on_batch, look) for look in looks]
    results = to_results(merged_rows(rows, looks, cut.images, detector.rule), categories)
    results = results_on(dataset, results, categories)
    return coco_evaluation(dataset.ground_truth, results, scoring.engine, scoring.max_detections), results


def look_at(
    detector: AnyDetector,
    dataset: CocoDataset,
    resize_rule: ResizeRule,
    batches: tuple[int, int],
    ranks: Ranks,
    on_batch: Callable[[int], None],
    look: Look,
) -> Tensor:
    """Detections of a data set, seen in one way, as of `detect_all`, of all ranks; boxes are in the frame of the look.

    For the arguments see `evaluate_dataset`.
    """
    batch_size, workers = batches
    pin = detector.device.type == "cuda"
    scaled = resize_rule.scaled(look.scale)
    features = None
    if isinstance(detector, Detector) and detector.caches_features and look == USUAL_LOOK:
        detector.prepare()
        features = open_features(dataset, detector.feature_rule(scaled, batch_size), NO_AUGMENT, shown=False)
    loader = eval_batches(
        dataset,
        scaled,
        batch_size=batch_size,
        rank=ranks.rank,
        world_size=ranks.world_size,
        workers=workers,
        pin=pin,
        features=features,
        augment=look.augment,
    )
    with contextlib.closing(loader):
        rows_N7 = detect_all(detector, loader, on_batch)
    return gather_rows(rows_N7.to(detector.device) if pin else rows_N7).cpu()


def write_evaluation(
    eval_file: Path,
    detections_file: Path,
    evaluation: Evaluation,
    results: list[dict[str, Any]],
    *,
    step: int,
    precision: str,
) -> None:
    """Write eval.json (see `scoring.eval_file`) and detections.json of one evaluation."""
    write_json(detections_file, results)
    write_eval_file(eval_file, analyse(evaluation), step=step, precision=precision)


def results_on(dataset: CocoDataset, results: list[dict[str, Any]], known: Sequence[Category]) -> list[dict[str, Any]]:
    """The results whose category, an id of `known`, the data set's file lists, with the ids of that file."""
    listed = {row["id"] for row in dataset.ground_truth["categories"]}
    is_aligned = [category.name for category in dataset.categories] == [category.name for category in known]
    pairs = zip(known if is_aligned else dataset.categories, dataset.categories)
    ids = {category.id: own.id for category, own in pairs if own.id in listed}
    return [
        result if ids[result["category_id"]] == result["category_id"]
        else {**result, "category_id": ids[result["category_id"]]}
        for result in results
        if result["category_id"] in ids
    ]  # fmt: skip


def to_results(rows_N7: Tensor, categories: tuple[Category, ...]) -> list[dict[str, Any]]:
    """COCO results in the order of image ids; boxes are rounded to 0.001 pixels, scores to 1e-6."""
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
