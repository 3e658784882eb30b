"""`data.source` of a config, resolved to the files that it is made of."""

import os
from pathlib import Path

from retinanet.config.data_keys import DataKeys
from retinanet.display.facts import print_lines
from retinanet.errors import DataError
from retinanet.prepare.source import Source, open_source


def find_source(data: DataKeys) -> Source | None:
    """The data set of `data.source`; None for data that are given by root and paths. Raises as `open_source`."""
    return None if data.source is None else open_source(Path(data.source), data.hold_out)


def resolve_data(data: DataKeys) -> DataKeys:
    """Config `data` with root and paths of the files that its source is made of; as it is without a source."""
    source = find_source(data)
    if source is None or data.source is None:
        return data
    given = Path(data.source).expanduser()
    places = {
        "root": str(given if given.is_dir() else given.parent),
        "train_annotations": str(source.train.annotations),
        "train_images": str(source.train.images),
        "val_annotations": str(source.val.annotations),
        "val_images": str(source.val.images),
    }
    return data.model_copy(update=places)


def data_on_test(data: DataKeys) -> DataKeys:
    """As `resolve_data`, with the test split of `data.source` in place of val. Raises DataError where it has none."""
    source = find_source(data)
    if source is None:
        raise DataError(
            "--split test: data.root names no test split; data.val_annotations=FILE evaluates on the images of a file"
        )
    if source.test is None:
        raise DataError(f"--split test: {data.source} has no test split; retinanet data check lists those it has")
    places = {"val_annotations": str(source.test.annotations), "val_images": str(source.test.images)}
    return resolve_data(data).model_copy(update=places)


def describe_source(data: DataKeys, source: Source) -> list[str]:
    """What kind of data set it is, where its annotations are, and what was done."""
    return [f"data: {source.form} in {data.source}", *(f"      {line}" for line in source.describe())]


def print_source(data: DataKeys) -> None:
    """Open `data.source`, if there is one, and print what it is; on the main rank only."""
    source = find_source(data) if os.environ.get("RANK", "0") == "0" else None
    if source is not None:
        print_lines("\n".join(describe_source(data, source)))
