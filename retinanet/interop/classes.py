"""Map the outputs of a foreign class head to classes.

torchvision's COCO models have 91 outputs, of which 11 (the background and ten ids that COCO does not use) are not
classes. By default all are kept, so that the converted network detects exactly what the original does; evaluation
ignores categories that the data set does not have. `--coco-only` drops the 11, which rarely changes the detections of
trained weights, because these outputs were trained on negatives only.
"""

from pathlib import Path
from typing import NamedTuple

from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights

from retinanet.errors import ConfigError
from retinanet.files import read_json
from retinanet.structures import Category

TORCHVISION_COCO = 91
"""Outputs of torchvision's own models: 0 is the background, the others are COCO's category ids, of which 80 exist."""

NOT_A_CLASS = ("__background__", "N/A")


class Classes(NamedTuple):
    """The classes of a network and their outputs in its class head."""

    categories: tuple[Category, ...]
    """In ascending order of their ids."""
    rows: list[int]
    """The head's output for each category."""
    source: str
    """How they were found, for the user."""


def coco_categories() -> tuple[Category, ...]:
    """COCO's 80 categories; their ids are 1 to 90 with gaps."""
    names = RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
    return tuple(Category(index, name) for index, name in enumerate(names) if name not in NOT_A_CLASS)


def choose_classes(
    outputs: int, rows_are_ids: bool, file: Path | None, known: tuple[str, ...], coco_only: bool
) -> Classes:
    """The classes of a head with `outputs` outputs.

    rows_are_ids: output k is label k and 0 is the background, as in torchvision; otherwise outputs are contiguous.
    file: a JSON list of names (null for an output that is not a class), or a COCO annotation file. known: names in the
    weights file itself. coco_only: drop those of torchvision's 91 outputs that no COCO category has. Without names, 80
    contiguous outputs are assumed to be COCO's, and others are numbered.
    Raises ConfigError or DataError for a file that does not fit.
    """
    first = 0 if rows_are_ids else 1
    if coco_only and file is not None:
        raise ConfigError("--coco-only and --classes both select the outputs to keep; give one of them.")
    if coco_only and not (rows_are_ids and outputs == TORCHVISION_COCO):
        raise ConfigError(f"--coco-only is for torchvision's {TORCHVISION_COCO} outputs; these weights have {outputs}.")
    if file is not None:
        content = read_json(file, leave_out="segmentation")
        if isinstance(content, list):
            return _from_names(content, outputs, first, file)
        return _from_annotations(content, outputs, rows_are_ids, file)
    if known and len(known) == outputs:
        names = [Category(index + 1, name) for index, name in enumerate(known)]
        coco = tuple(category.name for category in coco_categories())
        return _all(coco_categories() if known == coco else tuple(names), "named by the weights file")
    if coco_only:
        kept = coco_categories()
        ids = [category.id for category in kept]
        return Classes(kept, ids, f"COCO's own; dropped: outputs {_listed(sorted(set(range(outputs)) - set(ids)))}")
    if rows_are_ids and outputs == TORCHVISION_COCO:
        names91 = RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["categories"]
        every = tuple(Category(index, name) for index, name in enumerate(names91))
        return _all(every, "every output of torchvision's COCO models, category id = output (--coco-only keeps 80)")
    if not rows_are_ids and outputs == len(coco_categories()):
        return _all(
            coco_categories(),
            "80 outputs, assumed to be COCO's in the order of their ids; if they are not, give --classes",
        )
    numbered = tuple(Category(index + first, f"class {index}") for index in range(outputs))
    return _all(numbered, "unnamed; give --classes to name them")


def _all(categories: tuple[Category, ...], source: str) -> Classes:
    return Classes(categories, list(range(len(categories))), source)


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"


def _from_names(names: list[object], outputs: int, first: int, file: Path) -> Classes:
    if not all(name is None or (isinstance(name, str) and name.strip()) for name in names):
        raise ConfigError(f"{file}: a list of class names holds strings, and null for an output that is not a class.")
    if first == 0 and len(names) == outputs - 1:
        names = [None, *names]
    if len(names) != outputs:
        raise ConfigError(f"{file}: names {len(names)} classes, but the weights have {outputs} outputs for a class.")
    rows = [index for index, name in enumerate(names) if name is not None]
    if not rows:
        raise ConfigError(f"{file}: names no class.")
    dropped = sorted(set(range(outputs)) - set(rows))
    categories = tuple(Category(row + first, str(names[row])) for row in rows)
    return Classes(categories, rows, f"from {file}; outputs dropped: {_listed(dropped)}")


def _from_annotations(content: object, outputs: int, rows_are_ids: bool, file: Path) -> Classes:
    found = content.get("categories") if isinstance(content, dict) else None
    usable = isinstance(found, list) and all(
        isinstance(row, dict) and type(row.get("id")) is int and isinstance(row.get("name"), str) for row in found
    )
    if not usable or not isinstance(found, list) or not found:
        raise ConfigError(f'{file}: neither a list of class names nor a COCO file with "categories" of id and name.')
    categories = tuple(sorted(Category(row["id"], row["name"]) for row in found))
    ids = [category.id for category in categories]
    if len(set(ids)) != len(ids):
        raise ConfigError(f"{file}: two categories have the same id.")
    if len(ids) == outputs:
        return _all(categories, f"from {file}, in the order of their ids")
    if rows_are_ids and ids[0] >= 0 and ids[-1] < outputs:
        dropped = sorted(set(range(outputs)) - set(ids))
        return Classes(categories, ids, f"from {file}, output = category id; dropped: {_listed(dropped)}")
    raise ConfigError(f"{file}: has {len(ids)} categories, but the weights have {outputs} outputs for a class.")
