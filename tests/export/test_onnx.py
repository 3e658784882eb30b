"""ONNX files compared with the detector they were exported from, on batches and canvases not used for tracing."""

import json
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export_fixtures import assert_same, random_batch, sharpen, with_short_network

import retinanet
from retinanet.__main__ import command_main
from retinanet.build.rules import build_resize_rule
from retinanet.data.coco import load_coco
from retinanet.data.find_images import find_images
from retinanet.data.loader import eval_batches
from retinanet.detection.anchors import pyramid_anchors
from retinanet.detection.postprocess import detect_decoded
from retinanet.diagnostics.evaluate import evaluate_loaded
from retinanet.distributed import Ranks
from retinanet.errors import CheckpointError, ConfigError
from retinanet.evaluation.evaluate import evaluate_dataset
from retinanet.evaluation.saved import SavedDetector, load_detector
from retinanet.export.command import ExportOptions, export_checkpoint
from retinanet.export.graph import RawGraph
from retinanet.export.info import ExportInfo, read_info
from retinanet.export.quantise import calibration_sample, write_int8
from retinanet.export.runtime import LoadedExport, load_exported
from retinanet.export.writers import write_onnx
from retinanet.structures import Batch

MISSING = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
pytestmark = [
    pytest.mark.slow,  # writing the files takes ten seconds each, and importing the packages, which tests do, three
    pytest.mark.skipif(bool(MISSING), reason="exporting needs `pip install -e .[export]`"),
]

SHAPES = [(1, (64, 64)), (3, (96, 160)), (2, (288, 224)), (1, (100, 75))]
"""One cell on P7, several, more than in the example, and sides that are not multiples of a stride."""


WORDS = ["eval.score_threshold=0.02", "eval.topk=40"]
NMS_WORDS = [*WORDS, "eval.detections=12", "model.channels_last=false", "precision=float32"]
ALONE_WORDS = [*NMS_WORDS, "eval.class_agnostic=true", "eval.empty_boxes=drop_last"]


@pytest.fixture(scope="module")
def checkpoint(trained_resnet: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sharpen(trained_resnet / "checkpoints" / "best.pt", tmp_path_factory.mktemp("sharp") / "sharp.pt")


@pytest.fixture(scope="module")
def saved(checkpoint: Path) -> SavedDetector:
    return load_detector(checkpoint, [*WORDS, "model.channels_last=false"])


@pytest.fixture(scope="module")
def raw_file(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written and compared with the checkpoint as by the command line."""
    path = tmp_path_factory.mktemp("raw") / "out" / "raw.onnx"
    options = ExportOptions(
        kind=None,
        nms=False,
        int8=False,
        calibrate=[],
        calibration_images=1,
        check=True,
        limit=4,
        latency_runs=3,
        batch_sizes=[1, 2],
        threads=[1],
        overwrite=False,
    )
    export_checkpoint(checkpoint, path, WORDS, options)
    return path


@pytest.fixture(scope="module")
def short(checkpoint: Path) -> SavedDetector:
    """The short network: what writes suppression need not translate a whole ResNet again."""
    return load_short(checkpoint, [*NMS_WORDS, "eval.empty_boxes=drop_before_nms"])


def load_short(path: Path, overrides: list[str]) -> SavedDetector:
    saved = load_detector(path, overrides)
    return saved._replace(detector=with_short_network(saved.detector))


@pytest.fixture(scope="module")
def nms_file(short: SavedDetector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("nms") / "nms.onnx"
    info = ExportInfo(kind="onnx", config=short.config, categories=short.categories, step=7, nms=True, int8=False)
    write_onnx(path, short.detector, info)
    return path


@pytest.fixture(scope="module")
def nms(nms_file: Path) -> LoadedExport:
    return load_exported(nms_file, [])


@pytest.fixture(scope="module")
def raw(raw_file: Path) -> LoadedExport:
    return load_exported(raw_file, [])


@pytest.mark.parametrize(("count", "canvas"), SHAPES)
def test_raw_file_equals_the_detector(
    raw: LoadedExport, saved: SavedDetector, count: int, canvas: tuple[int, int]
) -> None:
    batch = random_batch(count, canvas)
    assert_same(raw.detector(batch), saved.detector(batch))


@pytest.mark.parametrize(("count", "canvas"), SHAPES)
def test_file_with_suppression_equals_the_detector(
    nms: LoadedExport, short: SavedDetector, count: int, canvas: tuple[int, int]
) -> None:
    batch = random_batch(count, canvas)
    assert_same(nms.detector(batch), short.detector(batch))
    boxes, scores, classes, counts = nms.detector.outputs(batch)
    assert boxes.shape == (count, short.config.eval.detections, 4)
    for box, score, kind, found in zip(boxes, scores, classes, counts, strict=True):
        assert (kind[found:] == -1).all()
        assert (score[found:] == 0).all()
        assert (box[found:] == 0).all()
        assert (kind[:found] >= 0).all()


@pytest.mark.parametrize(("empty_boxes", "class_agnostic"), [("drop_before_nms", "false"), ("drop_last", "true")])
def test_file_with_suppression_drops_boxes_without_area(
    checkpoint: Path, nms: LoadedExport, exported_alone: Path, empty_boxes: str, class_agnostic: str
) -> None:
    """Images that fill a part of their canvas only: many boxes lie in the padding."""
    words = [*NMS_WORDS, f"eval.class_agnostic={class_agnostic}"]
    saved = load_short(checkpoint, [*words, f"eval.empty_boxes={empty_boxes}"])
    if empty_boxes != "drop_before_nms":
        nms = load_exported(exported_alone.parent.with_name("float32.onnx"), [])
    assert nms.config == saved.config
    batch = random_batch(2, (96, 160))._replace(sizes_B2=torch.tensor([[96, 40], [30, 160]]))
    found = saved.detector(batch)
    assert_same(nms.detector(batch), found)
    assert all((of_image.boxes_D4[:, 2:] > of_image.boxes_D4[:, :2]).all() for of_image in found)
    kept = load_short(checkpoint, [*words, "eval.empty_boxes=keep"]).detector(batch)
    assert any((of_image.boxes_D4[:, 2:] <= of_image.boxes_D4[:, :2]).any() for of_image in kept)


def test_file_with_suppression_can_find_nothing(nms: LoadedExport) -> None:
    batch = random_batch(2, (64, 64))
    batch = batch._replace(images=torch.zeros_like(batch.images), sizes_B2=batch.sizes_B2)
    counts = [len(found.scores_D) for found in nms.detector(batch)]
    assert all(count <= 20 for count in counts)


def test_file_describes_itself(raw_file: Path, nms_file: Path, saved: SavedDetector) -> None:
    """Inputs and outputs by name and type, free dimensions, and all that a user needs in the metadata."""
    import onnx
    import onnxruntime as ort

    session = ort.InferenceSession(str(nms_file))
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [
        ("images", "tensor(uint8)", ["batch", 3, "height", "width"]),
        ("sizes", "tensor(int64)", ["batch", 2]),
    ]
    assert [o.name for o in session.get_outputs()] == ["boxes", "scores", "classes", "counts"]
    plain = ort.InferenceSession(str(raw_file))
    assert [(o.name, o.shape) for o in plain.get_outputs()] == [
        ("boxes", ["batch", "anchors", 4]),
        ("scores", ["batch", "anchors", len(saved.categories)]),
    ]
    info = read_info(plain.get_modelmeta().custom_metadata_map["retinanet"], "raw.onnx")
    assert info == ExportInfo(
        kind="onnx", config=info.config, categories=saved.categories, step=saved.step, nms=False, int8=False
    )
    assert info.config.model.model_copy(update={"channels_last": False}) == saved.config.model
    assert (info.config.eval, info.config.data) == (saved.config.eval, saved.config.data)
    onnx.checker.check_model(str(raw_file), full_check=True)


def test_overrides_of_thresholds_work_if_suppression_is_outside(
    raw_file: Path, nms_file: Path, checkpoint: Path
) -> None:
    words = ["eval.score_threshold=0.1", "eval.detections=3", "eval.nms_iou=0.2"]
    batch = random_batch(1, (96, 96))
    found = load_exported(raw_file, words).detector(batch)[0]
    wanted = load_detector(checkpoint, [*words, "eval.topk=40"]).detector(batch)[0]
    assert len(found.scores_D) == 3
    torch.testing.assert_close(found.scores_D, wanted.scores_D, rtol=0, atol=1e-4)
    with pytest.raises(ConfigError, match=r"eval .*fixed in the file"):
        load_exported(nms_file, words)


def test_overrides_of_what_is_fixed_in_the_graph_are_listed_together(raw_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"export the checkpoint again.*\(3 errors\)"):
        load_exported(raw_file, ["model.anchors.offset=0", "data.resize=float_bilinear", "device=cuda"])


def test_evaluation_accepts_a_file_like_a_checkpoint(raw: LoadedExport, saved: SavedDetector, shapes: Path) -> None:
    dataset = load_coco(shapes / "annotations/val.json", shapes / "val")
    resize_rule, ranks = build_resize_rule(saved.config), Ranks(0, 0, 1)
    ours = evaluate_dataset(
        raw.detector, dataset, resize_rule, (4, 0), ranks, lambda _: None, saved.config.eval, dataset.categories
    )[1]
    theirs = evaluate_dataset(
        saved.detector, dataset, resize_rule, (4, 0), ranks, lambda _: None, saved.config.eval, dataset.categories
    )[1]
    assert [r["score"] for r in ours] == pytest.approx([r["score"] for r in theirs], abs=1e-4)
    assert len(ours) > 20


def test_the_whole_evaluation_of_a_file_is_that_of_its_checkpoint(
    raw: LoadedExport, raw_file: Path, saved: SavedDetector, checkpoint: Path, tmp_path: Path
) -> None:
    found = {}
    for name, loaded, path in (("ours", saved, checkpoint), ("theirs", raw, raw_file)):
        evaluate_loaded(loaded, path, tmp_path / name, report=False)
        found[name] = json.loads((tmp_path / name / "eval.json").read_text(encoding="utf-8"))
    assert found["theirs"]["step"] == found["ours"]["step"]
    assert found["theirs"]["metrics"] == pytest.approx(found["ours"]["metrics"], abs=0.02)


def test_prediction_accepts_a_file_like_a_checkpoint(
    raw_file: Path, checkpoint: Path, shapes: Path, tmp_path: Path, tool: Callable[..., Any]
) -> None:
    for source, folder in ((raw_file, "onnx"), (checkpoint, "pt")):
        code, _, err = tool("predict.py", source, shapes / "val", "--output", tmp_path / folder, *WORDS)
        assert code == 0, err
    ours, theirs = (json.loads((tmp_path / f / "detections.json").read_text()) for f in ("onnx", "pt"))
    assert len(ours) == len(theirs) > 20
    for row, other in zip(ours, theirs, strict=True):
        assert row["score"] == pytest.approx(other["score"], abs=1e-4)
        assert row["file_name"] == other["file_name"]


def test_files_of_another_origin_are_refused(raw_file: Path, tmp_path: Path) -> None:
    import onnx

    (tmp_path / "text.onnx").write_text("no model", encoding="utf-8")
    with pytest.raises(CheckpointError, match="not an ONNX file that onnxruntime can run"):
        load_exported(tmp_path / "text.onnx", [])
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(raw_file.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="not an ONNX file"):
        load_exported(cut, [])
    with pytest.raises(CheckpointError, match="no such file"):
        load_exported(tmp_path / "none.onnx", [])
    model = onnx.load(raw_file)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "bare.onnx")
    with pytest.raises(CheckpointError, match=r"not a file that retinanet export wrote"):
        load_exported(tmp_path / "bare.onnx", [])
    onnx.helper.set_model_props(model, {"retinanet": json.dumps({"format": "retinanet-export-9"})})
    onnx.save(model, tmp_path / "newer.onnx")
    with pytest.raises(CheckpointError, match=r"retinanet-export-9.*export the checkpoint again"):
        load_exported(tmp_path / "newer.onnx", [])


def test_decoded_boxes_detect_like_deltas(saved: SavedDetector) -> None:
    """`detect_decoded`, which reads the outputs of raw files, on the checkpoint's own decoded boxes: bit for bit."""
    batch = random_batch(2, (96, 64))
    with torch.no_grad():
        boxes_BA4, scores_BAK = RawGraph(saved.detector).eval()(batch.images, batch.sizes_B2)
    levels = pyramid_anchors((96, 64), saved.detector.anchors, torch.device("cpu")).level_sizes
    found = detect_decoded(scores_BAK, boxes_BA4, levels, batch.sizes_B2, batch.original_sizes_B2, saved.detector.rule)
    for ours, theirs in zip(found, saved.detector(batch), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_graph_accepts_fractions_if_resizing_yields_them(checkpoint: Path) -> None:
    saved = load_detector(checkpoint, ["data.resize=float_bilinear", *WORDS])
    info = ExportInfo(kind="onnx", config=saved.config, categories=saved.categories, step=1, nms=False, int8=False)
    assert info.pixels == "float32"
    batch = random_batch(1, (64, 96))
    images = batch.images.float() * 0.97 + 0.4
    graph = RawGraph(saved.detector).eval()
    levels = pyramid_anchors((64, 96), saved.detector.anchors, torch.device("cpu")).level_sizes
    with torch.no_grad():
        boxes_BA4, scores_BAK = graph(images, batch.sizes_B2)
    frame = (batch.sizes_B2, batch.original_sizes_B2, saved.detector.rule)
    assert_same(detect_decoded(scores_BAK, boxes_BA4, levels, *frame), saved.detector(batch._replace(images=images)))


def test_report_next_to_the_file(raw_file: Path, checkpoint: Path) -> None:
    report = json.loads(raw_file.with_name(f"{raw_file.name}.json").read_text(encoding="utf-8"))
    assert (report["kind"], report["nms"], report["int8"], report["images"]) == ("onnx", False, False, 4)
    assert report["checkpoint"] == str(checkpoint)
    ours, theirs = report["results"]["checkpoint"], report["results"]["raw.onnx"]
    assert theirs["metrics"] == pytest.approx(ours["metrics"], abs=1e-6)
    assert set(ours["metrics"]) >= {"AP", "AP50", "AR100"}
    difference = theirs["difference"]
    assert 0 < difference["outputs"]["box_pixels"] < 1e-2
    assert 0 < difference["outputs"]["score"] < 1e-4
    found = difference["detections"]
    assert found["checkpoint"] == found["file"] == found["matched"] > 20
    assert [(r["name"], r["threads"], r["batch"]) for r in report["latency"]] == [
        (name, 1, batch) for name in ("checkpoint", "raw.onnx") for batch in (1, 2)
    ]
    assert all(0 < row["p50_ms"] <= row["p99_ms"] for row in report["latency"])
    assert report["hardware"]["cpu"]
    assert report["hardware"]["cores"] >= 1


@pytest.fixture(scope="module")
def int8_file(raw_file: Path, saved: SavedDetector, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "int8.onnx"
    info = ExportInfo(kind="onnx", config=saved.config, categories=saved.categories, step=7, nms=False, int8=True)
    images = calibration_sample(find_images([str(shapes / "train")]), 6)
    write_int8(path, raw_file, images, build_resize_rule(saved.config), info)
    assert [file.name for file in path.parent.iterdir()] == ["int8.onnx"]
    return path


@pytest.fixture(scope="module")
def val_batch(saved: SavedDetector, shapes: Path) -> Batch:
    dataset = load_coco(shapes / "annotations/val.json", shapes / "val")
    rule = build_resize_rule(saved.config)
    return next(eval_batches(dataset, rule, batch_size=6, rank=0, world_size=1, workers=0, pin=False))


def test_int8_file_detects_nearly_the_same(raw: LoadedExport, int8_file: Path, val_batch: Batch) -> None:
    """Holds on x86-64 with and without VNNI and on arm64: see the next two tests."""
    quantised = load_exported(int8_file, [])
    assert quantised.detector.info.int8
    (_, scores), (_, float_scores) = quantised.detector.outputs(val_batch), raw.detector.outputs(val_batch)
    assert 1e-4 < (scores - float_scores).abs().max() < 0.2, "8 bits round, and no more"


def test_int8_products_cannot_saturate_on_any_processor(int8_file: Path) -> None:
    """Without VNNI, x86-64 with AVX2 or AVX512 adds two products of u8 activations and s8 weights in saturating int16.

    With 8-bit weights an emulated Haswell gave a largest score error of 0.36 where a processor with VNNI gave 0.14.
    """
    import onnx

    model = onnx.load(int8_file)
    arrays = {entry.name: onnx.numpy_helper.to_array(entry) for entry in model.graph.initializer}
    origins = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}
    weights = [
        arrays[origins[node.input[1]]]
        for node in model.graph.node
        if node.op_type == "Conv" and node.input[1] in origins
    ]
    assert len(weights) > 20
    for weight in weights:
        assert weight.dtype == np.int8
        largest = int(np.abs(weight.astype(np.int32)).max())
        assert largest > 32
        assert 2 * 255 * largest <= np.iinfo(np.int16).max


def test_int8_arithmetic_equals_the_same_graph_in_float(int8_file: Path, val_batch: Batch) -> None:
    """The reference quantises and dequantises, but computes every convolution in float32: it cannot saturate.

    Equal with VNNI and, because weights have 7 bits, without it.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    reference = ort.InferenceSession(str(int8_file), options, providers=["CPUExecutionProvider"])
    feed = {"images": val_batch.images.contiguous().numpy(), "sizes": val_batch.sizes_B2.numpy()}
    boxes, scores = map(torch.from_numpy, reference.run(None, feed))
    found_boxes, found_scores = load_exported(int8_file, []).detector.outputs(val_batch)
    # A sum on the border between two 8-bit values may round either way.
    torch.testing.assert_close(found_scores, scores, rtol=0, atol=0.02)
    assert (found_scores - scores).abs().mean() < 1e-4
    assert (found_boxes - boxes).abs().mean() < 0.05


def test_int8_file_keeps_the_last_convolutions_in_float_and_is_small(raw_file: Path, int8_file: Path) -> None:
    import onnx

    model = onnx.load(int8_file)
    assert "QuantizeLinear" in {node.op_type for node in model.graph.node}
    assert int8_file.stat().st_size < raw_file.stat().st_size / 2
    last = [node for node in model.graph.node if node.op_type == "Conv" and "predict" in node.input[1]]
    assert len(last) == 10
    assert all(node.input[1].endswith("_head.predict.weight") for node in last)


def test_calibration_images_are_evenly_spaced() -> None:
    paths = [Path(str(number)) for number in range(10)]
    assert [path.name for path in calibration_sample(paths, 4)] == ["0", "2", "5", "7"]
    assert calibration_sample(paths, 50) == paths


@pytest.fixture(scope="module")
def exported_alone(checkpoint: Path, shapes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An int8 file with suppression of the short network, written as by a process that does nothing else.

    What it was quantised from is kept as float32.onnx next to its folder.
    """
    path = tmp_path_factory.mktemp("alone") / "out" / "small.onnx"
    words = ["--int8", "--calibrate", shapes / "train", "--calibration-images", 4, "--nms", "--latency-runs", 0]
    pyramid_anchors.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("retinanet.export.command.load_detector", load_short)
        patch.setattr("retinanet.export.command.write_int8", quantise_a_copy)
        command_main("export")([str(word) for word in (checkpoint, path, *words, *ALONE_WORDS)], "retinanet export")
    return path


def quantise_a_copy(path: Path, source: Path, *rest: Any) -> None:
    kept = shutil.copy(source, path.parent.with_name("float32.onnx"))
    write_int8(path, kept, *rest)


def test_int8_with_suppression_by_the_command_line(exported_alone: Path, shapes: Path) -> None:
    path = exported_alone
    report = json.loads(path.with_name("small.onnx.json").read_text(encoding="utf-8"))
    assert list(report["results"]) == ["checkpoint", "float32 ONNX", "small.onnx"]
    assert report["calibration"] == {"inputs": [str(shapes / "train")], "images": 4}
    assert report["results"]["float32 ONNX"]["difference"]["detections"]["score"] < 1e-4
    assert "latency" not in report
    assert {file.name for file in path.parent.iterdir()} == {"small.onnx", "small.onnx.json"}
    assert len(load_exported(path, []).detector(random_batch(1, (96, 64)))[0].scores_D) > 5


def test_a_process_that_only_exports_compares_with_the_checkpoints_own_detections(
    exported_alone: Path, checkpoint: Path, shapes: Path
) -> None:
    """Such a process traces the graph first, so nothing that tracing caches may be used afterwards."""
    short = load_short(checkpoint, ALONE_WORDS)
    report = json.loads(exported_alone.with_name("small.onnx.json").read_text(encoding="utf-8"))
    dataset = load_coco(shapes / "annotations" / "val.json", shapes / "val", "none")
    evaluation, _ = evaluate_dataset(
        short.detector,
        dataset,
        build_resize_rule(short.config),
        (4, 0),
        Ranks(0, 0, 1),
        lambda _: None,
        short.config.eval,
        short.categories,
    )
    for name in ("checkpoint", "float32 ONNX"):
        assert report["results"][name]["metrics"]["AP"] == pytest.approx(evaluation.metrics["AP"], abs=1e-4), name
    assert report["results"]["float32 ONNX"]["difference"]["detections"]["score"] < 1e-4


def test_a_copy_works_anywhere(raw_file: Path, tmp_path: Path, saved: SavedDetector) -> None:
    """One file contains everything."""
    shutil.copy(raw_file, tmp_path / "copy.onnx")
    batch = random_batch(1, (64, 64))
    assert_same(load_exported(tmp_path / "copy.onnx", []).detector(batch), saved.detector(batch))


@pytest.mark.parametrize("views", [[], ["data.tile=64", "eval.tta_flip=true"]])
def test_the_python_api_runs_it(raw_file: Path, checkpoint: Path, views: list[str]) -> None:
    """With the boxes of the checkpoint, on whole images and on tiles, also mirrored."""
    array = random_batch(1, (48, 100)).images[0].permute(1, 2, 0).numpy()
    ours, theirs = (retinanet.load(file, overrides=[*WORDS, *views])(array) for file in (raw_file, checkpoint))
    assert len(ours) == len(theirs) > 5
    np.testing.assert_allclose(ours.boxes, theirs.boxes, atol=2e-2)
    np.testing.assert_allclose(ours.scores, theirs.scores, atol=1e-4)
    with pytest.raises(ConfigError, match="device is fixed in the file"):
        retinanet.load(raw_file, device="cuda")
