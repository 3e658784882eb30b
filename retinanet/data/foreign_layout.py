"""Layouts of COCO-format files that are not COCO's own, brought into it. Imports no tensor library."""

from typing import Any

from retinanet.data.box_modes import with_usual_boxes
from retinanet.data.notes import KindNotes

Row = dict[str, Any]

_NAME_KEYS = (
    "filename",
    "image_path",
    "path",
    "name",
    "coco_url",
    "file",
    "image",
    "img",
)  # what other tools call "file_name"
_OTHER_KEYS = {
    "image_id": ("imageId", "imageid", "image_name", "file_name", "image"),
    "category_id": ("categoryId", "categoryid", "class_id", "label_id", "category_name", "category", "class", "label"),
}


_OWN_KEYS: dict[str, dict[str, tuple[str, ...]]] = {
    "images": {"id": ("image_id", "imageId", "imgid")},
    "categories": {
        "id": ("category_id", "categoryId", "class_id", "label_id"),
        "name": ("label", "title", "category_name", "class_name", "category", "class"),
    },
}
"""What other tools call the "id" of an image and the "id" and "name" of a category."""


def layout_of_coco(data: dict[str, Any], notes: KindNotes) -> dict[str, Any]:
    """The content with three lists of objects, where it can be brought there in one way; nothing changes in place.

    Read and noted: sections that are objects with the ids as keys, annotations within their images, image files
    under another key than "file_name", images and categories of annotations likewise, categories that are a plain list
    of names where the ids in use decide whether they count from 0 or from 1, entries that are repeated, as merged
    exports have them, and boxes of another `bbox_mode`.
    """
    for section in ("images", "categories", "annotations"):
        rows = data.get(section)
        if isinstance(rows, dict) and rows and all(isinstance(row, dict) for row in rows.values()):
            notes.add(f"entries of {section!r} have their ids as keys", repr(next(iter(rows))), len(rows))
            data = {**data, section: [{"id": key, **row} for key, row in rows.items()]}
    data = _with_own_keys(data, notes)
    data = _flattened(data, notes)
    data = _with_file_names(data, notes)
    data = _with_usual_keys(data, notes)
    data = _with_category_rows(data, notes)
    return with_usual_boxes(_without_repeats(data, notes), notes)


def _with_own_keys(data: dict[str, Any], notes: KindNotes) -> dict[str, Any]:
    """Images and categories whose id or name is under the key that other programs use, in all of them."""
    for section, keys in _OWN_KEYS.items():
        rows = data.get(section)
        if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
            continue
        for usual, others in keys.items():
            if any(usual in row for row in rows):
                continue
            key = next((key for key in others if all(isinstance(row.get(key), int | str) for row in rows)), None)
            if key is not None:
                notes.add(f"{section} have no {usual!r}: {key!r} is used", repr(rows[0][key]), len(rows))
                rows = [{**row, usual: row[key]} for row in rows]
        data = data if rows is data[section] else {**data, section: rows}
    return data


def _flattened(data: dict[str, Any], notes: KindNotes) -> dict[str, Any]:
    """Annotations within their images, moved into a list of their own."""
    images = data.get("images")
    if not isinstance(images, list) or data.get("annotations") or not images:
        return data
    nested = [row for row in images if isinstance(row, dict) and isinstance(row.get("annotations"), list)]
    if not nested:
        return data
    found = [
        {**({"image_id": row["id"]} if "id" in row else {}), **one} if isinstance(one, dict) else one
        for row in nested
        for one in row["annotations"]
    ]
    notes.add("annotations are within their images: they are read from there", f"{len(nested):,} images", len(found))
    bare = [
        {key: value for key, value in row.items() if key != "annotations"} if isinstance(row, dict) else row
        for row in images
    ]
    return {**data, "images": bare, "annotations": found}


def _with_file_names(data: dict[str, Any], notes: KindNotes) -> dict[str, Any]:
    images = data.get("images")
    if not isinstance(images, list) or not images or not all(isinstance(row, dict) for row in images):
        return data
    if any("file_name" in row for row in images):
        return data
    for key in _NAME_KEYS:
        if all(isinstance(row.get(key), str) for row in images):
            notes.add(f"images have no 'file_name': {key!r} is used", repr(images[0][key]), len(images))
            return {**data, "images": [{**row, "file_name": row[key]} for row in images]}
    return data


def _with_usual_keys(data: dict[str, Any], notes: KindNotes) -> dict[str, Any]:
    """Annotations whose image and category are under the keys that other programs use."""
    rows = data.get("annotations")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        return data
    for usual, others in _OTHER_KEYS.items():
        if usual in rows[0] or any(usual in row for row in rows):
            continue
        key = next((key for key in others if all(isinstance(row.get(key), int | str) for row in rows)), None)
        if key is not None:
            notes.add(f"annotations have no {usual!r}: {key!r} is used", repr(rows[0][key]), len(rows))
            rows = [{**row, usual: row[key]} for row in rows]
    return {**data, "annotations": rows} if rows is not data["annotations"] else data


def _with_category_rows(data: dict[str, Any], notes: KindNotes) -> dict[str, Any]:
    """Categories as {"1": "dog"}, or as ["dog", "cat"] where the ids in use fit one way of counting only."""
    names = data.get("categories")
    if isinstance(names, dict) and names and all(type(number) is int for number in names.values()):
        rows = [{"id": number, "name": name} for name, number in names.items()]
        notes.add("categories are written as name and id", f"{rows[0]['name']!r}: {rows[0]['id']!r}", len(rows))
        return {**data, "categories": rows}
    if isinstance(names, dict) and names and all(isinstance(name, str) for name in names.values()):
        rows = [{"id": key, "name": name} for key, name in names.items()]
        notes.add("categories are written as id and name", f"{rows[0]['id']!r}: {rows[0]['name']!r}", len(rows))
        return {**data, "categories": rows}
    if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
        annotations = data.get("annotations")
        used = [row.get("category_id") for row in annotations or () if isinstance(row, dict)]
        for first in (0, 1):
            ids = range(first, first + len(names))
            other = 0 if first else len(names)  # the id that only the other way of counting has
            only_here = ids[0] if first == 0 else ids[-1]
            if used and only_here in used and other not in used and all(one in ids for one in used):
                notes.add(f"categories are a list of names: their ids count from {first}", repr(names[0]), len(names))
                return {**data, "categories": [{"id": i, "name": name} for i, name in zip(ids, names)]}
    return data


def _without_repeats(data: dict[str, Any], notes: KindNotes) -> dict[str, Any]:
    """Sections without entries that repeat what another says: the same id, and the same file, name or whole row."""
    for section, keys in (("images", ("file_name", "width", "height")), ("categories", ("name",))):
        rows = data.get(section)
        if not isinstance(rows, list) or not all(
            isinstance(row, dict) and isinstance(row.get("id"), int | str) for row in rows
        ):
            continue
        first = {row["id"]: row for row in reversed(rows)}
        if len(first) == len(rows):
            continue
        kept = [
            row for row in rows if row is first[row["id"]] or any(row.get(k) != first[row["id"]].get(k) for k in keys)
        ]
        if len(kept) < len(rows):
            name = next(row for row in rows if all(row is not one for one in kept)).get(keys[0])
            notes.add(f"{section} are listed twice: each is read once", repr(name), len(rows) - len(kept))
            data = {**data, section: kept}
    return data
