"""A saved detector on images of any origin: pictures to look at and COCO-style results."""

import glob
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from retinanet.build import build_sizing
from retinanet.data.coco import ImageRecord
from retinanet.data.images import FORMATS, decode_image
from retinanet.data.json_file import write_json
from retinanet.data.transforms import NO_AUGMENT, Sizing, collate, make_sample
from retinanet.errors import ConfigFault, DataFault, list_faults
from retinanet.evaluate import result_rows, to_results
from retinanet.inference import load_detector
from retinanet.pictures import draw_results
from retinanet.progress import image_progress
from retinanet.run_folder import make_folder
from retinanet.structures import Batch
from retinanet.visualize import save_picture


def find_images(inputs: list[str]) -> list[Path]:
    """The images that files, folders (their images, not of subfolders) and glob patterns name, each once, in order.

    DataFault lists every input that names nothing.
    """
    suffixes = {suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS}
    found: dict[Path, None] = {}
    faults = []
    for word in inputs:
        path = Path(word)
        if path.is_dir():
            matches = sorted(p for p in path.iterdir() if p.suffix.lower() in suffixes and p.is_file())
        elif path.is_file():
            matches = [path]
        else:
            matches = sorted(Path(p) for p in glob.glob(word, recursive=True) if Path(p).is_file())  # noqa: PTH207
        if not matches:
            faults.append(
                f"{word}: {'no image in this folder' if path.is_dir() else 'no such file, folder or pattern'}"
            )
        found.update(dict.fromkeys(matches))
    if faults:
        raise DataFault(list_faults("nothing to predict on", faults))
    return list(found)


def one_image(path: Path, image_id: int, sizing: Sizing) -> tuple[torch.Tensor, Batch]:
    """The stored image, (3, h, w) uint8, and a batch of it alone. DataFault for a file that is no whole image."""
    image = decode_image(path)
    height, width = int(image.shape[-2]), int(image.shape[-1])
    no_boxes = np.zeros((0, 4), dtype=np.float32)
    record = ImageRecord(image_id, path, height, width, no_boxes, np.zeros(0, dtype=np.int64), no_boxes)
    shorter = sizing.shorter_side[-1]
    canvas = sizing.group_canvas(sizing.shape_group(height, width), shorter)
    fitted = sizing.fitted(height, width, shorter)
    sample = make_sample(image, record, fitted, canvas, NO_AUGMENT, np.random.default_rng(0))
    return image, collate([sample], canvas)


def predict(checkpoint: Path, inputs: list[str], overrides: list[str], output: Path) -> None:
    """Detect on every input image; write output/<name>.jpg with boxes and output/detections.json.

    detections.json holds COCO results with file_name and category_name beside the ids; image_id counts from 1 in
    input order. Images that cannot be read are left out and told in one DataFault at the end.
    """
    paths = find_images(inputs)
    pictures = picture_files(paths, output)
    saved = load_detector(checkpoint, overrides)
    make_folder(output)
    sizing = build_sizing(saved.config)
    names = {category.id: category.name for category in saved.categories}
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    with image_progress("predicting", len(paths)) as report:
        for image_id, path in enumerate(paths, start=1):
            report(1)
            try:
                image, batch = one_image(path, image_id, sizing)
            except DataFault as fault:
                faults.append(str(fault))
                continue
            results = to_results(result_rows(image_id, saved.detector(batch)[0]), saved.categories)
            least = saved.config.eval.shown_score
            drawn = draw_results(image.permute(1, 2, 0).numpy(), results, saved.categories, least)
            save_picture(pictures[path], drawn)
            counts = Counter(names[r["category_id"]] for r in results if r["score"] >= least)
            print(f"{path}: {', '.join(f'{count} {name}' for name, count in counts.most_common()) or 'nothing'}")
            rows += [{**r, "file_name": str(path), "category_name": names[r["category_id"]]} for r in results]
    write_json(output / "detections.json", rows)
    print(f"{len(paths) - len(faults)} pictures and detections.json written to {output}/")
    if faults:
        raise DataFault(list_faults("images left out", faults))


def picture_files(paths: list[Path], output: Path) -> dict[Path, Path]:
    """Where each image's picture goes: stem.jpg in `output`, or stem_2.jpg and so on where that name is taken.

    ConfigFault where a picture would replace one of the images themselves.
    """
    taken: set[str] = set()
    repeats: Counter[str] = Counter()
    pictures: dict[Path, Path] = {}
    for path in paths:
        name = path.stem
        while name.lower() in taken:  # file systems that ignore case would take A.jpg for a.jpg
            repeats[path.stem] += 1
            name = f"{path.stem}_{repeats[path.stem] + 1}"
        taken.add(name.lower())
        pictures[path] = output / f"{name}.jpg"
    images = {path.resolve() for path in paths}
    replaced = [str(picture) for picture in pictures.values() if picture.resolve() in images]
    if replaced:
        raise ConfigFault(list_faults("--output: choose another folder; pictures would replace input images", replaced))
    return pictures
