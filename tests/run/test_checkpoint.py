"""A checkpoint comes back as it was saved, or is refused with a reason; nothing in a file is ever run."""

import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from places import PROJECT
from torch import Tensor, nn

from retinanet import distributed
from retinanet.config.schema import Config
from retinanet.errors import CheckpointError, ResourceError
from retinanet.run.checkpoint import (
    FORMAT,
    Checkpoint,
    Progress,
    load_checkpoint,
    load_weights,
    not_finite_parts,
    save_checkpoint,
)
from retinanet.structures import Category
from retinanet.training.state import TrainState, build_state, restore, snapshot

CATEGORIES = (Category(1, "cat"), Category(90, "großer Hund"))


def small(value: float = 0.5) -> Checkpoint:
    """A checkpoint of a few hundred bytes of tensors, with every kind of content."""
    weights = {"w": torch.full((7, 5), value), "b": torch.arange(3)}
    optimizer = {"state": {0: {"momentum_buffer": torch.randn(9)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
    return Checkpoint(Config(seed=4), CATEGORIES, Progress(3, 0.25, 2, 1), weights, {}, optimizer, {}, torch.rand(3))


def equal(a: object, b: object) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_parts_that_are_not_finite_are_named(bad: float, dtype: torch.dtype) -> None:
    weights = {"good": torch.tensor([-1.0, 3.0]), "w": torch.tensor([[0.0, bad, 1.0]]), "none": torch.zeros(0)}
    weights = {name: value.to(dtype) for name, value in weights.items()} | {"whole": torch.arange(3)}
    momentum = {"state": {0: {"momentum_buffer": torch.tensor(bad, dtype=dtype), "step": torch.tensor(2.0)}}}
    saved = small()._replace(model=weights, optimizer=momentum, average=weights)
    assert not_finite_parts(small()) == []
    assert not_finite_parts(saved) == ["weights: w", "moving average: w", "optimizer: state 0 momentum_buffer"]


def test_everything_comes_back(tmp_path: Path) -> None:
    saved = small()
    save_checkpoint(tmp_path / "new" / "a.pt", saved)
    loaded = load_checkpoint(tmp_path / "new" / "a.pt")
    assert equal(saved, loaded)
    assert loaded.config == saved.config
    assert loaded.categories == CATEGORIES
    assert loaded.progress == Progress(3, 0.25, 2, 1)
    assert [file.name for file in (tmp_path / "new").iterdir()] == ["a.pt"]


@pytest.mark.parametrize(("kept", "found"), [(None, None), ("a word", CheckpointError)])
def test_a_file_without_running_means_can_be_loaded(
    tmp_path: Path, kept: object, found: type[Exception] | None
) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, small())
    content = torch.load(path, weights_only=True)
    del content["running_positives"]
    if kept is not None:
        content["running_positives"] = kept
    torch.save(content, path)
    if found is None:
        assert load_checkpoint(path).running_positives_R is None
    else:
        with pytest.raises(found, match="running_positives is a str"):
            load_checkpoint(path)


def train_a_little(state: TrainState, steps: int) -> None:
    for step in range(steps):
        state.optimizer.zero_grad()
        outputs = state.network(torch.full((1, 3, 64, 64), 0.1 * step))
        (outputs.logits_BAK.square().mean() + outputs.deltas_BA4.square().mean()).backward()
        state.optimizer.step()
        if state.average is not None:
            state.average.update_parameters(state.model)


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_training_goes_on_from_a_file_as_from_memory(
    tiny: Callable[..., Config], tmp_path: Path, optimizer: str
) -> None:
    config = tiny(f"schedule.optimizer={optimizer}", "schedule.ema=0.5", "model.backbone.norm=bn", "schedule.lr=0.01")
    device, ranks = torch.device("cpu"), distributed.Ranks(0, 0, 1)
    torch.manual_seed(1)
    first = build_state(config, 2, device, ranks)
    train_a_little(first, 2)
    first.progress = Progress(2, 0.1, 1, 1)
    save_checkpoint(tmp_path / "last.pt", snapshot(first, config, CATEGORIES))
    second = build_state(config, 2, device, ranks)
    restore(second, load_checkpoint(tmp_path / "last.pt"), config, CATEGORIES, tmp_path / "last.pt")
    train_a_little(first, 1)
    train_a_little(second, 1)
    assert equal(first.model.state_dict(), second.model.state_dict())
    assert equal(first.optimizer.state_dict(), second.optimizer.state_dict())
    assert first.average is not None
    assert second.average is not None
    assert equal(first.average.state_dict(), second.average.state_dict())
    assert second.progress == first.progress

    best = snapshot(first, config, CATEGORIES, inference_only=True)
    save_checkpoint(tmp_path / "best.pt", best)
    loaded = load_checkpoint(tmp_path / "best.pt")
    assert equal(loaded.weights(), first.average.module.state_dict())
    assert not equal(loaded.weights(), first.model.state_dict())
    with pytest.raises(CheckpointError, match="no optimizer state"):
        restore(second, loaded, config, CATEGORIES, tmp_path / "best.pt")
    with pytest.raises(CheckpointError, match="categories differ"):
        restore(second, load_checkpoint(tmp_path / "last.pt"), config, CATEGORIES[::-1], tmp_path / "last.pt")


def test_the_averaged_weights_are_those_to_evaluate_with() -> None:
    plain = small()
    assert plain.weights() is plain.model
    average = {"n_averaged": torch.tensor(4), "module.w": torch.zeros(7, 5)}
    assert list(plain._replace(average=average).weights()) == ["w"]


@pytest.mark.slow
def test_a_flipped_bit_anywhere_is_noticed_or_harmless(tmp_path: Path) -> None:
    saved, path = small(), tmp_path / "a.pt"
    save_checkpoint(path, saved)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        heads = [record.header_offset for record in archive.infolist()] + [archive.start_dir]
        datas = [(record.header_offset + 30, record.file_size) for record in archive.infolist()]
    structure = {at + i for at in heads for i in range(0, 60, 3)} | set(range(heads[-1], len(whole), 3))
    content = {offset + size // 2 for offset, size in datas}
    refused = 0
    for at in sorted(structure | content | set(range(0, len(whole), 97))):
        broken = bytearray(whole)
        broken[at % len(whole)] ^= 1 << (at % 8)
        path.write_bytes(bytes(broken))
        try:
            assert equal(load_checkpoint(path), saved), f"byte {at} changed the content unnoticed"
        except CheckpointError as error:
            assert str(path) in str(error)  # noqa: PT017 - either outcome is right, and both are checked
            refused += 1
    assert refused > 50


def test_every_byte_of_a_tensor_is_guarded(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, small(value=0.625))
    whole = path.read_bytes()
    start = whole.index(torch.tensor(0.625).numpy().tobytes() * 35)
    for at in range(start, start + 35 * 4, 5):
        broken = bytearray(whole)
        broken[at] ^= 1
        path.write_bytes(bytes(broken))
        with pytest.raises(CheckpointError, match=r"damaged: its record '.*data/\d'"):
            load_checkpoint(path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_refused(tmp_path: Path, share: float) -> None:
    path = tmp_path / "a.pt"
    save_checkpoint(path, small())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match=r"a\.pt: (not a checkpoint, or cut short|the file is empty)"):
        load_checkpoint(path)


class Bomb:
    """Unpickling this makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.target,)


def foreign_files() -> dict[str, Callable[[Path, Path], object]]:
    """Ways to write a file that is not a checkpoint of this project: (path, what a bomb would create) -> None."""
    return {
        "text": lambda path, _: path.write_text("not a checkpoint\n", encoding="utf-8"),
        "bare state dict": lambda path, _: torch.save({"w": torch.zeros(2)}, path),
        "tensor": lambda path, _: torch.save(torch.zeros(2), path),
        "whole module": lambda path, _: torch.save(nn.Linear(2, 2), path),
        "other format": lambda path, _: torch.save({"format": "retinanet-0", "model": {}}, path),
        "half a checkpoint": lambda path, _: torch.save({"format": FORMAT, "config": {}}, path),
        "odd config": lambda path, _: torch.save({"format": FORMAT, "config": 3}, path),
        "empty zip": lambda path, _: zipfile.ZipFile(path, "w").close(),
        "pickle bomb": lambda path, created: path.write_bytes(pickle.dumps(Bomb(created))),
        "torch bomb": lambda path, created: torch.save({"format": FORMAT, "x": Bomb(created)}, path),
        "old torch bomb": lambda path, created: torch.save(Bomb(created), path, _use_new_zipfile_serialization=False),
    }


@pytest.mark.parametrize("kind", list(foreign_files()))
def test_foreign_files_are_refused_and_never_run(tmp_path: Path, kind: str) -> None:
    path, created = tmp_path / "a.pt", tmp_path / "created"
    foreign_files()[kind](path, created)
    with pytest.raises(Exception, match=re.escape(str(path))) as caught:
        load_checkpoint(path)
    assert type(caught.value).__name__ == ("ConfigError" if kind == "odd config" else "CheckpointError")
    assert not created.exists()


def test_missing_files_and_folders_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"is a folder; give a file such as"):
        load_checkpoint(tmp_path)


def test_a_write_that_dies_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, small(1.0))

    def die(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", die)
        with pytest.raises(ResourceError, match=r"last\.pt: cannot be written .No space left"):
            save_checkpoint(path, small(2.0))
    assert equal(load_checkpoint(path).model["w"], torch.full((7, 5), 1.0))
    save_checkpoint(path, small(3.0))
    assert equal(load_checkpoint(path).model["w"], torch.full((7, 5), 3.0))
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


def test_weights_that_do_not_fit_are_listed_together() -> None:
    model = nn.Linear(3, 2)
    with pytest.raises(CheckpointError) as caught:
        load_weights(model, {"weight": torch.zeros(2, 4), "extra": torch.zeros(1)}, "a.pt")
    for part in ("a.pt", "missing bias", "unexpected extra", "weight is (2, 4), wanted (2, 3)"):
        assert part in str(caught.value)


def test_nothing_in_the_project_loads_what_could_run() -> None:
    project = PROJECT
    unsafe = re.compile(
        r"weights_only\s*=\s*False|\bpickle\b|\byaml\.(load|load_all|unsafe_load|full_load)\("
        r"|(?<![.\w])(?<!def )(eval|exec)\(|shell\s*=\s*True|allow_pickle\s*=\s*True|\bos\.system\("
    )
    files = [file for folder in ("retinanet", "tools", "benchmarks") for file in (project / folder).rglob("*.py")]
    files.remove(project / "retinanet" / "interop" / "numpy_pickle.py")  # the one reader; its own tests attack it
    assert len(files) > 40
    found = [
        f"{file.relative_to(project)}:{number}: {line.strip()}"
        for file in files
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1)
        if unsafe.search(line)
    ]
    assert found == []
    loads = [line for file in files for line in file.read_text(encoding="utf-8").splitlines() if "torch.load(" in line]
    assert loads
    assert all("weights_only=True" in line for line in loads)
