"""The documentation site is built without a warning, and its pages hold what the code has."""

from pathlib import Path

import pytest
from forked_tools import ToolServer

import retinanet
from retinanet.__main__ import COMMANDS
from retinanet.config.flat import flat
from retinanet.config.schema import Config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, tool_server: ToolServer) -> Path:
    """The pages, built as `make docs` builds them."""
    folder = tmp_path_factory.mktemp("site")
    options = ["--fail-on-warning", "--keep-going", "--quiet", "-b", "html", "-d", folder / "cache", "-c", "docs"]
    built = tool_server.start_python("-m", "sphinx", *options, ".", folder)
    _, err = built.communicate(timeout=300)
    assert built.returncode == 0, err
    return folder


def test_page_of_config_keys_has_every_key(site: Path) -> None:
    page = (site / "docs" / "config_keys.html").read_text()
    missing = [key for key in flat(Config().model_dump()) if f">{key}<" not in page]
    assert not missing


def test_page_of_commands_has_every_command(site: Path) -> None:
    page = (site / "docs" / "commands.html").read_text()
    assert [name for name in COMMANDS if f"usage: retinanet {name} " not in page] == []


def test_page_of_the_python_api_has_every_public_name(site: Path) -> None:
    page = (site / "docs" / "api.html").read_text()
    assert [name for name in retinanet.__all__ if f"retinanet.{name}" not in page] == []
