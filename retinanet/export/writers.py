"""Write a detector to a file: ONNX, an ExportedProgram, or an AOTInductor package."""

import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram
from torch.export.passes import move_to_device_pass

from retinanet.errors import ResourceError
from retinanet.evaluation.detector import Detector
from retinanet.export.graph import EXAMPLE_CANVAS, NmsGraph, RawGraph, onnx_translation
from retinanet.export.info import INPUTS, KEY, NMS_OUTPUTS, RAW_OUTPUTS, ExportInfo, need
from retinanet.export.seal import add_empty_seal, seal
from retinanet.files import replacing

VERBOSE_LOGGERS = ("", "torch.onnx", "torch.export", "torch.utils.cpp_extension", "onnxscript", "onnx_ir")
"""Loggers of messages that concern the exporters' authors, not their users; "" is the root."""

OPSET = 18
"""The oldest that torch writes without conversion, which the most runtimes can read."""


def trace_graph(detector: Detector, info: ExportInfo) -> ExportedProgram:
    """Trace the detector's graph for any batch size and canvas, on the CPU in float32."""
    graph = (NmsGraph(detector) if info.nms else RawGraph(detector)).eval()
    height, width = EXAMPLE_CANVAS
    images = torch.zeros((2, 3, height, width), dtype=torch.uint8 if info.pixels == "uint8" else torch.float32)
    sizes_B2 = torch.tensor([[height, width], [height - 56, width - 20]])
    free = ({0: Dim.DYNAMIC, 2: Dim.DYNAMIC, 3: Dim.DYNAMIC}, {0: Dim.DYNAMIC})
    with torch.no_grad(), quiet():
        return torch.export.export(graph, (images, sizes_B2), dynamic_shapes=free, strict=False)


def write_onnx(path: Path, detector: Detector, info: ExportInfo) -> None:
    """Write an ONNX file with the metadata of `info`, checked by onnx itself."""
    need("onnx", "onnxscript", "onnxruntime")
    traced = trace_graph(detector, info)
    with quiet():
        program = torch.onnx.export(
            traced,
            dynamo=True,
            input_names=list(INPUTS),
            output_names=list(NMS_OUTPUTS if info.nms else RAW_OUTPUTS),
            opset_version=OPSET,
            custom_translation_table=onnx_translation() if info.nms else None,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    name_dimensions(model)
    with replacing(path) as part:
        save_checked(part, model, info)


def save_checked(path: Path, model: Any, info: ExportInfo) -> None:
    """Check an onnx.ModelProto and save it with the metadata of `info`."""
    import onnx

    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {KEY: info.as_text()})
    add_empty_seal(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    seal(path)


def name_dimensions(model: Any) -> None:
    """Give the free dimensions of inputs and outputs descriptive names instead of the tracer's."""
    names: dict[str, str] = {}
    images, sizes = model.graph.input
    for dimension, name in zip(images.type.tensor_type.shape.dim, ("batch", "3", "height", "width"), strict=True):
        if dimension.dim_param:
            names[dimension.dim_param] = name
    for value in (images, sizes, *model.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.dim_param:
                dimension.dim_param = names.get(dimension.dim_param, "anchors")
    # They have the tracer's names, and every runtime infers shapes itself.
    del model.graph.value_info[:]


def write_program(path: Path, detector: Detector, info: ExportInfo) -> None:
    """Write a torch.export file (.pt2)."""
    traced = trace_graph(detector, info)
    with replacing(path, also=(RuntimeError,)) as part:
        torch.export.save(traced, part, extra_files={KEY: info.as_text()})


def write_package(path: Path, detector: Detector, info: ExportInfo) -> None:
    """Write a package (.pt2) of machine code for this kind of CPU or GPU, by `info.device`.

    Raises ResourceError without a C++ compiler, and if the compiler for the GPU fails.
    """
    from torch._inductor import aoti_compile_and_package

    compilers = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++"]
    if not any(map(shutil.which, compilers)):
        raise ResourceError(
            f"--format aoti: needs a C++ compiler and {' or '.join(compilers)} is not on the PATH; install one "
            "(Debian: `apt install g++`), set CXX to yours, or leave out --format."
        )
    traced = trace_graph(detector, info)
    if info.device == "cuda":
        traced = on_gpu(traced)
    with replacing(path) as part, quiet():
        try:
            aoti_compile_and_package(
                traced, package_path=str(part), inductor_configs={"aot_inductor.metadata": {KEY: info.as_text()}}
            )
        except Exception as error:  # of many kinds, where a part of CUDA is missing
            if info.device == "cpu":
                raise
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise ResourceError(
                f"--device cuda: torch could not compile the network for the GPU ({reason:.200}); it needs Triton and "
                f"a CUDA toolkit (CUDA_HOME) of torch's release {torch.version.cuda}. Or leave out --device."
            ) from error


def on_gpu(traced: ExportedProgram) -> ExportedProgram:
    """The program with its inputs, constants and operators on the first GPU."""
    # Not `cuda`, which assertions within the graph distinguish from `cuda:0`.
    return move_to_device_pass(traced, "cuda:0")


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the exporters' messages about specialisations and deprecations."""
    loggers = [logging.getLogger(name) for name in VERBOSE_LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
