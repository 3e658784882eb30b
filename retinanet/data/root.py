"""The folder of a data set. Imports no tensor library, so that a wrong path is reported at once."""

from pathlib import Path

from retinanet.errors import DataError

GENERATED = "shapes"
"""Folder of the quickstart's scenes, below data/."""


def check_data_root(root: Path) -> None:
    """Raise DataError where config `data.root` is not a folder."""
    if root.is_dir():
        return
    made = (
        f" The quickstart's data set is generated: retinanet data shapes --output {root} --train 2000 --val 200 "
        "--size 256 256"
    )
    raise DataError(
        f"data.root: no folder {root}; give your data set's folder with data.root=PATH (data/README.md describes its "
        f"layout).{made if root.name == GENERATED else ''}"
    )
