"""The folder of a data set."""

from pathlib import Path

import pytest

from retinanet.data.root import check_data_root
from retinanet.errors import DataError


def test_only_where_the_quickstarts_scenes_are_missing_they_are_offered(tmp_path: Path) -> None:
    check_data_root(tmp_path)
    with pytest.raises(DataError, match=r"no folder .*shapes;.*retinanet data shapes --output .*shapes --train 2000"):
        check_data_root(tmp_path / "shapes")
    with pytest.raises(DataError, match=r"no folder .*fod; give your data set's folder") as raised:
        check_data_root(tmp_path / "fod")
    assert "data shapes" not in str(raised.value)
