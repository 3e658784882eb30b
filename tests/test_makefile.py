"""What make runs, shown by `make -n`."""

import re
import shlex
import shutil
import subprocess
import tomllib

import pytest
import yaml
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
        "--quiet --disable-pip-version-check --require-hashes -r requirements-torch.lock -r requirements.lock",
        "--quiet --disable-pip-version-check --no-deps --editable .",
    ]
    pinned = [line for line in (PROJECT / "requirements.txt").read_text().split() if line.startswith("torch")]
    assert len(pinned) == 2
    first, second, *rest = installs("TORCH_INDEX=https://index.example/cpu")
    assert shlex.split(first)[2:] == ["--no-deps", "--index-url", "https://index.example/cpu", *pinned]
    assert second.split()[2:] == ["--require-hashes", "-r", "requirements.lock"]
    assert rest == usual[1:]


def test_the_locks_hold_every_pinned_package_with_hashes_and_torch_alone() -> None:
    locks = {name: (PROJECT / name).read_text() for name in ("requirements.lock", "requirements-torch.lock")}
    entries = {
        name: re.findall(r"^([a-z0-9-]+)==(\S+)(.*(?:\n    --hash=sha256:[0-9a-f]{64}.*)+)", text, re.MULTILINE)
        for name, text in locks.items()
    }
    both = {(package, version) for found in entries.values() for package, version, _ in found}
    assert all(len(found) == len(re.findall(r"^[a-z]", locks[name], re.MULTILINE)) for name, found in entries.items())
    pins = re.findall(r"^([\w.-]+)==(\S+)", (PROJECT / "requirements.txt").read_text(), re.MULTILINE)
    assert {(package.lower(), version) for package, version in pins} <= both, "run make lock"
    needs_cuda = ("torch", "triton", "nvidia-", "cuda-")
    assert not [package for package, *_ in entries["requirements.lock"] if package.startswith(needs_cuda)]
    assert all(package.startswith(needs_cuda) for package, *_ in entries["requirements-torch.lock"])


def test_ci_tests_the_oldest_torch_that_the_package_allows() -> None:
    workflow = yaml.safe_load((PROJECT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    cases = {case["torch"]: case["packages"] for case in workflow["jobs"]["versions"]["strategy"]["matrix"]["include"]}
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    least = [need for need in project["dependencies"] if need.startswith("torch")]
    assert cases["oldest"].split() == [f"{need.replace('>=', '==')}.*" for need in least]
    assert cases["newest"].split() == ["--upgrade", "torch", "torchvision"]
