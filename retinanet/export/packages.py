"""The packages of the `export` extra, which nothing else needs."""

from importlib.util import find_spec

from retinanet.errors import ResourceFault


def need(*packages: str) -> None:
    """ResourceFault where one of `packages` is not installed."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ResourceFault(f"export: needs {' and '.join(missing)}; install with `pip install -e .[export]`.")
