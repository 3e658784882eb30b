"""A saved detector on images of any origin: pictures to look at and COCO-style results."""

from collections import Counter
from pathlib import Path
from typing import Any

from retinanet.build import build_sizing
from retinanet.data.json_file import read_json, write_json
from retinanet.data.loose_images import find_images, one_image
from retinanet.errors import ConfigFault, DataFault, list_faults
from retinanet.evaluate import AnyDetector, result_rows, to_results
from retinanet.export.runtime import LoadedExport, is_exported, load_exported
from retinanet.inference import SavedDetector, load_detector
from retinanet.pictures import draw_results
from retinanet.progress import image_progress
from retinanet.run_folder import make_folder
from retinanet.structures import Category
from retinanet.visualize import save_picture


def load_any(path: Path, overrides: list[str]) -> SavedDetector | LoadedExport:
    """A checkpoint, or a file that tools/export.py wrote."""
    return load_exported(path, overrides) if is_exported(path) else load_detector(path, overrides)


def predict(
    checkpoint: Path, inputs: list[str], overrides: list[str], output: Path, thresholds: Path | None = None
) -> None:
    """Detect on every input image; write output/<name>.jpg with boxes and output/detections.json.

    checkpoint: a checkpoint or an exported file. thresholds: an eval.json; detections that score below its best
    threshold of their class are not drawn or counted; without it, or for a class that it lacks, those below
    eval.shown_score. detections.json holds all as COCO results with file_name, category_name and shown beside the
    ids; image_id counts from 1 in input order.
    Images that cannot be read are left out and told in one DataFault at the end.
    """
    paths = find_images(inputs)
    pictures = picture_files(paths, output)
    saved = load_any(checkpoint, overrides)
    detector: AnyDetector = saved.detector
    detector.prepare()
    least = dict.fromkeys((category.id for category in saved.categories), saved.config.eval.shown_score)
    if thresholds is not None:
        least |= best_thresholds(thresholds, saved.categories, checkpoint)
    make_folder(output)
    sizing = build_sizing(saved.config)
    names = {category.id: category.name for category in saved.categories}
    rows: list[dict[str, Any]] = []
    faults: list[str] = []
    with image_progress("predicting", len(paths)) as report:
        for image_id, path in enumerate(paths, start=1):
            try:
                image, batch = one_image(path, image_id, sizing)
            except DataFault as fault:
                faults.append(str(fault))
                report(1)
                continue
            results = to_results(result_rows(image_id, detector(batch)[0]), saved.categories)
            shown = [r for r in results if r["score"] >= least[r["category_id"]]]
            save_picture(pictures[path], draw_results(image.permute(1, 2, 0).numpy(), shown, saved.categories, 0.0))
            counts = Counter(names[r["category_id"]] for r in shown)
            print(f"{path}: {', '.join(f'{count} {name}' for name, count in counts.most_common()) or 'nothing'}")
            for r in results:
                told = {"category_name": names[r["category_id"]], "shown": r["score"] >= least[r["category_id"]]}
                rows.append({**r, "file_name": str(path), **told})
            report(1)
    write_json(output / "detections.json", rows)
    drawn = len(paths) - len(faults)
    print(f"{drawn} picture{'' if drawn == 1 else 's'} and detections.json written to {output}/")
    if faults:
        raise DataFault(list_faults("images left out", faults))


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
