"""Training on cached features gives the weights and the AP that training on pixels gives."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from retinanet.config.origins import InvalidConfig
from retinanet.config.schema import Config
from retinanet.run.checkpoint import load_checkpoint
from retinanet.run.metric_rows import read_rows
from retinanet.training.engine import run_training

Tiny = Callable[..., Config]
FROZEN = (
    "model.frozen=[backbone]",
    "data.flip=0.5",
    "data.scale_jitter=[1,1]",
    "data.color_jitter=0",
    "schedule.ema=0.9",
)


@pytest.mark.slow
def test_the_run_is_the_same_with_and_without_the_cache_and_resumed(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETINANET_CACHE", str(tmp_path / "cache"))
    words = (*FROZEN, "eval.every=3", "eval.unit=steps")
    run_training(tiny(*words), tmp_path / "pixels")
    run_training(tiny(*words, "data.feature_cache=true", "log.pictures=2"), tmp_path / "cached")
    run_training(tiny(*words, "data.feature_cache=true", "schedule.iterations=3"), tmp_path / "resumed")
    run_training(tiny(*words, "data.feature_cache=true"), tmp_path / "resumed", resume=True)
    assert (tmp_path / "cached" / "pictures" / "train_batch.jpg").is_file()
    wanted = load_checkpoint(tmp_path / "pixels" / "checkpoints" / "last.pt").model
    for name in ("cached", "resumed"):
        found = load_checkpoint(tmp_path / name / "checkpoints" / "last.pt").model
        for key, tensor in wanted.items():
            torch.testing.assert_close(found[key], tensor, rtol=1e-4, atol=1e-6, msg=f"{name}: {key}")
    rows = [read_rows(tmp_path / name / "metrics.jsonl") for name in ("pixels", "cached")]
    for mine, theirs in zip(*rows, strict=True):
        assert mine.keys() == theirs.keys()
        numbers = [key for key, value in mine.items() if isinstance(value, float)]
        assert [mine[key] for key in numbers] == pytest.approx([theirs[key] for key in numbers], rel=1e-4, abs=1e-5)


@pytest.mark.parametrize(
    ("word", "cause"),
    [
        ("model.frozen=[]", r"the backbone trains: model\.frozen=\[backbone\]"),
        ("data.scale_jitter=[0.8,1.2]", r"data\.scale_jitter=\[1,1\]"),
        ("data.color_jitter=0.1", r"data\.color_jitter=0"),
        ("data.canvases=tight", r"data\.canvases=groups"),
    ],
)
def test_features_that_would_differ_between_epochs_are_refused(tiny: Tiny, word: str, cause: str) -> None:
    with pytest.raises(InvalidConfig, match=cause):
        tiny(*FROZEN, "data.feature_cache=true", word)
