"""A saved detector at work: loading it, and evaluating it on a data set."""

from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol

from retinanet import distributed
from retinanet.analysis.outcome import leave_behind
from retinanet.analysis.stale import TITLE
from retinanet.analysis.subject import Subject
from retinanet.anchor_fit.section import anchor_section
from retinanet.build import build_detector, build_loss_and_model, build_sizing, seed_everything
from retinanet.checkpoint import load_weights
from retinanet.config import Config
from retinanet.config_file import with_overrides
from retinanet.data.coco import CocoDataset, first_images, load_coco
from retinanet.data.json_file import write_json
from retinanet.errors import DataFault
from retinanet.evaluate import AnyDetector, Detector, evaluate_dataset
from retinanet.interop.published import read_ours
from retinanet.progress import image_progress
from retinanet.run_folder import make_folder
from retinanet.scoring.evaluation import check_engine
from retinanet.structures import Category


class Loaded(Protocol):
    """What evaluation needs of a `SavedDetector`, or of an exported file that was loaded."""

    @property
    def detector(self) -> AnyDetector: ...
    @property
    def config(self) -> Config: ...
    @property
    def categories(self) -> tuple[Category, ...]: ...
    @property
    def step(self) -> int: ...


class SavedDetector(NamedTuple):
    """A checkpoint ready to detect, with its config after overrides and the classes it knows."""

    detector: Detector
    config: Config
    categories: tuple[Category, ...]
    step: int


def load_detector(path: Path, overrides: list[str]) -> SavedDetector:
    """Read a checkpoint onto the device of its config. `overrides` are key=value words for that config.

    path: of a run (.pt), or of tools/convert_weights.py (.pt or .safetensors).
    """
    saved = read_ours(path)
    config = with_overrides(saved.config, overrides)
    device = distributed.choose_device(config.device, distributed.read_ranks())
    seed_everything(config.seed, config.threads)
    _, model = build_loss_and_model(config, len(saved.categories), load_weights=False)
    load_weights(model, saved.weights(), str(path))
    detector = build_detector(config, model.to(device).eval(), device)
    return SavedDetector(detector, config, saved.categories, saved.progress.step)


def evaluate_checkpoint(path: Path, overrides: list[str], output: Path | None, *, report: bool = True) -> None:
    """`evaluate_loaded` of the checkpoint `path`. `overrides` are key=value words for its config."""
    evaluate_loaded(load_detector(path, overrides), path, output, report=report)


def evaluate_loaded(saved: Loaded, path: Path, output: Path | None, *, report: bool) -> None:
    """COCO numbers and analyses of the detector from `path` on the val split of its config's data.

    Prints a table and writes eval.json, detections.json and, unless `report` is False, report.html and plots/ into
    `output`, else into a folder of the run.
    """
    ranks = distributed.read_ranks()
    check_engine(saved.config.eval.engine)
    data = saved.config.data
    root = Path(data.root)
    check_is_there(root, data.val_annotations)
    dataset = first_images(
        load_coco(root / data.val_annotations, root / data.val_images, data.check_images), data.limit
    )
    left_out = check_covers(saved.categories, dataset, path)
    home = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    folder = output or home / f"eval-{path.stem}-{Path(data.val_annotations).stem}"
    if ranks.is_main:
        make_folder(folder)
    distributed.start(ranks, saved.detector.device)
    with image_progress("evaluating", -(-len(dataset.images) // ranks.size)) as on_batch:
        batches = (saved.config.eval.batch_size, data.workers)
        sizing = build_sizing(saved.config)
        evaluation, results = evaluate_dataset(
            saved.detector, dataset, sizing, batches, ranks, on_batch, saved.config.eval.engine, saved.categories
        )
    distributed.stop()
    if ranks.is_main:
        write_json(folder / "detections.json", results)
        precision = precision_name(saved.detector)
        how = f"computed in {precision} on {saved.detector.device.type}"
        print(f"{path}: {how}")
        lines = [f"Detector: {path}, step {saved.step:,}, {how}.", f"Data: {dataset.annotation_file}."]
        if left_out:
            lines.append(f"Detections of {left_out} classes that the data do not have are left out.")
            print(lines[-1])
        subject = Subject(f"{TITLE}{home.name or path.stem}", tuple(lines), dataset.image_folder)
        leave_behind(
            folder,
            subject,
            evaluation,
            dataset.ground_truth,
            results,
            {"step": saved.step, "precision": precision},
            report=report,
            extra=partial(anchor_section, saved.config, dataset),
        )


def precision_name(detector: AnyDetector) -> str:
    """What the network is computed in: as "bfloat16"; an exported file has a precision of its own."""
    return (
        str(detector.precision).removeprefix("torch.")
        if isinstance(detector, Detector)
        else "the precision of the exported file"
    )


def check_is_there(root: Path, annotations: str) -> None:
    """DataFault, with how to mend it, where the data that a detector was trained with are not where they were."""
    if not root.is_dir():
        raise DataFault(f"data.root: no folder {root}; give the data set's with data.root=PATH (see data/README.md).")
    if not (root / annotations).is_file():
        raise DataFault(
            f"data.val_annotations: no file {root / annotations}; give the folder of the data set with data.root=PATH, "
            "and if need be the file within it with data.val_annotations=FILE."
        )


def check_categories(known: tuple[Category, ...], dataset: CocoDataset, source: Path) -> None:
    """DataFault where the data set's classes are not those that the checkpoint was trained on."""
    if known != dataset.categories:
        only_model = [f"{c.id} {c.name}" for c in known if c not in dataset.categories][:5]
        only_data = [f"{c.id} {c.name}" for c in dataset.categories if c not in known][:5]
        raise DataFault(
            f"{dataset.annotation_file}: its categories are not those of {source}: only in the checkpoint "
            f"{only_model}, only in the data {only_data}. Evaluate on data with the ids and names of its training."
        )


def check_covers(known: tuple[Category, ...], dataset: CocoDataset, source: Path) -> int:
    """How many classes the checkpoint knows beside those of the data; DataFault where the data have one it does not.

    A checkpoint may know more: torchvision's COCO models have outputs for ids that COCO does not use.
    """
    if not set(dataset.categories) <= set(known):
        check_categories(known, dataset, source)
    return len(known) - len(dataset.categories)
