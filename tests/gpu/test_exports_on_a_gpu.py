"""Exported files on a GPU's execution providers compared with the CPU's."""

from pathlib import Path

import pytest
import torch

from benchmarks.scenes import random_batch
from retinanet.evaluation.saved import load_detector
from retinanet.export.command import ExportOptions, export_checkpoint
from retinanet.export.graph import RawGraph
from retinanet.export.runtime import PROVIDERS, load_exported

onnxruntime = pytest.importorskip("onnxruntime")
OPTIONS = ExportOptions(
    kind="onnx",
    nms=False,
    int8=False,
    calibrate=[],
    calibration_images=1,
    check=False,
    limit=None,
    latency_runs=0,
    batch_sizes=[],
    threads=[],
    overwrite=False,
)


@pytest.mark.slow
@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_computes_what_the_cpu_does(
    provider: str, trained_resnet: Path, tmp_path: Path, device: torch.device
) -> None:
    name = "cpu" if device.type == "cpu" else provider
    if PROVIDERS[name][0] not in onnxruntime.get_available_providers():  # type: ignore[index]
        pytest.skip(f"onnxruntime has no {name} provider; onnxruntime-gpu has")
    export_checkpoint(trained_resnet / "checkpoints" / "best.pt", tmp_path / "a.onnx", [], OPTIONS)
    batch = random_batch((64, 96), 2, 3)
    found = [
        load_exported(tmp_path / "a.onnx", [f"eval.onnx_provider={one}"]).detector.outputs(batch)
        for one in ("cpu", name)
    ]
    for own, wanted in zip(found[1], found[0], strict=True):
        torch.testing.assert_close(own, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_a_package_computes_what_the_checkpoint_does(
    trained_resnet: Path, tmp_path: Path, device: torch.device
) -> None:
    checkpoint, path = trained_resnet / "checkpoints" / "best.pt", tmp_path / "a.pt2"
    export_checkpoint(checkpoint, path, [], OPTIONS._replace(kind="aoti", device=device.type))
    loaded = load_exported(path, []).detector
    assert loaded.device.type == device.type
    batch = random_batch((160, 192), 2, 3)
    graph = RawGraph(load_detector(checkpoint, ["device=cpu", "precision=float32"]).detector).eval()
    with torch.no_grad():
        wanted = graph(batch.images, batch.sizes_B2)
    for own, expected in zip(loaded.outputs(batch), wanted, strict=True):
        torch.testing.assert_close(own.cpu(), expected, rtol=1e-3, atol=1e-3)
    assert len(loaded(batch)) == 2
