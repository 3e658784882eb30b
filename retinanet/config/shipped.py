"""The configs that ship with the project, by name, and what to say where a named file is not there."""

import difflib
import errno
import stat
from pathlib import Path

STUDIES = "ablations/"
"""Folder of the studies below that of the configs."""


def config_folder() -> Path:
    """Where the configs that ship are: in an installed package, or at the top of a checkout."""
    package = Path(__file__).resolve().parent.parent
    return next((folder for folder in (package / "configs", package.parent / "configs") if folder.is_dir()), package)


def shipped_configs() -> list[str]:
    """Names of the configs and studies that ship, as `find_config` and `find_study` take them."""
    folder = config_folder()
    return sorted(str(file.relative_to(folder).with_suffix("").as_posix()) for file in folder.rglob("*.yaml"))


def find_config(word: str) -> Path:
    """The file that a command line means: a path, or the name of a config that ships."""
    return _shipped(word, "") or Path(word)


def find_study(word: str) -> Path:
    """The file that a command line means: a path, or the name of a study that ships."""
    return _shipped(word, STUDIES) or Path(word)


def _shipped(word: str, kind: str) -> Path | None:
    """The shipped file that is called `word`, with or without its folder and suffix; None where a file is meant."""
    if file_type(Path(word)) == stat.S_IFREG:
        return None
    name = word.removeprefix("configs/").removesuffix(".yaml")
    names = shipped_configs()
    ending = [known for known in names if known.endswith(f"/{name}") and known.startswith(kind)]
    for found in ([kind + name], [name], ending):
        if len(found) == 1 and found[0] in names:
            return config_folder() / f"{found[0]}.yaml"
    return None


def file_type(path: Path) -> int:
    """Kind of what is at a path (`stat.S_IFREG`, `stat.S_IFDIR`, ...), 0 for nothing."""
    try:
        return stat.S_IFMT(path.stat().st_mode)
    except ValueError:
        # A name with a NUL.
        return 0
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP):
            return 0
        raise


def describe_missing(path: Path) -> str:
    """Message for a config that is not there, with the nearest ones that are."""
    folder = path.parent
    if file_type(path) == stat.S_IFDIR:
        what, folder = f"{path} is a folder, not a YAML file", path
    elif file_type(folder) != stat.S_IFDIR:
        return f"there is no config {path}: the folder {folder} does not exist"
    else:
        what = f"there is no config {path}"
        near = difflib.get_close_matches(str(path.with_suffix("")), shipped_configs(), n=3, cutoff=0.7)
        if near and folder == Path():
            return f"{what}; did you mean {' or '.join(near)}, which ships?"
    found = {str(file): file.stem for pattern in ("*.y*ml", "*/*.y*ml") for file in sorted(folder.glob(pattern))}
    checkpoints = sorted(folder.glob("checkpoints/*.pt"))
    if not found and checkpoints:
        # Of a run that was copied in part.
        return f"{what}; its checkpoints hold it: retinanet config show {checkpoints[0]} > {folder / 'config.yaml'}"
    if not found:
        return f"{what}, and no YAML file in {folder}"
    stems = difflib.get_close_matches(path.stem, sorted(set(found.values())), n=5, cutoff=0.4)
    near = [file for stem in stems for file in found if found[file] == stem]
    return f"{what}; the nearest are {', '.join((near or list(found))[:5])}"
