"""The generated data set: textured, cluttered scenes of three shapes, as JPEG files in COCO layout.

The bytes are reproducible on one machine; other releases of numpy or Pillow may draw or encode a pixel differently.
"""

import json
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from retinanet.data.images import MAX_PIXELS
from retinanet.errors import ConfigError, DataError, ResourceError, list_errors
from retinanet.prepare.shapes_draw import CLASS_NAMES
from retinanet.prepare.shapes_scene import DEFAULT_MIX, MOST_OF_IMAGE, SceneMix, draw_scene, scene_annotations

VERSION = 1
"""Increased whenever the pixels or annotations of a seed change."""

SPLITS = ("train", "val", "test")
MANIFEST = "shapes.json"
SMALLEST_SIDE = 64
SMALLEST_OBJECT = 4.0
"""Least pixels of an object's longer side."""
JPEG_QUALITY = 90


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=None, separators=(",", ":")) + "\n", encoding="utf-8")


def _write_split(
    folder: Path,
    split: int,
    count: int,
    size: tuple[int, int],
    seed: int,
    mix: SceneMix,
    report: Callable[[], None],
) -> None:
    (folder / SPLITS[split]).mkdir()
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for index in range(count):
        scene = draw_scene(seed, split, index, size, mix)
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


def _check_arguments(counts: tuple[int, int, int], size: tuple[int, int], seed: int, mix: SceneMix) -> None:
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
    if size[0] * size[1] > MAX_PIXELS:
        errors.append(f"size is {size[0]} x {size[1]}; an image may have at most {MAX_PIXELS:,} pixels")
    errors += _mix_errors(mix, size)
    if errors:
        raise ConfigError(list_errors("shapes cannot be generated", errors))


def _mix_errors(mix: SceneMix, size: tuple[int, int]) -> list[str]:
    errors = []
    fewest, most = mix.objects
    if not 1 <= fewest <= most:
        errors.append(
            f"objects is [{fewest}, {most}]; give [fewest, most] of scenes that are not empty, at least 1, and the "
            "share of empty scenes as `empty`"
        )
    if mix.object_sides is not None:
        least, largest = mix.object_sides
        limit = MOST_OF_IMAGE * min(size)
        if not SMALLEST_OBJECT <= least <= largest <= limit:
            errors.append(
                f"object_sizes is [{least:g}, {largest:g}]; give [least, most] pixels between {SMALLEST_OBJECT:g} and "
                f"{limit:g}, {MOST_OF_IMAGE:g} of the shorter side"
            )
    if not 0 <= mix.empty_share < 1:
        errors.append(f"empty is {mix.empty_share:g}; it must be at least 0 and below 1")
    return errors


def _mix_in_manifest(mix: SceneMix) -> dict[str, object]:
    """The settings that differ from the defaults, so that manifests of before they existed still fit."""
    values = {"objects": mix.objects, "object_sizes": mix.object_sides, "empty": mix.empty_share}
    usual = (DEFAULT_MIX.objects, DEFAULT_MIX.object_sides, DEFAULT_MIX.empty_share)
    changed = {name: value for (name, value), default in zip(values.items(), usual, strict=True) if value != default}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in changed.items()}


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
    mix: SceneMix = DEFAULT_MIX,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write annotations/{train,val}.json, train/*.jpg, val/*.jpg and shapes.json into `folder`, all or nothing.

    test_images adds a test split and changes nothing else. size is (height, width) in pixels; mix: what the scenes
    hold, the same in every split. progress is called with (images done, images in all). Returns at once if the same
    set exists. Raises ConfigError for arguments out of range,
    DataError if the folder contains anything else, ResourceError if it cannot be written.
    """
    numbers = (train_images, val_images, test_images)
    _check_arguments(numbers, size, seed, mix)
    folder = folder.absolute()
    counts = {f"{split}_images": count for split, count in zip(SPLITS, numbers, strict=True) if count}
    manifest: dict[str, object] = {"version": VERSION, "seed": seed, **counts, "size": list(size)}
    manifest |= _mix_in_manifest(mix)
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
                _write_split(partial, split, count, size, seed, mix, report)
        _write_json(partial / MANIFEST, manifest)
        _move_into_place(partial, folder, manifest)
    except OSError as error:
        raise ResourceError(f"cannot write the shapes to {folder}: {error}; choose another folder") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
