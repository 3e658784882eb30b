"""The package's own module: what it offers, and that importing it costs nothing."""

import subprocess
import sys

import pytest
from places import PROJECT

import retinanet


def test_every_public_name_is_there_and_documented() -> None:
    for name in retinanet.__all__:
        assert eval(f"retinanet.{name}").__doc__, name
    assert set(retinanet.__all__) <= set(dir(retinanet))
    assert (PROJECT / "retinanet" / "py.typed").is_file()
    with pytest.raises(AttributeError, match=r"no attribute 'lod'; it has .*load"):
        _ = retinanet.lod  # type: ignore[attr-defined]


def test_importing_the_package_loads_nothing() -> None:
    program = (
        "import sys; before = set(sys.modules); import retinanet; retinanet.ConfigError; "
        "print(sorted(name for name in set(sys.modules) - before if not name.startswith('retinanet')))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=PROJECT, check=True)
    loaded = eval(done.stdout)
    assert not {"torch", "numpy", "PIL", "pydantic", "rich"} & set(loaded)
