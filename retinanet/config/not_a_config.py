"""What a file or folder is that was given in place of a config, and the command or key that takes it."""

import mimetypes
import re
import stat
from pathlib import Path

from retinanet.config.shipped import describe_missing, file_type

WEIGHTS = frozenset({".pt", ".pth", ".pkl", ".safetensors", ".ckpt", ".bin", ".tar"})
EXPORTS = frozenset({".onnx", ".pt2", ".engine", ".tflite", ".torchscript"})
TABLES = frozenset({".xml", ".csv", ".tsv", ".jsonl", ".ndjson"})
_CONFIGS = frozenset({".yaml", ".yml"})
_DATA_KEYS = re.compile(r"^(train|val|valid|test|path|nc|names|roboflow)\s*:", re.MULTILINE)
"""Keys of ultralytics' data.yaml, none of which a config has at its top level."""
_ARMS = re.compile(r"^arms\s*:", re.MULTILINE)
"""The key that every study has, and no config."""
_START = 4096


def config_error(path: Path) -> str:
    """Why a path cannot be the config that a command line names, with the remedy; empty if it can."""
    return not_a_config(path) or ("" if file_type(path) == stat.S_IFREG else describe_missing(path))


def not_a_config(path: Path) -> str:
    """One sentence on what is at a path, with the remedy; empty for what may be a config and for what is not there."""
    kind = file_type(path)
    if kind == stat.S_IFDIR:
        return _folder(path)
    if kind != stat.S_IFREG:
        return ""
    with path.open("rb") as file:
        start = file.read(_START)
    suffix, media = path.suffix.lower(), mimetypes.guess_type(path.name)[0] or ""
    if suffix in _CONFIGS:
        text = start.decode("utf-8", errors="replace")
        keys = {found[1] for found in _DATA_KEYS.finditer(text)}
        if "names" in keys and len(keys) >= 2:
            return f"{path} describes a data set, not a training: {_as_data(path.parent)}"
        return f"{path} is a study; to run it: retinanet ablate {path}" if _ARMS.search(text) else ""
    if suffix in EXPORTS:
        return f"{path} is an exported network, which cannot be trained; to detect: retinanet predict {path} IMAGES"
    if suffix in WEIGHTS or start.startswith((b"PK\x03\x04archive/", b"\x80\x02")):
        return _weights(path)
    if media.startswith(("image/", "video/")):
        what = "an image" if media.startswith("image/") else "a film"
        return f"{path} is {what}, not a config; to detect on it: retinanet predict CHECKPOINT {path}"
    if suffix == ".json" or suffix in TABLES or start.startswith(b"PK") or start.lstrip()[:1] == b"{":
        return f"{path} is not a config; if it is a data set, {_as_data(path)}"
    return ""


def key_for_path(word: str) -> str:
    """The config key that takes an existing file or folder given without one, as `key=value`; empty if none does."""
    path = Path(word)
    kind = file_type(path)
    if kind == stat.S_IFREG and path.suffix.lower() in WEIGHTS:
        return f"model.weights={word}"
    is_data = kind == stat.S_IFDIR or path.suffix.lower() in {".json", ".zip", ".yaml", ".yml", *TABLES}
    return f"data={word}" if word and kind and is_data else ""


def _weights(path: Path) -> str:
    run = path.parent.parent
    is_run = path.parent.name == "checkpoints" and file_type(run / "config.yaml") == stat.S_IFREG
    return (
        f"{path} is a file of weights, not a config. To start a training from it: "
        f"retinanet train own data=PATH model.weights={path}. To continue "
        + (f"its run: {_resume(run)}" if is_run else "a run: retinanet train RUN/config.yaml output=RUN --resume")
    )


def _folder(path: Path) -> str:
    if file_type(path / "config.yaml") == stat.S_IFREG and file_type(path / "checkpoints") == stat.S_IFDIR:
        return f"{path} is the folder of a run; to continue it: {_resume(path)}"
    names = sorted(entry.name for entry in path.iterdir() if not entry.name.startswith("."))
    configs = [name for name in names if Path(name).suffix.lower() in _CONFIGS]
    if names and all(not_a_config(path / name) for name in configs):
        return f"{path} is a folder, not a YAML file; if it is a data set, {_as_data(path)}"
    return ""


def _resume(run: Path) -> str:
    return f"retinanet train {run / 'config.yaml'} output={run} --resume"


def _as_data(path: Path) -> str:
    return f"train on it with: retinanet train own data={path}"
