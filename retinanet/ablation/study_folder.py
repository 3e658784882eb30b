"""The folder of a study: its layout, when it counts as taken, and whether its contents fit the study.

study.yaml (the resolved study), cells/NAME/ (run folder, cell.json, test/), claims/, logs/, report/, report.md,
report.html.
"""

import os
import shutil
from pathlib import Path

from retinanet.ablation.cells import (
    Cell,
    CellStatus,
    build_cell_config,
    cell_folder,
    list_cells,
    lr_of,
    read_record,
    read_records,
)
from retinanet.ablation.claims import all_owners
from retinanet.ablation.study import Study
from retinanet.ablation.study_file import ShapesKeys
from retinanet.ablation.study_text import study_text
from retinanet.config.load import config_to_dict, load_config
from retinanet.data.root import check_data_root
from retinanet.errors import ConfigError, DataError, ResourceError, list_errors
from retinanet.files import make_folder, write_text
from retinanet.interop.start import continue_model
from retinanet.prepare.shapes import generate_shapes
from retinanet.prepare.shapes_scene import DEFAULT_MIX, SceneMix
from retinanet.training.balance import continue_class_weights
from retinanet.training.state import config_differences

STUDY_CONTENTS = ("cells", "claims", "logs", "report", "study.yaml", "report.md", "report.html")
"""Everything that a study writes into its folder."""


def study_file(folder: Path) -> Path:
    """The resolved study, which the cells' processes read."""
    return folder / "study.yaml"


def log_path(folder: Path, cell: str) -> Path:
    """Output of the processes of a cell."""
    return folder / "logs" / f"{cell}.log"


def prepare_study(study: Study, *, resume: bool, overwrite: bool) -> None:
    """Make the study's folder, or continue in it, and write study.yaml.

    Raises ConfigError for a folder that holds a study unless resume or overwrite is given, and for cells in it that
    were trained with another config; ResourceError if it is in use or cannot be written; DataError if data is missing.
    """
    make_data(study)
    folder = study.folder
    if study_file(folder).exists():
        if overwrite:
            clear(study)
        elif not resume:
            raise ConfigError(
                f"output: {folder} already holds a study. Continue it with --resume, delete it with --overwrite, or "
                "choose another folder with output=PATH."
            )
    check_cells(study)
    make_folder(folder)
    for name in ("cells", "claims", "logs"):
        make_folder(folder / name)
    text = study_text(study)
    if not study_file(folder).exists() or study_file(folder).read_text(encoding="utf-8") != text:
        write_text(study_file(folder), text)


def make_data(study: Study) -> None:
    """Generate the study's data set if the study describes one that does not exist, and check that all files exist."""
    for part in study.parts():
        if part.shapes is not None:
            generate_study_data(part.shapes, Path(part.base.data.root))
        check_study_data(part)


def generate_study_data(shapes: ShapesKeys, root: Path) -> None:
    """Generate a data set in `root` unless it exists. Raises as `generate_shapes`."""
    if not root.exists():
        print(f"generating {shapes.train + shapes.val + shapes.test} scenes in {root} ...", flush=True)
    generate_shapes(
        root,
        train_images=shapes.train,
        val_images=shapes.val,
        test_images=shapes.test,
        size=(shapes.size[0], shapes.size[1]),
        seed=shapes.seed,
        mix=SceneMix(
            objects=DEFAULT_MIX.objects if shapes.objects is None else (shapes.objects[0], shapes.objects[1]),
            object_sides=None if shapes.object_sizes is None else (shapes.object_sizes[0], shapes.object_sizes[1]),
            empty_share=DEFAULT_MIX.empty_share if shapes.empty is None else shapes.empty,
        ),
    )


def check_study_data(study: Study) -> None:
    """Raise DataError if files of the data set of a study without levels, or of a part, are missing.

    Each cell checks their contents.
    """
    data = study.base.data
    root = Path(data.root)
    check_data_root(root)
    wanted = {
        "data.train_annotations": data.train_annotations,
        "data.val_annotations": data.val_annotations,
        "test.annotations": study.test[0],
    }
    errors = [f"{key}: no file {root / name}" for key, name in wanted.items() if not (root / name).is_file()]
    if not (root / study.test[1]).is_dir():
        errors.append(f"test.images: no folder {root / study.test[1]}")
    if errors:
        raise DataError(list_errors("files of the study's data set are missing", errors))


def check_cells(study: Study) -> None:
    """Raise ConfigError naming every cell in the folder that was trained or measured with other settings."""
    cells = list_cells(study)
    records = read_records(study.folder, [cell.name for cell in cells])
    errors = []
    for cell in cells:
        lr = lr_of(study, cell, records)
        if lr is not None:
            errors += [f"cell {cell.name}: {line}" for line in _differences(cell, lr, cell_folder(study, cell))]
        record = records.get(cell.name)
        if record is not None and record.test_metrics and (record.test_annotations, record.test_images) != study.test:
            was_test = f"{record.test_annotations}, {record.test_images}"
            errors.append(f"cell {cell.name}: test: was {was_test}, now {', '.join(study.test)}")
    if errors:
        title = (
            f"{study.folder} holds a study with other settings; use another output=PATH, delete it with --overwrite, "
            "or restore these"
        )
        raise ConfigError(list_errors(title, errors))


def take_tuning_cells(study: Study, other: Path) -> int:
    """Copy tuning cells that another study has trained and this one has not; returns how many.

    A study and its pilot have these in common: the same arm, rate, seed and config. Nothing is taken if the tuning
    cells may be results, which need their checkpoints. Raises ResourceError if they cannot be copied.
    """
    if study.lr_seeds is None:
        return 0
    taken = 0
    for cell in list_cells(study):
        source, target = other / "cells" / cell.name, cell_folder(study, cell)
        if not cell.tuning or cell.lr is None or target.exists() or not (source / "config.yaml").exists():
            continue
        record = read_record(other, cell.name)
        if record is None or record.status == CellStatus.FAILED or _differences(cell, cell.lr, source):
            continue
        taken += _copy_cell(source, target)
    return taken


def _copy_cell(source: Path, target: Path) -> bool:
    """Copy a cell's folder without what only a training needs; False if another process was faster."""
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        shutil.copytree(source, partial, ignore=shutil.ignore_patterns("checkpoints", "tensorboard", "run.lock"))
        partial.replace(target)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        if target.exists():
            return False
        raise ResourceError(f"{target}: cannot be copied from {source} ({error}); free some space") from error
    return True


def _differences(cell: Cell, lr: float, folder: Path) -> list[str]:
    """What the cell was trained with there and would not be now; empty if it was not trained."""
    saved = folder / "config.yaml"
    if not saved.exists():
        return []
    was = load_config(saved, [])
    now = continue_class_weights(continue_model(build_cell_config(cell, lr), was), was)
    return config_differences(config_to_dict(was), config_to_dict(now))


def clear(study: Study) -> None:
    """Delete what a study wrote and nothing else. Raises ResourceError while a cell is running."""
    folder = study.folder
    busy = [f"{name}: {owner}" for name, owner in all_owners(folder).items()]
    if busy:
        raise ResourceError(list_errors(f"output: {folder} is in use; stop these processes first", busy))
    for name in STUDY_CONTENTS:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
