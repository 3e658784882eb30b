"""Execution providers of onnxruntime by name, without the ones that need a GPU."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from retinanet.errors import ResourceError
from retinanet.export import runtime

onnxruntime = pytest.importorskip("onnxruntime")


class Session:
    """Takes what an InferenceSession is given; only the CPU starts."""

    given: list[Any] = []

    def __init__(self, path: str, options: Any, providers: list[tuple[str, dict[str, str]]]) -> None:
        Session.given = providers

    def get_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]

    def get_modelmeta(self) -> Any:
        return SimpleNamespace(custom_metadata_map={runtime.KEY: "text"})


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    path = tmp_path / "a.onnx"
    path.write_bytes(b"graph")
    return path


@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
def test_a_provider_that_onnxruntime_lacks_is_named_with_the_remedy(
    name: Any, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ResourceError, match=rf"onnx_provider: {name}: .*only CPUExecutionProvider; .*onnxruntime-gpu"):
        runtime.open_session(file, 1, name)


def test_a_provider_that_does_not_start_is_not_replaced_by_the_cpu(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(runtime.PROVIDERS["tensorrt"]))
    with pytest.raises(ResourceError, match="tensorrt: onnxruntime could not start TensorrtExecutionProvider"):
        runtime.open_session(file, 1, "tensorrt")
    assert [name for name, _ in Session.given] == list(runtime.PROVIDERS["tensorrt"])
    assert dict(Session.given)["CUDAExecutionProvider"] == {"use_tf32": "0"}, "float32 is float32"
    assert runtime.open_session(file, 1)[1] == "text"
