"""What make runs, shown by `make -n`."""

import shlex
import shutil
import subprocess

import pytest
from places import PROJECT

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def installs(*words: str) -> list[str]:
    """The pip commands of a set-up from nothing."""
    command = ["make", "-n", "-B", "quickstart", *words]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    return [line.partition(" install ")[2] for line in done.stdout.splitlines() if " -m pip install " in line]


def test_torch_comes_from_the_named_index_and_all_else_from_pips_own() -> None:
    usual = installs()
    assert usual == [
        "--quiet --disable-pip-version-check -r requirements.txt",
        "--quiet --disable-pip-version-check --no-deps --editable .",
    ]
    pinned = [line for line in (PROJECT / "requirements.txt").read_text().split() if line.startswith("torch")]
    assert len(pinned) == 2
    first, *rest = installs("TORCH_INDEX=https://index.example/cpu")
    assert shlex.split(first)[2:] == ["--no-deps", "--index-url", "https://index.example/cpu", *pinned]
    assert rest == usual
