"""The generated data set: textured, cluttered scenes of three shapes, as JPEG files in COCO layout.

The bytes are reproducible on one machine; other releases of numpy or Pillow may draw or encode a pixel differently.
"""

import json
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from retinanet.errors import ConfigError, DataError, ResourceError, list_errors
from retinanet.prepare.shapes_draw import CLASS_NAMES
from retinanet.prepare.shapes_scene import draw_scene, scene_annotations

VERSION = 1
"""Increased whenever the pixels or annotations of a seed change."""

SPLITS = ("train", "val", "test")
MANIFEST = "shapes.json"
SMALLEST_SIDE = 64
JPEG_QUALITY = 90


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=None, separators=(",", ":")) + "\n", encoding="utf-8")


def _write_split(
    folder: Path, split: int, count: int, size: tuple[int, int], seed: int, report: Callable[[], None]
) -> None:
    (folder / SPLITS[split]).mkdir()
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for index in range(count):
        scene = draw_scene(seed, split, index, size)
        name = f"{index + 1:06d}.jpg"
        Image.fromarray(scene.image).save(folder / SPLITS[split] / name, quality=JPEG_QUALITY, subsampling=0)
        images.append({"id": index + 1, "file_name": name, "height": size[0], "width": size[1], "license": 1})
        annotations += scene_annotations(scene, index + 1, len(annotations) + 1)
        report()
    content = {
        "info": {"description": f"Generated shapes, {SPLITS[split]} split, seed {seed}", "version": str(VERSION)},
        "licenses": [{"id": 1, "name": "CC0 1.0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"}],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": i + 1, "name": n, "supercategory": "shape"} for i, n in enumerate(CLASS_NAMES)],
    }
    _write_json(folder / "annotations" / f"{SPLITS[split]}.json", content)


def _check_arguments(counts: tuple[int, int, int], size: tuple[int, int], seed: int) -> None:
    errors = [
        f"{split}_images is {count}; it must be at least {least}"
        for split, count, least in zip(SPLITS, counts, (1, 1, 0), strict=True)
        if count < least
    ]
    errors += [
        f"size {name} is {side}; it must be at least {SMALLEST_SIDE} pixels"
        for name, side in zip(("height", "width"), size)
        if side < SMALLEST_SIDE
    ]
    if seed < 0:
        errors.append(f"seed is {seed}; it must not be negative")
    if errors:
        raise ConfigError(list_errors("shapes cannot be generated", errors))


def _already_there(folder: Path, manifest: dict[str, object]) -> bool:
    """Whether `folder` contains the set that `manifest` describes. Raises DataError if it contains anything else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        found = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder} exists and is not a generated data set ({MANIFEST}: {error}); choose another folder"
        ) from error
    if found != manifest:
        raise DataError(
            f"{folder} contains shapes generated with other parameters; choose another folder, or delete this one.\n"
            f"  found:     {json.dumps(found)}\n  requested: {json.dumps(manifest)}"
        )
    return True


def _move_into_place(partial: Path, folder: Path, manifest: dict[str, object]) -> None:
    """Rename the finished `partial` to `folder`, unless another process has just put the same set there."""
    try:
        partial.rename(folder)
    except OSError:
        if not _already_there(folder, manifest):
            raise


def generate_shapes(
    folder: Path,
    *,
    train_images: int,
    val_images: int,
    test_images: int = 0,
    size: tuple[int, int] = (320, 320),
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write annotations/{train,val}.json, train/*.jpg, val/*.jpg and shapes.json into `folder`, all or nothing.

    test_images adds a test split and changes nothing else. size is (height, width) in pixels; progress is called with
    (images done, images in all). Returns at once if the same set exists. Raises ConfigError for arguments
    out of range, DataError if the folder contains anything else, ResourceError if it cannot be written.
    """
    numbers = (train_images, val_images, test_images)
    _check_arguments(numbers, size, seed)
    folder = folder.absolute()
    counts = {f"{split}_images": count for split, count in zip(SPLITS, numbers, strict=True) if count}
    manifest: dict[str, object] = {"version": VERSION, "seed": seed, **counts, "size": list(size)}
    if _already_there(folder, manifest):
        return
    partial = folder.parent / f".{folder.name}.{secrets.token_hex(4)}.partial"
    done = 0

    def report() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, sum(numbers))

    try:
        (partial / "annotations").mkdir(parents=True)
        for split, count in enumerate(numbers):
            if count:
                _write_split(partial, split, count, size, seed, report)
        _write_json(partial / MANIFEST, manifest)
        _move_into_place(partial, folder, manifest)
    except OSError as error:
        raise ResourceError(f"cannot write the shapes to {folder}: {error}; choose another folder") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
