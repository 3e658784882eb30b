"""torch.export files and AOTInductor packages compared with the detector they were exported from."""

import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch._inductor.config
from export_fixtures import Tiny, assert_same, detector_with_p2, random_batch, sharpen, with_short_network
from torch._guards import detect_fake_mode

import retinanet
from retinanet.detection.postprocess import original_scale
from retinanet.errors import CheckpointError, DataError, ResourceError
from retinanet.evaluation.saved import SavedDetector, load_detector
from retinanet.export.graph import NmsGraph
from retinanet.export.info import ExportInfo
from retinanet.export.runtime import LoadedExport, load_exported
from retinanet.export.writers import on_gpu, write_package, write_program
from retinanet.structures import Detections

SHAPES = [(1, (160, 160)), (3, (192, 288)), (2, (288, 224))]


@pytest.fixture(scope="module")
def saved(trained_resnet: Path, tmp_path_factory: pytest.TempPathFactory) -> SavedDetector:
    best = trained_resnet / "checkpoints" / "best.pt"
    checkpoint = sharpen(best, tmp_path_factory.mktemp("sharp") / "sharp.pt")
    return load_detector(checkpoint, ["eval.score_threshold=0.02", "eval.topk=40", "model.channels_last=false"])


@pytest.fixture(scope="module")
def program(saved: SavedDetector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("program") / "tiny.pt2"
    write_program(
        path,
        saved.detector,
        ExportInfo(kind="pt2", config=saved.config, categories=saved.categories, step=3, nms=False, int8=False),
    )
    return path


@pytest.fixture(scope="module")
def loaded(program: Path) -> LoadedExport:
    return load_exported(program, [])


@pytest.mark.slow
@pytest.mark.parametrize(("count", "canvas"), SHAPES)
def test_program_equals_the_detector(
    loaded: LoadedExport, saved: SavedDetector, count: int, canvas: tuple[int, int]
) -> None:
    assert (loaded.config, loaded.categories, loaded.step) == (saved.config, saved.categories, 3)
    batch = random_batch(count, canvas)
    assert_same(loaded.detector(batch), saved.detector(batch))


@pytest.mark.slow
def test_small_canvases_are_refused_by_name(loaded: LoadedExport) -> None:
    with pytest.raises(DataError, match=r"canvas of 128 x 160 .*at least 129.*export to ONNX"):
        loaded.detector(random_batch(1, (128, 160)))


@pytest.mark.slow
def test_files_of_another_origin_are_refused(program: Path, tmp_path: Path) -> None:
    content = program.read_bytes()
    (tmp_path / "text.pt2").write_text("no program", encoding="utf-8")
    (tmp_path / "cut.pt2").write_bytes(content[: len(content) // 2])
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    (tmp_path / "flipped.pt2").write_bytes(flipped)
    for name in ("text", "cut", "flipped"):
        with pytest.raises(CheckpointError, match=rf"{name}\.pt2: not a \.pt2 file"):
            load_exported(tmp_path / f"{name}.pt2", [])


@pytest.mark.slow
def test_a_package_for_a_gpu_has_nothing_on_the_cpu(program: Path) -> None:
    """What AOTInductor is given for a GPU, on fake tensors: each operator refuses operands of two devices."""
    traced = torch.export.load(program)
    mode = detect_fake_mode([node.meta.get("val") for node in traced.graph.nodes])
    assert mode is not None
    for held in (traced._state_dict, traced._constants):
        held.update({name: mode.from_tensor(v) for name, v in held.items() if isinstance(v, torch.Tensor)})
    traced._example_inputs = None
    with mode:
        graph = on_gpu(traced).graph_module
        given = [node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder"]
        given[-2:] = [mode.from_tensor(tensor).to("cuda:0") for tensor in random_batch(2, (192, 288))[:2]]
        outputs = torch.fx.Interpreter(graph).run(*given)
    assert {tensor.device.type for tensor in (*given, *outputs)} == {"cuda"}


def test_a_package_for_a_gpu_is_refused_where_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "gpu.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("gpu/data/aotinductor/model/a.so", "code")
    loader = SimpleNamespace(load_metadata_from_package=lambda _path, _model: {"AOTI_DEVICE_KEY": "cuda"})
    monkeypatch.setattr(torch._C._aoti, "AOTIModelPackageLoader", loader)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ResourceError, match=r"gpu\.pt2: compiled for an NVIDIA GPU, and this machine has none"):
        load_exported(path, [])


def test_package_without_a_compiler_says_what_to_install(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = detector_with_p2(tiny)
    monkeypatch.setenv("CXX", "no-such-compiler")
    info = ExportInfo(kind="aoti", config=saved.config, categories=saved.categories, step=3, nms=False, int8=False)
    with pytest.raises(ResourceError, match=r"C\+\+ compiler and no-such-compiler is not on the PATH"):
        write_package(tmp_path / "tiny.pt2", saved.detector, info)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_package_equals_the_detector(saved: SavedDetector, tmp_path: Path) -> None:
    """Compiled without vectors and optimisation, which saves a third and gives the same on all processors."""
    path, detector = tmp_path / "tiny.pt2", with_short_network(saved.detector)
    info = ExportInfo(kind="aoti", config=saved.config, categories=saved.categories, step=3, nms=False, int8=False)
    cheap = {"cpp.simdlen": 1, "aot_inductor.debug_compile": True, "aot_inductor.precompile_headers": False}
    with torch._inductor.config.patch(cheap):
        write_package(path, detector, info)
    loaded = load_exported(path, [])
    assert loaded.detector.info.kind == "aoti"
    for count, canvas in SHAPES:
        batch = random_batch(count, canvas)
        assert_same(loaded.detector(batch), detector(batch))
    with pytest.raises(DataError, match="too small"):
        loaded.detector(random_batch(1, (96, 160)))


def test_the_graph_of_a_pyramid_with_p2_equals_the_detector(tiny: Tiny) -> None:
    """What is exported, run as it is: writing a file of it takes half a minute."""
    saved = detector_with_p2(tiny)
    batch = random_batch(2, (96, 160))
    with torch.no_grad():
        boxes_BD4, scores_BD, classes_BD, counts = NmsGraph(saved.detector)(batch.images, batch.sizes_B2)
    boxes_BD4 = boxes_BD4 * original_scale(batch.sizes_B2, batch.original_sizes_B2)[:, None]
    slots = zip(boxes_BD4, scores_BD, classes_BD, counts, strict=True)
    found = [Detections(boxes[:n], scores[:n], classes[:n]) for boxes, scores, classes, n in slots]
    assert_same(found, saved.detector(batch))


@pytest.mark.slow
def test_the_python_api_runs_it(program: Path, saved: SavedDetector) -> None:
    image = random_batch(1, (150, 160)).images[0]
    found = retinanet.load(program, overrides={"data.canvas": [160, 160]})(image)
    assert len(found) > 5
    assert found.size == (150, 160)
    with pytest.raises(DataError, match=r"too small for a \.pt2 file"):
        retinanet.load(program)(image)
