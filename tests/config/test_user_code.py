"""Functions in files of the user: what their text says, and that only loading runs them."""

from pathlib import Path

import pytest

from retinanet.config.user_code import find_file, load_function, read_function, source_sha256
from retinanet.errors import ConfigError


def write(folder: Path, text: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_a_file_is_found_in_the_first_folder_that_has_it(tmp_path: Path) -> None:
    path = write(tmp_path / "b", "x = 1", "pack/mine.py")
    assert find_file("pack.mine:f", [tmp_path / "a", tmp_path / "b"]) == path
    write(tmp_path / "a", "x = 1", "pack/mine.py")
    find_file("pack.mine:f", [tmp_path / "a", tmp_path / "b"])
    write(tmp_path / "a", "x = 2", "pack/mine.py")
    with pytest.raises(ConfigError, match=r"different files .*a/pack/mine\.py and .*b/pack/mine\.py; keep one"):
        find_file("pack.mine:f", [tmp_path / "a", tmp_path / "b"])
    with pytest.raises(ConfigError, match=r"there is no file other\.py in .*b"):
        find_file("other:f", [tmp_path / "b"])
    for name in ("mine", "mine:", ":f", "mine.py:f:g", "../mine:f", "mine:f()"):
        with pytest.raises(ConfigError, match="not of the form module:function"):
            find_file(name, [tmp_path])


def test_arguments_are_read_without_running_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "raise SystemExit(1)\ndef f(x, y, a: int, /, b: float = 2, *, c, d: str = 'z'): ...\n")
    found = read_function(path, "f")
    assert found.positional == ("x", "y")
    assert [(option.name, option.default, option.required) for option in found.options] == [
        ("a", None, True),
        ("b", 2, False),
        ("c", None, True),
        ("d", "z", False),
    ]
    assert found.errors == ()


def test_arguments_that_cannot_be_known_are_errors(tmp_path: Path) -> None:
    path = write(tmp_path, "def f(x, y, *rest, a=len('x'), **more): ...\n")
    errors = "; ".join(read_function(path, "f").errors)
    for text in ("its *rest hides", "its **more hides", "its a has the default len('x')"):
        assert text in errors
    with pytest.raises(ConfigError, match=r"has no function g; it has f"):
        read_function(path, "g")
    with pytest.raises(ConfigError, match=r"broken\.py:2: not valid Python"):
        read_function(write(tmp_path, "x = 1\ndef f(:\n", "broken.py"), "f")


def test_a_function_is_loaded_with_its_neighbours_once(tmp_path: Path) -> None:
    write(tmp_path, "FACTOR = 3", "neighbour_of_mine.py")
    path = write(
        tmp_path, "from neighbour_of_mine import FACTOR\ncalls = []\ndef f(x): calls.append(x); return calls\n"
    )
    f = load_function(path, "f", source_sha256(path))
    assert load_function(path, "f", source_sha256(path)) is f
    assert f(1) == [1]


def test_a_changed_or_failing_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "def f(x): ...\n")
    with pytest.raises(ConfigError, match="has changed since the config was written"):
        load_function(path, "f", "0" * 64)
    path = write(tmp_path, "import no_such_module\n")
    with pytest.raises(ConfigError, match="raises ModuleNotFoundError"):
        load_function(path, "f", source_sha256(path))
    path = write(tmp_path, "def f(): ...\nf = 1\n")
    with pytest.raises(ConfigError, match="f is not a function"):
        load_function(path, "f", source_sha256(path))
