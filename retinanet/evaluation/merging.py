"""Detections of the views of an image (`data.views`) as detections of the image."""

from collections.abc import Sequence

import torch
from torch import Tensor

from retinanet.data.coco import ImageRecord
from retinanet.data.views import InputView, Look, Window, window_of
from retinanet.detection.merge import View, merge_views, mirrored_back, moved
from retinanet.detection.postprocess import DetectRule
from retinanet.structures import Detections


def in_image(found: Detections, window: Window, *, mirrored: bool) -> View:
    """What was found in a view, in the frame of its image."""
    upright = mirrored_back(found, window.width) if mirrored else found
    return View(moved(upright, window.left, window.top), window.corners)


def merged(seen: Sequence[tuple[InputView, Detections]], rule: DetectRule) -> Detections:
    """The detections of an image from those of all its views; a single view's stay as they are."""
    if len(seen) == 1 and not seen[0][0].mirrored:
        return seen[0][1]
    return merge_views([in_image(found, view.window, mirrored=view.mirrored) for view, found in seen], rule)


def merged_rows(
    rows_of_looks: Sequence[Tensor], looks: Sequence[Look], records: Sequence[ImageRecord], rule: DetectRule
) -> Tensor:
    """Detections of a data set's images from those of its records (images or tiles), seen in several ways.

    rows_of_looks: for each look, rows (N, 7) float64 as of `evaluate.result_rows`, with the position of the record in
    place of the image id. Returns rows with image ids, the images in the order of their first record. Where each image
    has one view, its detections stay as they are.
    """
    if len(looks) == 1 and not looks[0].mirrored and all(record.tile is None for record in records):
        ids_R = torch.tensor([record.id for record in records], dtype=torch.float64)
        (rows_N7,) = rows_of_looks
        return torch.cat([ids_R[rows_N7[:, :1].long()], rows_N7[:, 1:]], dim=1)
    views: dict[int, list[View]] = {record.id: [] for record in records}
    for rows_N7, look in zip(rows_of_looks, looks, strict=True):
        order_N = rows_N7[:, 0].sort(stable=True).indices
        counts_R = torch.bincount(rows_N7[:, 0].long(), minlength=len(records)).tolist()
        for record, part_D7 in zip(records, rows_N7[order_N].split(counts_R), strict=True):
            found = detections_of(part_D7)
            views[record.id].append(in_image(found, window_of(record), mirrored=look.mirrored))
    images = [(number, merge_views(of_image, rule)) for number, of_image in views.items()]
    return torch.cat([torch.zeros((0, 7), dtype=torch.float64), *(rows_of(number, found) for number, found in images)])


def detections_of(rows_D7: Tensor) -> Detections:
    """Rows of one image or tile as detections, best first; `rows_of` is the inverse."""
    rows_D7 = rows_D7[rows_D7[:, 6].sort(descending=True, stable=True).indices]
    corners_D4 = torch.cat([rows_D7[:, 2:4], rows_D7[:, 2:4] + rows_D7[:, 4:6]], dim=1)
    return Detections(corners_D4.float(), rows_D7[:, 6].float(), rows_D7[:, 1].long())


def rows_of(image_id: int, found: Detections) -> Tensor:
    """Detections of one image as rows (D, 7) float64: image id, class index, x, y, w, h, score."""
    boxes_D4 = found.boxes_D4.double()
    ids_D = torch.full_like(found.scores_D, image_id, dtype=torch.float64)
    return torch.cat(
        [
            torch.stack([ids_D, found.classes_D.double()], dim=1),
            boxes_D4[:, :2],
            boxes_D4[:, 2:] - boxes_D4[:, :2],
            found.scores_D.double()[:, None],
        ],
        dim=1,
    )
