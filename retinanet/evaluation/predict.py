"""A saved detector on any images: pictures with boxes, and COCO-style results."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from retinanet.build import build_depth_range, build_resize_rule
from retinanet.config.schema import Config
from retinanet.data.images import DEEP_SUFFIXES, depth_note
from retinanet.data.loose_images import one_image
from retinanet.data.pixel_depth import DepthRange
from retinanet.data.prefetch import prefetched
from retinanet.data.transforms import ResizeRule, joined
from retinanet.display.drawing import save_picture
from retinanet.display.progress import image_progress
from retinanet.errors import ConfigError, DataError, list_errors, one_line, printable
from retinanet.evaluation.detector import AnyDetector
from retinanet.evaluation.evaluate import result_rows, to_results
from retinanet.evaluation.saved import LoadedDetector
from retinanet.files import make_folder, write_json
from retinanet.run.pictures import draw_results
from retinanet.scoring.eval_file import read_eval_file
from retinanet.structures import Batch, Category


class LoadedImage(NamedTuple):
    """One input image on its way through the pipeline."""

    path: Path
    image: Tensor | None = None
    """(3, h, w) uint8 as stored; None if it cannot be read, or once it has been drawn."""
    batch: Batch | None = None
    """A batch of this image alone, resized for the network; None if it cannot be read, or after detection."""
    error: str = ""
    """Why it cannot be read."""
    note: str = ""
    """What is lost of its pixels."""
    results: list[dict[str, Any]] = []  # noqa: RUF012 - a NamedTuple's default, never changed
    """COCO results, after detection."""


def predict(
    load: Callable[[], LoadedDetector],
    paths: list[Path],
    *,
    source: Path,
    output: Path,
    thresholds: Path | None = None,
    passed_over: str = "",
) -> None:
    """Detect on every image; write output/<name>.jpg with boxes and output/detections.json.

    load: opens the detector of the file `source`; called after the names of the pictures have been checked. thresholds:
    an eval.json; detections that score below the best threshold of their class in it are neither drawn nor counted;
    without it, or for a class that is missing from it, those below eval.shown_score. detections.json holds all of them
    as COCO results with file_name, category_name and shown in addition to the ids; image_id counts from 1 in input
    order. passed_over: a note on other files. Images are read, and drawn, on data.workers threads each, up to
    eval.batch_size ones of a canvas at a time. Unreadable ones are in one DataError at the end.
    """
    pictures = picture_files(paths, output)
    saved = load()
    saved.detector.prepare()
    config, categories = saved.config, saved.categories
    names = {category.id: category.name for category in categories}
    least = dict.fromkeys((category.id for category in categories), config.eval.shown_score)
    least |= best_thresholds(thresholds, categories, source) if thresholds is not None else {}
    make_folder(output)

    def is_shown(result: dict[str, Any]) -> bool:
        return bool(result["score"] >= least[result["category_id"]])

    def draw(one: LoadedImage) -> LoadedImage:
        if one.image is not None:
            shown = [result for result in one.results if is_shown(result)]
            pixels = one.image.permute(1, 2, 0).numpy()
            save_picture(pictures[one.path], draw_results(pixels, shown, categories, 0.0))
        return one._replace(image=None)

    rows: list[dict[str, Any]] = []
    errors, deep = list[str](), list[str]()
    with ExitStack() as stack:
        report = stack.enter_context(image_progress("predicting", len(paths)))
        threads, read = config.data.workers, _reader(config)
        loaded = stack.enter_context(closing(prefetched(read, enumerate(paths, start=1), threads, ahead=1)))
        found = detected(loaded, saved.detector, categories, config.eval.batch_size)
        for one in stack.enter_context(closing(prefetched(draw, found, threads, ahead=1))):
            deep += [one.note] if one.note else []
            if one.error:
                errors.append(one.error)
            else:
                print_found(one.path, Counter(names[r["category_id"]] for r in one.results if is_shown(r)))
            for r in one.results:
                name = names[r["category_id"]]
                rows.append({**r, "file_name": str(one.path), "category_name": name, "shown": is_shown(r)})
            report(1)
    write_json(output / "detections.json", rows)
    print_notes(deep, passed_over)
    print_written(len(paths) - len(errors), output)
    print_hints(rows, set(pictures.values()), output)
    if errors:
        raise DataError(list_errors("images left out", errors))


def print_found(path: Path, counts: Counter[str]) -> None:
    """Print what was found in an image, the most frequent class first."""
    print(one_line(f"{path}: {', '.join(f'{n} {name}' for name, n in counts.most_common()) or 'nothing'}"))


def print_written(drawn: int, output: Path) -> None:
    """Print how many pictures are in the output folder."""
    print(one_line(f"{drawn} picture{'' if drawn == 1 else 's'} and detections.json written to {output}/"))


def print_hints(rows: list[dict[str, Any]], pictures: set[Path], output: Path) -> None:
    """Print what to type where nothing was found, and that the folder holds other pictures, too."""
    if rows and not any(row["shown"] for row in rows):
        highest = max(row["score"] for row in rows)
        print(
            f"nothing was found in any image: the highest score is {highest:.3f}. eval.shown_score={highest / 2:.2g} "
            "shows what scores less; `retinanet doctor RUN` looks for the cause"
        )
    others = sum(file not in pictures for file in output.glob("*.jpg"))
    if others:
        print(one_line(f"note: {output}/ also holds {others:,} picture{'s' if others > 1 else ''} of other images"))


def print_notes(deep: list[str], passed_over: str) -> None:
    """Print what was lost. deep: a note for each image whose pixels lose levels; passed_over: see `predict`."""
    if deep:
        print(printable(f"note: {deep[0]}") + (f"; {len(deep) - 1:,} more images are like it" if len(deep) > 1 else ""))
    if passed_over:
        print(printable(f"note: {passed_over}"))


def _reader(config: Config) -> Callable[[tuple[int, Path]], LoadedImage]:
    return partial(load_image, resize_rule=build_resize_rule(config), depth_range=build_depth_range(config.data))


def load_image(
    numbered: tuple[int, Path], resize_rule: ResizeRule, depth_range: DepthRange | None = None
) -> LoadedImage:
    """Read an image, or the reason why it cannot be read. numbered: its image_id and its file."""
    image_id, path = numbered
    try:
        image, batch = one_image(path, image_id, resize_rule, depth_range)
        note = depth_note([path]) if depth_range is None and path.suffix.lower() in DEEP_SUFFIXES else ""
    except DataError as error:
        return LoadedImage(path=path, error=str(error))
    return LoadedImage(path=path, image=image, batch=batch, note=note)


def detected(
    images: Iterable[LoadedImage], detector: AnyDetector, categories: tuple[Category, ...], most: int
) -> Iterator[LoadedImage]:
    """The images, in order, with their results; up to `most` consecutive ones of one canvas share a forward pass."""
    waiting: list[LoadedImage] = []

    def finished() -> Iterator[LoadedImage]:
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
    """Category id -> the score with the best F1 in an eval.json, of the classes for which one was measured.

    path: of a training or of `retinanet eval`. Raises DataError where the file has no thresholds, or has classes that
    the detector `source` does not know.
    """
    content = read_eval_file(path)
    try:
        found = {(row["id"], row["name"]): row["score"] for row in content["thresholds"]["by_class"]}
        scores = {key[0]: float(score) for key, score in found.items() if score is not None}
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"--thresholds: {path} holds no thresholds of each class; give an eval.json that this version of "
            "`retinanet train` or `retinanet eval` wrote."
        ) from error
    unknown = found.keys() - {(category.id, category.name) for category in categories}
    if unknown:
        raise DataError(
            f"--thresholds: {path} has classes that {source} does not know: "
            f"{', '.join(sorted(f'{identity} {name}' for identity, name in unknown)[:5])}. Evaluate this detector with "
            "retinanet eval and give that eval.json."
        )
    return scores


def picture_files(paths: list[Path], output: Path) -> dict[Path, Path]:
    """The path of each image's picture: stem.jpg in `output`, or stem_2.jpg and so on if that name is taken.

    ConfigError if a picture would replace one of the input images.
    """
    taken: set[str] = set()
    repeats: Counter[str] = Counter()
    pictures: dict[Path, Path] = {}
    for path in paths:
        name = path.stem
        while name.lower() in taken:  # to a file system that ignores case, A.jpg and a.jpg are the same file
            repeats[path.stem] += 1
            name = f"{path.stem}_{repeats[path.stem] + 1}"
        taken.add(name.lower())
        pictures[path] = output / f"{name}.jpg"
    images = {path.resolve() for path in paths}
    replaced = [str(picture) for picture in pictures.values() if picture.resolve() in images]
    if replaced:
        raise ConfigError(list_errors("--output: choose another folder; pictures would replace input images", replaced))
    return pictures
