"""A saved detector on any images: pictures with boxes, and its detections in several formats."""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from retinanet.build.rules import build_depth_range, build_resize_rule, build_view_rule
from retinanet.data.frames import SUFFIXES, frames_note
from retinanet.data.images import DEEP_SUFFIXES, depth_note, read_header
from retinanet.data.loose_images import ImageLike, read_image
from retinanet.data.pixel_depth import DepthRange
from retinanet.data.prefetch import prefetched
from retinanet.data.transforms import ResizeRule, joined
from retinanet.data.transparency import transparency_note
from retinanet.data.views import WHOLE_IMAGES, InputView, ViewRule, image_views
from retinanet.display.progress import image_progress
from retinanet.errors import DataError, check_name, list_errors, one_line, printable
from retinanet.evaluation.detector import AnyDetector
from retinanet.evaluation.evaluate import result_rows, to_results
from retinanet.evaluation.merging import merged
from retinanet.evaluation.outputs import (
    OutputFolder,
    PredictOptions,
    check_inputs_are_kept,
    result_names,
    write_all_results,
    write_image_results,
)
from retinanet.evaluation.saved import LoadedDetector
from retinanet.scoring.eval_file import read_eval_file
from retinanet.structures import Category, Detections


class LoadedImage(NamedTuple):
    """One input image on its way through the pipeline."""

    path: Path
    image: Tensor | None = None
    """(3, h, w) uint8 as stored; None if it cannot be read, or once it has been drawn."""
    views: Iterable[InputView] = ()
    """What the network is to see of it; none if it cannot be read, or after detection."""
    error: str = ""
    """Why it cannot be read."""
    note: str = ""
    """What is lost of its pixels."""
    frames: int = 1
    """Pages or frames in the file, of which the first is read."""
    results: list[dict[str, Any]] = []  # noqa: RUF012 - a NamedTuple's default, never changed
    """COCO results, after detection."""


def predict(
    load: Callable[[], LoadedDetector],
    paths: list[Path],
    *,
    source: Path,
    options: PredictOptions,
    thresholds: Path | None = None,
    passed_over: str = "",
) -> None:
    """Detect on every image; write pictures with boxes and the detections as `options` say.

    load: opens the detector of the file `source`; called after the names of the results have been checked. thresholds:
    an eval.json; detections that score below the best threshold of their class in it are neither drawn nor counted;
    without it, or for a class that is missing from it, those below eval.shown_score. detections.json holds all of them
    as COCO results with file_name, category_name and shown too; image_id counts from 1 in input order. passed_over: a
    note on other files. Images are read, and drawn, on data.workers threads each, up to eval.batch_size views of a
    canvas at a time. Unreadable ones are in one DataError at the end; if none can be read, nothing is written.
    """
    output, stems = OutputFolder(options), result_names(paths)
    check_inputs_are_kept(stems, options.output)
    saved = load()
    saved.detector.prepare()
    config, categories = saved.config, saved.categories
    names = {category.id: category.name for category in categories}
    least = dict.fromkeys(names, config.eval.shown_score) | best_thresholds(thresholds, categories, source)

    def is_shown(result: dict[str, Any]) -> bool:
        return bool(result["score"] >= least[result["category_id"]])

    def draw(one: LoadedImage) -> LoadedImage:
        if one.image is not None:
            shown = [result for result in one.results if is_shown(result)]
            pixels_HW3 = one.image.permute(1, 2, 0).numpy()
            write_image_results(output.path(), stems[one.path], pixels_HW3, shown, categories, options)
        return one._replace(image=None)

    rows: list[dict[str, Any]] = []
    done: list[LoadedImage] = []
    with ExitStack() as stack:
        report = stack.enter_context(image_progress("predicting", len(paths)))
        threads, read = config.data.workers, _reader(saved)
        loaded = stack.enter_context(closing(prefetched(read, enumerate(paths, start=1), threads, ahead=1)))
        found = detected(loaded, saved.detector, categories, config.eval.batch_size)
        for one in stack.enter_context(closing(prefetched(draw, found, threads, ahead=1))):
            done.append(one._replace(results=[]))
            if not one.error:
                print_found(one.path, Counter(names[r["category_id"]] for r in one.results if is_shown(r)))
            for r in one.results:
                more = {"file_name": str(one.path), "category_name": names[r["category_id"]], "shown": is_shown(r)}
                rows.append(r | more)
            report(1)
    print_notes(done, passed_over)
    errors = [one.error for one in done if one.error]
    if len(errors) < len(paths):
        written = write_all_results(output.path(), rows, categories, options.formats)
        print_written((len(paths) - len(errors)) * options.pictures, written, output.path())
        print_hints(rows, {output.path() / f"{stem}.jpg" for stem in stems.values()}, output.path())
    if errors:
        raise DataError(list_errors("images left out", errors))


def print_found(path: Path, counts: Counter[str]) -> None:
    """Print what was found in an image, the most frequent class first."""
    print(one_line(f"{path}: {', '.join(f'{n} {name}' for name, n in counts.most_common()) or 'nothing'}"))


def print_written(drawn: int, written: list[str], output: Path) -> None:
    """Print what is in the output folder: the number of pictures, and other files by name."""
    pictures = [f"{drawn} picture{'' if drawn == 1 else 's'}"] if drawn else []
    *most, last = [*pictures, *written]
    print(one_line(f"{', '.join(most)}{' and ' if most else ''}{last} written to {output}/"))


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


def print_notes(images: Sequence[LoadedImage], passed_over: str) -> None:
    """Print what of the images is not read: levels of their pixels, frames, transparency; and what was passed over."""
    deep = [one.note for one in images if one.note]
    if deep:
        print(printable(f"note: {deep[0]}") + (f"; {len(deep) - 1:,} more images are like it" if len(deep) > 1 else ""))
    for note in (
        frames_note({one.path: one.frames for one in images}),
        transparency_note([one.path for one in images]),
        passed_over,
    ):
        if note:
            print(printable(f"note: {note}"))


def _reader(saved: LoadedDetector) -> Callable[[tuple[int, Path]], LoadedImage]:
    config = saved.config
    depth_range = build_depth_range(config.data)
    return partial(
        load_image, resize_rule=build_resize_rule(config), depth_range=depth_range, rule=build_view_rule(config)
    )


def load_image(
    numbered: tuple[int, Path],
    resize_rule: ResizeRule,
    depth_range: DepthRange | None = None,
    rule: ViewRule = WHOLE_IMAGES,
) -> LoadedImage:
    """Read an image, or the reason why it cannot be read. numbered: its image_id and its file."""
    image_id, path = numbered
    try:
        check_name(path)
        image = read_image(path, str(path), depth_range)
        note = depth_note([path]) if depth_range is None and path.suffix.lower() in DEEP_SUFFIXES else ""
        frames = read_header(path).frames if path.suffix.lower() in SUFFIXES else 1
    except DataError as error:
        return LoadedImage(path=path, error=str(error))
    views = views_to_see(image, image_id, resize_rule, rule)
    return LoadedImage(path=path, image=image, views=views, note=note, frames=frames)


def load_pixels(
    numbered: tuple[int, ImageLike], resize_rule: ResizeRule, depth_range: DepthRange | None, rule: ViewRule
) -> LoadedImage:
    """An image of any kind, ready to be seen; of `image` only the size is kept. Raises DataError as `read_image`."""
    number, source = numbered
    name = str(source) if isinstance(source, str | Path) else f"image {number}"
    image = read_image(source, name, depth_range)
    views = views_to_see(image, number, resize_rule, rule)
    return LoadedImage(path=Path(name), image=image.new_empty((0, *image.shape[1:])), views=views)


def views_to_see(image: Tensor, image_id: int, resize_rule: ResizeRule, rule: ViewRule) -> Iterable[InputView]:
    """The views of an image: of one there is its batch; several are made when they are needed, to save memory."""
    views = image_views(image, image_id, resize_rule, rule)
    return tuple(views) if rule.tile is None and len(rule.looks()) == 1 else views


class _Seen(NamedTuple):
    """An image and what has been found in its views so far."""

    one: LoadedImage
    found: list[tuple[InputView, Detections]]


def detected(
    images: Iterable[LoadedImage], detector: AnyDetector, categories: tuple[Category, ...], most: int
) -> Iterator[LoadedImage]:
    """The images, in order, with their results; up to `most` consecutive views of one canvas share a forward pass."""
    queue = deque[_Seen]()
    waiting: list[tuple[_Seen, InputView]] = []

    def look() -> None:
        found = detector(joined([view.batch for _, view in waiting])) if waiting else []
        for (seen, view), detections in zip(waiting, found, strict=True):
            seen.found.append((view._replace(batch=view.batch._replace(images=torch.empty(0))), detections))
        waiting.clear()

    def finished(*, last: bool = False) -> Iterator[LoadedImage]:
        while queue and (last or not waiting or queue[0] is not waiting[0][0]):
            seen = queue.popleft()
            results = []
            if seen.found:
                rows_D7 = result_rows(seen.found[0][0].batch.image_ids_B, [merged(seen.found, detector.rule)])
                results = to_results(rows_D7, categories)
            yield seen.one._replace(results=results, views=())

    for one in images:
        seen = _Seen(one, [])
        for view in one.views:
            if waiting and (len(waiting) == most or waiting[0][1].batch.images.shape != view.batch.images.shape):
                look()
                yield from finished()
            waiting.append((seen, view))
        queue.append(seen)
    look()
    yield from finished(last=True)


def best_thresholds(path: Path | None, categories: tuple[Category, ...], source: Path) -> dict[int, float]:
    """Category id -> the score with the best F1 in an eval.json, of the classes for which one was measured.

    path: of a training or of `retinanet eval`; None gives none. Raises DataError where the file has no thresholds, or
    has classes that the detector `source` does not know.
    """
    if path is None:
        return {}
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
