"""A saved detector on images of any origin: pictures to look at and COCO-style results."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from retinanet.build import build_sizing
from retinanet.data.json_file import read_json, write_json
from retinanet.data.loose_images import find_images, one_image
from retinanet.data.prefetch import prefetched
from retinanet.data.transforms import Sizing, joined
from retinanet.errors import ConfigFault, DataFault, list_faults
from retinanet.evaluate import AnyDetector, result_rows, to_results
from retinanet.export.runtime import LoadedExport, is_exported, load_exported
from retinanet.inference import SavedDetector, load_detector
from retinanet.pictures import draw_results
from retinanet.progress import image_progress
from retinanet.run_folder import make_folder
from retinanet.structures import Batch, Category
from retinanet.visualize import save_picture


def load_any(path: Path, overrides: list[str]) -> SavedDetector | LoadedExport:
    """A checkpoint, or a file that tools/export.py wrote."""
    return load_exported(path, overrides) if is_exported(path) else load_detector(path, overrides)


class Loaded(NamedTuple):
    """One input image on its way."""

    path: Path
    image: Tensor | None
    """(3, h, w) uint8 as stored; None where it cannot be read."""
    batch: Batch | None
    """The image alone, fitted for the network."""
    fault: str
    results: list[dict[str, Any]]
    """COCO results, once detected."""


def predict(
    checkpoint: Path, inputs: list[str], overrides: list[str], output: Path, thresholds: Path | None = None
) -> None:
    """Detect on every input image; write output/<name>.jpg with boxes and output/detections.json.

    checkpoint: a checkpoint or an exported file. thresholds: an eval.json; detections that score below its best
    threshold of their class are not drawn or counted; without it, or for a class that it lacks, those below
    eval.shown_score. detections.json holds all as COCO results with file_name, category_name and shown beside the
    ids; image_id counts from 1 in input order.
    Images are read, and drawn, on data.workers threads each while others are in the network, up to eval.batch_size
    neighbours of one canvas at a time. Those that cannot be read are left out and told in one DataFault at the end.
    """
    paths = find_images(inputs)
    pictures = picture_files(paths, output)
    saved = load_any(checkpoint, overrides)
    saved.detector.prepare()
    config, categories = saved.config, saved.categories
    least = dict.fromkeys((category.id for category in categories), config.eval.shown_score)
    if thresholds is not None:
        least |= best_thresholds(thresholds, categories, checkpoint)
    make_folder(output)
    names = {category.id: category.name for category in categories}

    def is_shown(result: dict[str, Any]) -> bool:
        return bool(result["score"] >= least[result["category_id"]])

    def draw(one: Loaded) -> Loaded:
        if one.image is not None:
            shown = [result for result in one.results if is_shown(result)]
            pixels = one.image.permute(1, 2, 0).numpy()
            save_picture(pictures[one.path], draw_results(pixels, shown, categories, 0.0))
        return one._replace(image=None)

    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    with ExitStack() as stack:
        report = stack.enter_context(image_progress("predicting", len(paths)))
        threads, load = config.data.workers, partial(load_image, sizing=build_sizing(config))
        loaded = stack.enter_context(closing(prefetched(load, enumerate(paths, start=1), threads, ahead=1)))
        found = detected(loaded, saved.detector, categories, config.eval.batch_size)
        for one in stack.enter_context(closing(prefetched(draw, found, threads, ahead=1))):
            if one.fault:
                faults.append(one.fault)
            else:
                counts = Counter(names[r["category_id"]] for r in one.results if is_shown(r))
                print(f"{one.path}: {', '.join(f'{n} {name}' for name, n in counts.most_common()) or 'nothing'}")
            for r in one.results:
                told = {"category_name": names[r["category_id"]], "shown": is_shown(r)}
                rows.append({**r, "file_name": str(one.path), **told})
            report(1)
    write_json(output / "detections.json", rows)
    drawn = len(paths) - len(faults)
    print(f"{drawn} picture{'' if drawn == 1 else 's'} and detections.json written to {output}/")
    if faults:
        raise DataFault(list_faults("images left out", faults))


def load_image(numbered: tuple[int, Path], sizing: Sizing) -> Loaded:
    """An image, or why there is none. numbered: its image_id and its file."""
    image_id, path = numbered
    try:
        image, batch = one_image(path, image_id, sizing)
    except DataFault as fault:
        return Loaded(path, None, None, str(fault), [])
    return Loaded(path, image, batch, "", [])


def detected(
    images: Iterable[Loaded], detector: AnyDetector, categories: tuple[Category, ...], most: int
) -> Iterator[Loaded]:
    """The images, in order, with their results; up to `most` neighbours of one canvas share a pass of the network."""
    waiting: list[Loaded] = []

    def finished() -> Iterator[Loaded]:
        batches = [one.batch for one in waiting if one.batch is not None]
        detections = iter(detector(joined(batches)) if batches else [])
        for one in waiting:
            if one.batch is None:
                yield one
            else:
                rows_D7 = result_rows(one.batch.image_ids_B, [next(detections)])
                yield one._replace(results=to_results(rows_D7, categories), batch=None)
        waiting.clear()

    for one in images:
        canvases = {other.batch.images.shape for other in (*waiting, one) if other.batch is not None}
        if len(canvases) > 1 or len(waiting) == most:
            yield from finished()
        waiting.append(one)
    yield from finished()


def best_thresholds(path: Path, categories: tuple[Category, ...], source: Path) -> dict[int, float]:
    """Category id -> the score with the best F1 that tools/eval.py found, of classes that had objects to measure it.

    DataFault where the file holds none, or classes that the detector `source` does not know.
    """
    content = read_json(path)
    try:
        by_class = content["thresholds"]["by_class"]  # type: ignore[index]
        found = {(row["id"], row["name"]): row["score"] for row in by_class}
        scores = {key[0]: float(score) for key, score in found.items() if score is not None}
    except (KeyError, TypeError, ValueError) as error:
        raise DataFault(
            f"--thresholds: {path} holds no thresholds of each class; give an eval.json that this version of "
            "tools/eval.py wrote."
        ) from error
    unknown = found.keys() - {(category.id, category.name) for category in categories}
    if unknown:
        raise DataFault(
            f"--thresholds: {path} has classes that {source} does not know: "
            f"{', '.join(sorted(f'{identity} {name}' for identity, name in unknown)[:5])}. Evaluate this detector with "
            "tools/eval.py and give that eval.json."
        )
    return scores


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
