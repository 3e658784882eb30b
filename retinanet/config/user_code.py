"""Functions in Python files of the user: found, read without running them, and loaded.

A function is named `module:function`; the module is a file in a folder that the user works in. Only `load_function`
runs it, and it is called for trainings alone. Imports no tensor library.
"""

import ast
import difflib
import hashlib
import importlib.util
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from retinanet.errors import ConfigError

NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
"""What names a function."""


class Option(NamedTuple):
    """An argument of a function that a config sets."""

    name: str
    annotation: ast.expr | None
    default: object
    required: bool


class FunctionText(NamedTuple):
    """A function as its file has it."""

    positional: tuple[str, ...]
    """Names of its first two arguments, or fewer."""
    options: tuple[Option, ...]
    """All further arguments."""
    errors: tuple[str, ...]
    """Why a config cannot set them."""


def find_file(name: str, folders: Sequence[Path]) -> Path:
    """The file of the module in `module:function`.

    Raises ConfigError for another form of name, if there is no such file, or if the folders have different ones.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is not of the form module:function, such as my_losses:poly for poly in my_losses.py"
        )
    part = Path(*name.partition(":")[0].split(".")).with_suffix(".py")
    found = {_source(folder / part): (folder / part).absolute() for folder in folders if (folder / part).is_file()}
    if len(found) > 1:
        raise ConfigError(f"{name}: there are different files {' and '.join(map(str, found.values()))}; keep one")
    for file in found.values():
        return file
    places = " or ".join(dict.fromkeys(str(folder.absolute()) for folder in folders))
    raise ConfigError(f"{name}: there is no file {part} in {places}")


def source_sha256(file: Path) -> str:
    """Hash of a file's content. Raises ConfigError if it cannot be read."""
    return hashlib.sha256(_source(file)).hexdigest()


def read_function(file: Path, function: str) -> FunctionText:
    """A function's arguments, read from the text of its file. Raises ConfigError if it is not in there."""
    try:
        tree = ast.parse(_source(file))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise ConfigError(f"{file}{f':{line}' if line else ''}: not valid Python: {error}") from error
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    if function not in functions:
        near = difflib.get_close_matches(function, functions, n=1, cutoff=0.5) or list(functions)
        hint = f"it has {', '.join(near)}" if near else "it defines none at its top level"
        raise ConfigError(f"{file}: has no function {function}; {hint}")
    given = functions[function].args
    errors = [
        f"its {mark}{extra.arg} hides which arguments it has: write them out"
        for mark, extra in (("*", given.vararg), ("**", given.kwarg))
        if extra is not None
    ]
    plain = [*given.posonlyargs, *given.args]
    first_default = len(plain) - len(given.defaults)
    options = []
    for index, argument in enumerate(plain[2:], start=2):
        default = given.defaults[index - first_default] if index >= first_default else None
        options.append((argument, default))
    options += list(zip(given.kwonlyargs, given.kw_defaults, strict=True))
    read = [_option(argument, default, errors) for argument, default in options]
    return FunctionText(tuple(argument.arg for argument in plain[:2]), tuple(read), tuple(errors))


def load_function(file: Path, function: str, sha256: str) -> Callable[..., Any]:
    """Run a file, once in a process, and return its function.

    sha256: the hash that its content must have. Modules next to the file can be imported in it. Raises
    ConfigError if it has another hash, or raises an error.
    """
    if source_sha256(file) != sha256:
        raise ConfigError(
            f"{file}: has changed since the config was written, which has its hash; restore the file, or remove "
            "source_sha256 from the config to train with the changed one"
        )
    name = f"retinanet_user_{sha256[:16]}_{file.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        sys.path.insert(0, str(file.parent))
        try:
            spec.loader.exec_module(module)
        except Exception as error:
            del sys.modules[name]
            raise ConfigError(f"{file}: raises {type(error).__name__}: {error}") from error
        finally:
            sys.path.remove(str(file.parent))
    found: Callable[..., Any] | None = vars(sys.modules[name]).get(function)
    if not callable(found):
        raise ConfigError(f"{file}: {function} is not a function once the file has run")
    return found


def _option(argument: ast.arg, default: ast.expr | None, errors: list[str]) -> Option:
    value: object = None
    if default is not None:
        try:
            value = ast.literal_eval(default)
        except ValueError:
            errors.append(f"its {argument.arg} has the default {ast.unparse(default)}: write a plain value")
    return Option(name=argument.arg, annotation=argument.annotation, default=value, required=default is None)


def _source(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
