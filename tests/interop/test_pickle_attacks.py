"""Files that would run code when they are unpickled are refused by every reader, and nothing of them is run."""

import os
import pickle
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from retinanet.errors import CheckpointError
from retinanet.interop.weights_file import read_weights
from retinanet.run.checkpoint import load_checkpoint

CALLS: dict[str, Callable[[Path], tuple[Callable[..., Any], tuple[Any, ...]]]] = {
    "os.system": lambda mark: (os.system, (f"touch {mark}",)),
    "os.mkdir": lambda mark: (os.mkdir, (str(mark),)),
    "eval": lambda mark: (eval, (f"open({str(mark)!r}, 'w').close()",)),
    "exec": lambda mark: (exec, (f"open({str(mark)!r}, 'w').close()",)),
    "open": lambda mark: (open, (str(mark), "w")),
    "subprocess.call": lambda mark: (subprocess.call, (["touch", str(mark)],)),
    "Popen": lambda mark: (subprocess.Popen, (["touch", str(mark)],)),
    "copyfile": lambda mark: (shutil.copyfile, (__file__, str(mark))),
    "symlink": lambda mark: (os.symlink, (__file__, str(mark))),
    "makedirs": lambda mark: (os.makedirs, (str(mark),)),
    "Path.touch": lambda mark: (Path.touch, (mark,)),
    "torch.save": lambda mark: (torch.save, ({}, str(mark))),
}


class Payload:
    """Pickles as a call."""

    def __init__(self, call: tuple[Callable[..., Any], tuple[Any, ...]]) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pkl"])
@pytest.mark.parametrize("name", CALLS)
def test_a_file_that_would_run_code_is_refused(name: str, suffix: str, tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / f"a{suffix}"
    content = {"state_dict": {"a": Payload(CALLS[name](mark))}}
    if suffix == ".pkl":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    read: Callable[[Path], object] = load_checkpoint if suffix == ".pt" else read_weights
    with pytest.raises(CheckpointError) as caught:
        read(path)
    assert "weights_only" not in str(caught.value), "not torch's advice, which would run it"
    assert not mark.exists()
