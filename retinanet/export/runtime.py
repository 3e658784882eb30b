"""Run exported files: detectors that need none of the network's code.

An ONNX file is only data. A .pt2 file is a program: loading one runs what its author put into it.
"""

import logging
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from retinanet.build.network import build_anchor_spec
from retinanet.build.rules import build_detect_rule
from retinanet.config.load import with_overrides
from retinanet.config.schema import Config
from retinanet.detection.anchors import AnchorSpec
from retinanet.detection.postprocess import DetectRule, detect_decoded, original_scale
from retinanet.distributed import choose_device, read_ranks
from retinanet.errors import CheckpointError, ConfigError, DataError, ResourceError, list_errors
from retinanet.evaluation.saved import SavedDetector, ready_detector
from retinanet.export.graph import LEAST_TRACED_SIDE, level_sizes
from retinanet.export.info import INPUTS, KEY, ExportInfo, need, read_info
from retinanet.export.seal import check_seal
from retinanet.interop.any_detector import open_detector
from retinanet.run.archive import damage_of_archive
from retinanet.run.nearest import describe_missing_checkpoint
from retinanet.structures import Batch, Category, Detections

SUFFIXES = (".onnx", ".pt2")

Provider = Literal["cpu", "cuda", "tensorrt"]
PROVIDERS: dict[Provider, tuple[str, ...]] = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}
"""onnxruntime's names: each operator runs on the first of them that has it."""

Run = Callable[[Tensor, Tensor], Sequence[Tensor]]
"""Images and sizes -> the outputs named in `info`, all on the detector's device."""


class ExportedDetector(NamedTuple):
    """An exported file ready to detect; usable wherever a `Detector` is."""

    run: Run
    info: ExportInfo
    anchors: AnchorSpec
    rule: DetectRule
    device: torch.device
    """Where `run` computes, and what becomes detections of its outputs."""

    def prepare(self) -> None:
        """Does nothing: the file is always in evaluation mode."""

    @torch.no_grad()
    def __call__(self, batch: Batch) -> list[Detections]:
        """Detections of each image in its original frame."""
        return self.detections(self.outputs(batch), batch)

    def outputs(self, batch: Batch) -> Sequence[Tensor]:
        """The file's outputs for a batch, as named in `info`. Raises DataError for an unsupported canvas."""
        canvas = (batch.images.shape[2], batch.images.shape[3])
        if self.info.kind != "onnx" and min(canvas) < LEAST_TRACED_SIDE:
            raise DataError(
                f"a canvas of {canvas[0]} x {canvas[1]} (height x width) is too small for a .pt2 file: both sides must "
                f"be at least {LEAST_TRACED_SIDE}. Set data.canvas or data.shorter_side higher, or export to ONNX."
            )
        pixels = torch.uint8 if self.info.pixels == "uint8" else torch.float32
        images, sizes_B2 = (tensor.to(self.device, non_blocking=True) for tensor in (batch.images, batch.sizes_B2))
        # The memory format used for tracing: an AOTInductor file reads memory without checking its strides.
        return self.run(images.to(pixels).contiguous(), sizes_B2)

    def detections(self, outputs: Sequence[Tensor], batch: Batch) -> list[Detections]:
        """Detections of each image in its original frame from the file's outputs."""
        sizes = batch.sizes_B2.to(self.device), batch.original_sizes_B2.to(self.device)
        if not self.info.nms:
            levels = level_sizes((batch.images.shape[2], batch.images.shape[3]), self.anchors)
            return detect_decoded(outputs[1], outputs[0], levels, *sizes, self.rule)
        boxes_BD4, scores_BD, classes_BD, counts_B = outputs
        boxes_BD4 = boxes_BD4 * original_scale(*sizes)[:, None]
        return [
            Detections(boxes_D4[:count], scores_D[:count], classes_D[:count])
            for boxes_D4, scores_D, classes_D, count in zip(boxes_BD4, scores_BD, classes_BD, counts_B.tolist())
        ]


class LoadedExport(NamedTuple):
    """As `SavedDetector`, for an exported file."""

    detector: ExportedDetector
    config: Config
    categories: tuple[Category, ...]
    step: int


def is_exported(path: Path) -> bool:
    """Whether the file's suffix is one that retinanet export writes."""
    return path.suffix.lower() in SUFFIXES


def load_exported(path: Path, overrides: Sequence[str]) -> LoadedExport:
    """Read an exported file.

    overrides: key=value words for its config, of keys that are not fixed in its graph.
    Raises CheckpointError for a file that cannot be used, ConfigError for other overrides, and ResourceError if the
    runtime is not installed.
    """
    if not path.is_file():
        what = (
            f"{path}: is a folder; give an exported file."
            if path.is_dir()
            else describe_missing_checkpoint(path, "file")
        )
        raise CheckpointError(what)
    is_onnx = path.suffix.lower() == ".onnx"
    run, text = open_session(path, torch.get_num_threads()) if is_onnx else open_program(path)
    info = read_info(text, str(path))
    config = with_overrides(info.config, overrides)
    check_graph_overrides(config, info, path)
    if config.threads:
        torch.set_num_threads(config.threads)
    if is_onnx and (config.threads or config.eval.onnx_provider != "cpu"):
        run, _ = open_session(path, torch.get_num_threads(), config.eval.onnx_provider)
    detector = ExportedDetector(
        run=run,
        info=info,
        anchors=build_anchor_spec(config.model),
        rule=build_detect_rule(config),
        device=choose_device(info.device, read_ranks()),
    )
    return LoadedExport(detector=detector, config=config, categories=info.categories, step=info.step)


def check_graph_overrides(config: Config, info: ExportInfo, path: Path) -> None:
    """Raise ConfigError if `config` changes what is fixed in the graph of `path`."""
    before = info.config
    fixed = {
        "model": config.model != before.model,
        "loss.classification": config.loss.classification != before.loss.classification,
        "data.resize": config.data.resize != before.data.resize,
        "device": config.device not in ("auto", info.device),
    }
    if info.nms:
        fixed["eval (thresholds)"] = build_detect_rule(config) != build_detect_rule(before)
    changed = [f"{name} is fixed in the file" for name, is_changed in fixed.items() if is_changed]
    if changed:
        raise ConfigError(list_errors(f"{path}: export the checkpoint again with these overrides", changed))


def open_session(path: Path, threads: int, provider: Provider = "cpu") -> tuple[Run, str | None]:
    """Open an ONNX file in onnxruntime with `threads` CPU threads; returns its metadata too.

    Raises ResourceError if onnxruntime does not have the provider, or if it does not run here.
    """
    need("onnxruntime")
    import onnxruntime

    check_seal(path)
    names = PROVIDERS[provider]
    if names[0] not in (known := onnxruntime.get_available_providers()):
        raise ResourceError(
            f"eval.onnx_provider: {provider}: onnxruntime {onnxruntime.__version__} has no {names[0]} here, only "
            f"{', '.join(known)}; install onnxruntime-gpu in place of onnxruntime, or use eval.onnx_provider=cpu."
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        given = [(name, {"use_tf32": "0"} if name == "CUDAExecutionProvider" else {}) for name in names]
        session = onnxruntime.InferenceSession(str(path), options, providers=given)
    except Exception as error:  # onnxruntime raises many kinds, none of them public
        raise CheckpointError(f"{path}: not an ONNX file that onnxruntime can run ({error!s:.200}).") from error

    if names[0] not in session.get_providers():  # onnxruntime goes on with the next one
        raise ResourceError(
            f"eval.onnx_provider: {provider}: onnxruntime could not start {names[0]} (no GPU, or CUDA, cuDNN or "
            "TensorRT are not the releases that it needs); use eval.onnx_provider=cpu."
        )

    def run(images: Tensor, sizes_B2: Tensor) -> list[Tensor]:
        values = (images.contiguous().numpy(), sizes_B2.numpy())
        return [torch.from_numpy(output) for output in session.run(None, dict(zip(INPUTS, values, strict=True)))]

    return run, session.get_modelmeta().custom_metadata_map.get(KEY)


def open_program(path: Path) -> tuple[Run, str | None]:
    """Open a .pt2 file of torch.export or AOTInductor; returns its metadata too. It runs on torch's threads."""
    if damage := damage_of_archive(path):
        raise CheckpointError(f"{path}: not a .pt2 file, or {damage}. Use another copy, or export it again.")
    logging.getLogger("torch.export").setLevel(logging.ERROR)  # its traceback of what is reported below
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
        if any("/data/aotinductor/" in f"/{name}" for name in names):
            return open_package(path)
        extra = {KEY: ""}
        program = torch.export.load(path, extra_files=extra)
        return program.module(), extra[KEY]
    except ResourceError:
        raise
    except Exception as error:  # torch raises many kinds for a file of another origin
        raise CheckpointError(f"{path}: not a .pt2 file that this torch can run ({error!s:.200}).") from error


def open_package(path: Path) -> tuple[Run, str | None]:
    """Open an AOTInductor package on the device that it was compiled for; ResourceError if there is none here."""
    loader: Any = torch._C._aoti.AOTIModelPackageLoader  # torch's types lack the function
    metadata = loader.load_metadata_from_package(str(path), "model")
    if metadata.get("AOTI_DEVICE_KEY") != "cuda":
        return torch._inductor.aoti_load_package(str(path)), metadata.get(KEY)
    if not torch.cuda.is_available():
        raise ResourceError(
            f"{path}: compiled for an NVIDIA GPU, and this machine has none that torch can use; run it where there is "
            "one, or export the checkpoint again without --device cuda."
        )
    device = choose_device("cuda", read_ranks())
    return torch._inductor.aoti_load_package(str(path), device_index=device.index), metadata.get(KEY)


def load_any(path: Path, overrides: Sequence[str]) -> SavedDetector | LoadedExport:
    """Read what `find_checkpoint` returns: a checkpoint, another project's file, or one that retinanet export wrote."""
    if is_exported(path):
        return load_exported(path, overrides)
    return ready_detector(open_detector(path, overrides), str(path), overrides)
