"""A saved detector at work: evaluating a checkpoint on a data set, and files of detections against ground truth."""

from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from retinanet import checkpoint as checkpoints
from retinanet import distributed
from retinanet.build import build_detector, build_loss_and_model, build_sizing, seed_everything
from retinanet.checkpoint import load_weights
from retinanet.config import Config
from retinanet.config_file import with_overrides
from retinanet.console import evaluation_table
from retinanet.data.coco import CocoDataset, first_images, load_coco, load_ground_truth
from retinanet.data.json_file import write_json
from retinanet.data.results import read_results
from retinanet.errors import DataFault
from retinanet.evaluate import Detector, Evaluation, coco_evaluation, evaluate_dataset, write_evaluation
from retinanet.progress import image_progress
from retinanet.run_folder import make_folder
from retinanet.structures import Category


class SavedDetector(NamedTuple):
    """A checkpoint ready to detect, with its config after overrides and the classes it knows."""

    detector: Detector
    config: Config
    categories: tuple[Category, ...]
    step: int


def load_detector(path: Path, overrides: list[str]) -> SavedDetector:
    """Read a checkpoint onto the device of its config. `overrides` are key=value words for that config."""
    saved = checkpoints.load(path)
    config = with_overrides(saved.config, overrides)
    device = distributed.choose_device(config.device, distributed.read_ranks())
    seed_everything(config.seed, config.threads)
    _, model = build_loss_and_model(config, len(saved.categories), load_weights=False)
    load_weights(model, saved.weights(), str(path))
    detector = build_detector(config, model.to(device).eval(), device)
    return SavedDetector(detector, config, saved.categories, saved.progress.step)


def evaluate_checkpoint(path: Path, overrides: list[str], output: Path | None) -> None:
    """COCO numbers of a checkpoint on the val split of its config's data (data.* overrides name another).

    Prints a table and writes eval.json and detections.json into `output`, else into a folder of the run.
    """
    ranks = distributed.read_ranks()
    saved = load_detector(path, overrides)
    data = saved.config.data
    root = Path(data.root)
    dataset = first_images(
        load_coco(root / data.val_annotations, root / data.val_images, data.check_images), data.limit
    )
    check_categories(saved.categories, dataset, path)
    home = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    folder = output or home / f"eval-{path.stem}-{Path(data.val_annotations).stem}"
    if ranks.is_main:
        make_folder(folder)
    distributed.start(ranks, saved.detector.device)
    with image_progress("evaluating", -(-len(dataset.images) // ranks.size)) as report:
        batches = (saved.config.eval.batch_size, data.workers)
        sizing = build_sizing(saved.config)
        evaluation, results = evaluate_dataset(saved.detector, dataset, sizing, batches, ranks, report)
    distributed.stop()
    if ranks.is_main:
        write_evaluation(folder / "eval.json", folder / "detections.json", evaluation, results, saved.step)
        show(evaluation, folder)


def evaluate_files(ground_truth: Path, detections: Path, output: Path | None) -> None:
    """COCO numbers of a results file against an annotation file, both JSON, gzipped or not."""
    truth = load_ground_truth(ground_truth)
    results = read_results(detections, truth)
    folder = output or Path("runs") / f"eval-{detections.name.split('.')[0]}"
    make_folder(folder)
    evaluation = coco_evaluation(truth, results)
    write_json(folder / "eval.json", evaluation.as_dict(), indent=1)
    show(evaluation, folder)


def show(evaluation: Evaluation, folder: Path) -> None:
    """The table on the terminal, and where the files are."""
    console = Console()
    console.print(evaluation_table(evaluation.metrics, evaluation.per_class))
    console.print(f"written to {folder}/", markup=False, highlight=False, soft_wrap=True)


def check_categories(known: tuple[Category, ...], dataset: CocoDataset, source: Path) -> None:
    """DataFault where the data set's classes are not those that the checkpoint was trained on."""
    if known != dataset.categories:
        only_model = [f"{c.id} {c.name}" for c in known if c not in dataset.categories][:5]
        only_data = [f"{c.id} {c.name}" for c in dataset.categories if c not in known][:5]
        raise DataFault(
            f"{dataset.annotation_file}: its categories are not those of {source}: only in the checkpoint "
            f"{only_model}, only in the data {only_data}. Evaluate on data with the ids and names of its training."
        )
