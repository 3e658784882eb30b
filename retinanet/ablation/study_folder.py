"""The folder of a study: what lies where, when it counts as taken, and whether what is in it fits the study.

study.yaml (the resolved study), cells/NAME/ (run folder, cell.json, test/), claims/, logs/, report.md, report.html.
"""

import shutil
from pathlib import Path

from retinanet.ablation.cells import build_cell_config, cell_folder, list_cells, lr_of, read_records
from retinanet.ablation.claims import live_owner
from retinanet.ablation.guards import flat
from retinanet.ablation.study import Study, study_text
from retinanet.config.load import load_config
from retinanet.data.root import check_data_root
from retinanet.errors import ConfigError, DataError, ResourceError, list_errors
from retinanet.files import make_folder, write_text
from retinanet.prepare.shapes import generate_shapes
from retinanet.training.state import FREE_TO_CHANGE

OURS = ("cells", "claims", "logs", "report", "study.yaml", "report.md", "report.html")


def study_file(folder: Path) -> Path:
    """The resolved study, which the cells' processes read."""
    return folder / "study.yaml"


def log_path(folder: Path, cell: str) -> Path:
    """Output of the processes of a cell."""
    return folder / "logs" / f"{cell}.log"


def prepare(study: Study, *, resume: bool, overwrite: bool) -> None:
    """Make the study's folder, or continue in it, and write study.yaml.

    Raises ConfigError for a folder with a study in it unless resume or overwrite is told, and for cells in it that
    were trained with another config; ResourceError where it is in use or cannot be written; DataError without data.
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
    """Generate the study's data where it says how and it is not there, and check that all files are there."""
    shapes = study.shapes
    if shapes is not None:
        root = Path(study.base.data.root)
        if not root.exists():
            print(f"generating {shapes.train + shapes.val + shapes.test} scenes in {root} ...", flush=True)
        generate_shapes(
            root,
            train_images=shapes.train,
            val_images=shapes.val,
            test_images=shapes.test,
            size=(shapes.size[0], shapes.size[1]),
            seed=shapes.seed,
        )
    check_data(study)


def check_data(study: Study) -> None:
    """DataError where the study's files are not there. What is in them is checked by each cell."""
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
        raise DataError(list_errors("the study's data is not there", errors))


def check_cells(study: Study) -> None:
    """ConfigError naming every cell in the folder that was trained, or measured, in another way than the study says."""
    cells = list_cells(study)
    records = read_records(study.folder, [cell.name for cell in cells])
    errors = []
    for cell in cells:
        saved = cell_folder(study, cell) / "config.yaml"
        lr = lr_of(study, cell, records)
        if saved.exists() and lr is not None:
            was, now = flat(load_config(saved, [])), flat(build_cell_config(cell, lr))
            keys = [key for key in dict.fromkeys([*was, *now]) if was.get(key, "-") != now.get(key, "-")]
            errors += [
                f"cell {cell.name}: {key}: was {was.get(key, '-')!r}, now {now.get(key, '-')!r}"
                for key in keys
                if not key.startswith(FREE_TO_CHANGE)
            ]
        record = records.get(cell.name)
        if record is not None and record.test_metrics and (record.test_annotations, record.test_images) != study.test:
            was_test = f"{record.test_annotations}, {record.test_images}"
            errors.append(f"cell {cell.name}: test: was {was_test}, now {', '.join(study.test)}")
    if errors:
        title = f"{study.folder} holds another study; use another output=PATH, delete it with --overwrite, or put back"
        raise ConfigError(list_errors(title, errors))


def clear(study: Study) -> None:
    """Delete what a study of ours wrote and nothing else. ResourceError while a cell is running."""
    folder = study.folder
    claims = sorted((folder / "claims").glob("*.json"))
    busy = [f"{path.stem}: {owner}" for path in claims if (owner := live_owner(folder, path.stem)) is not None]
    if busy:
        raise ResourceError(list_errors(f"output: {folder} is in use; stop these first", busy))
    for name in OURS:
        path = folder / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
