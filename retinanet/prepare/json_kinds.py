"""Which program wrote a JSON file: formats that are read, and others with the export that is.

Imports no tensor library.
"""

from typing import Any

READ = ("coco", "via", "labelme", "createml", "label studio", "datumaro", "supervisely")
"""What `json_kind` returns for formats that are read."""
_EXPORT_COCO = "which is not read; export COCO instead"


def json_kind(content: object) -> str:
    """One of READ, or what else the content of a JSON file is, for a message."""
    if isinstance(content, list):
        return _list_kind(content)
    if not isinstance(content, dict):
        return "not an object"
    if {"images", "annotations"} <= content.keys():
        return "coco"
    if {"shapes", "imagePath"} <= content.keys():
        return "labelme"
    if isinstance(content.get("items"), list) and isinstance(content.get("categories"), dict):
        return "datumaro"
    if isinstance(content.get("objects"), list) and isinstance(content.get("size"), dict):
        return "supervisely"
    entries = content.get("_via_img_metadata", content)
    rows = list(entries.values())[:3] if isinstance(entries, dict) else []
    if rows and all(isinstance(row, dict) and {"filename", "regions"} <= row.keys() for row in rows):
        return "via"
    return _other_kind(content)


def is_supervisely_project(content: object) -> bool:
    """Whether this is the meta.json of a Supervisely project."""
    classes = content.get("classes") if isinstance(content, dict) else None
    return isinstance(classes, list) and bool(classes) and all(
        isinstance(row, dict) and {"title", "shape"} <= row.keys() for row in classes
    )  # fmt: skip


def _list_kind(content: list[Any]) -> str:
    rows = [row for row in content[:20] if isinstance(row, dict)]
    if not rows:
        return "a list"
    if {"image_id", "score"} <= rows[0].keys():
        return "detections (COCO results), not annotations"
    if all("image" in row and isinstance(row.get("annotations"), list) for row in rows) and not any(
        "data" in row for row in rows
    ):
        return "createml"
    if all(isinstance(row.get("data"), dict) for row in rows) and any(
        {"annotations", "completions", "predictions"} & row.keys() for row in rows
    ):
        return "label studio"
    if any({"annotation_id", "annotator"} <= row.keys() for row in rows):
        return "label studio"
    if {"file_name", "annotations"} <= rows[0].keys():
        return (
            f"detectron2's own format (data set dicts), {_EXPORT_COCO} (detectron2.data.datasets.convert_to_coco_json)"
        )
    if isinstance(rows[0].get("ann"), dict):
        return f"mmdetection's own format (middle format), {_EXPORT_COCO}"
    if {"name", "labels"} <= rows[0].keys():
        return f"BDD100K's format (Scalabel), {_EXPORT_COCO} (scalabel.label.to_coco)"
    if "data_row" in rows[0] or "Labeled Data" in rows[0]:
        return f"an export of Labelbox, {_EXPORT_COCO}"
    return "a list"


def _other_kind(content: dict[Any, Any]) -> str:
    if {"metainfo", "data_list"} <= content.keys():
        return f"mmdetection's own format, {_EXPORT_COCO}"
    if isinstance(content.get("item"), dict) and "annotations" in content:
        return f"an export of V7 (Darwin), {_EXPORT_COCO}"
    if "classes" in content and isinstance(content.get("labels"), dict):
        return f"FiftyOne's own format, {_EXPORT_COCO} (dataset_type=fiftyone.types.COCODetectionDataset)"
    if "data_row" in content:
        return f"an export of Labelbox, {_EXPORT_COCO}"
    if {"project", "attribute", "file", "view"} <= content.keys():
        return f"a project of VIA 3, {_EXPORT_COCO}"
    if "assets" in content and "tags" in content:
        return "a project of VoTT, which is not read; export Pascal VOC or CSV instead"
    if is_supervisely_project(content):
        return "the classes of a Supervisely project, whose folders ann/ are not below it"
    return f"a JSON object with {', '.join(map(str, list(content)[:4])) or 'nothing in it'}"
