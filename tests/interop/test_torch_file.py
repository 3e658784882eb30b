"""Training checkpoints of other programs: what is beside the weights is passed over, averages are preferred."""

import argparse
import os
import pathlib
import sys
from collections import defaultdict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from foreign_weights import mmdetection
from torch import nn
from torch.optim.swa_utils import AveragedModel

from retinanet.errors import CheckpointError
from retinanet.interop.weights_file import read_weights

STATE = {"fpn.p6.weight": torch.arange(6.0), "fpn.p6.bias": torch.ones(2)}
OTHER = {name: value + 1 for name, value in STATE.items()}


class HistoryBuffer:
    """As mmengine's: arrays, and methods of the class that protocol 2 stores by a call of getattr."""

    def __init__(self) -> None:
        self._log_history = np.arange(3.0)
        self._statistics_methods = {"min": HistoryBuffer.smallest}

    def smallest(self) -> float:
        return float(self._log_history.min())


class ConfigDict(dict[str, Any]):
    """As mmengine's."""


@pytest.fixture
def mmengine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The two classes under the names that mmengine gives them, only while the file is written."""
    module = ModuleType("mmengine.logging.history_buffer")
    for name in ("mmengine", "mmengine.logging"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(HistoryBuffer.smallest, "__module__", module.__name__)
    for kind in (HistoryBuffer, ConfigDict):
        monkeypatch.setattr(kind, "__module__", module.__name__)
        monkeypatch.setattr(module, kind.__name__, kind, raising=False)
    monkeypatch.setitem(sys.modules, module.__name__, module)


def written(path: Path, content: object, zipped: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("zipped", [True, False])
def test_arguments_paths_and_arrays_are_passed_over(tmp_path: Path, zipped: bool) -> None:
    arguments = argparse.Namespace(lr=0.01, out=pathlib.PurePosixPath("a/b"), seen=defaultdict(list, {"a": [1]}))
    content = {"model": STATE, "args": arguments, "rng": np.arange(4), "odd": [slice(1), range(2), frozenset({1})]}
    assert same(read_weights(written(tmp_path / "a.pth", content, zipped)).tensors, STATE)


@pytest.mark.usefixtures("mmengine")
def test_mmengines_logger_is_passed_over_without_mmengine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meta = {"CLASSES": ["cat"], "cfg": ConfigDict(lr=1)}
    content = {"state_dict": STATE, "meta": meta, "message_hub": {"log_scalars": {"loss": HistoryBuffer()}}}
    path = written(tmp_path / "a.pth", content)
    monkeypatch.delitem(sys.modules, "mmengine.logging.history_buffer")
    file = read_weights(path)
    assert same(file.tensors, STATE)
    assert file.meta["CLASSES"] == ["cat"]


class Call:
    """Makes a pickle that calls a function with arguments."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.mark.parametrize("zipped", [True, False])
def test_nothing_is_run_by_way_of_what_is_passed_over(tmp_path: Path, zipped: bool) -> None:
    """getattr is a placeholder: what it gives cannot be called, and nothing is looked up."""
    touched = tmp_path / "touched"
    for index, hostile in enumerate(
        (
            Call(os.system, f"touch {touched}"),
            Call(eval, f"open({str(touched)!r}, 'w')"),
            Call(np.save, str(touched), np.zeros(1)),
            Call(pathlib.Path.write_text, pathlib.PosixPath(touched), "x"),
            Call(exec, f"open({str(touched)!r}, 'w')"),
        )
    ):
        path = written(tmp_path / f"{index}.pth", {"model": STATE, "args": argparse.Namespace(x=hostile)}, zipped)
        with pytest.raises(CheckpointError, match=r"asks for|damaged"):
            read_weights(path)
        assert not [file for file in tmp_path.iterdir() if file.name.startswith("touched")]


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fpn = nn.Linear(2, 2)


def test_a_moving_average_is_preferred(tmp_path: Path) -> None:
    model = Layer()
    average = AveragedModel(model)
    expected = {name: value + 1 for name, value in model.state_dict().items()}
    average.module.load_state_dict(expected)
    cases: dict[str, Any] = {
        "model_ema": average.state_dict(),
        "ema_state_dict": expected,
        "ema": {"module": expected, "updates": 3},
    }
    for key, value in cases.items():
        file = read_weights(written(tmp_path / "a.pth", {"model": model.state_dict(), key: value}))
        assert same(file.tensors, expected), key
        assert key in file.averaged


def test_mmengine_and_mmcv_save_the_average_as_the_plain_weights(tmp_path: Path) -> None:
    """Their hooks swap it with the weights before saving."""
    swapped = {f"module.{name}": value for name, value in OTHER.items()}
    content = {"state_dict": STATE, "ema_state_dict": {**swapped, "steps": torch.tensor(3)}, "message_hub": {}}
    buffers = {"ema_" + name.replace(".", "_"): value for name, value in OTHER.items()}
    for case in (content, {"state_dict": {**STATE, **buffers}, "meta": {}}):
        file = read_weights(written(tmp_path / "a.pth", case))
        assert same(file.tensors, STATE)
        assert "moving average" in file.averaged


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod."])
def test_prefixes_of_wrappers_are_left_out(tmp_path: Path, prefix: str) -> None:
    state = {prefix + name: value for name, value in STATE.items()}
    file = read_weights(written(tmp_path / "a.pth", {"state_dict": state}))
    assert same(file.tensors, STATE)
    assert file.stripped == prefix


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")
def test_torchscript_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.jit.script(nn.Linear(2, 2)).save(path)
    with pytest.raises(CheckpointError, match="is TorchScript"):
        read_weights(path)


def test_a_real_layout_among_other_things_is_read(tmp_path: Path) -> None:
    state = mmdetection(18, classes=2, channels=8).state
    content = {"state_dict": state, "optimizer": {"state": {}}, "meta": {"time": argparse.Namespace(a=1)}}
    assert same(read_weights(written(tmp_path / "a.pth", content)).tensors, state)
