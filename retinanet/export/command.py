"""Export a checkpoint to a file for other runtimes, and report how its results differ."""

import copy
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from retinanet.build.rules import build_depth_range, build_resize_rule
from retinanet.data.coco import CocoDataset, first_images, load_coco
from retinanet.data.find_images import find_images
from retinanet.display.progress import steps
from retinanet.errors import ConfigError, ResourceError, list_errors
from retinanet.evaluation.detector import AnyDetector, Detector
from retinanet.evaluation.saved import SavedDetector, covered, load_detector
from retinanet.evaluation.sources import resolve_data
from retinanet.export import measure
from retinanet.export.info import ExportInfo, Kind, need
from retinanet.export.measure import Contender
from retinanet.export.quantise import calibration_sample, write_int8
from retinanet.export.runtime import ExportedDetector, load_exported
from retinanet.export.writers import write_onnx, write_package, write_program
from retinanet.files import data_title, make_folder, write_json

WRITERS: dict[Kind, Callable[[Path, Detector, ExportInfo], None]] = {
    "onnx": write_onnx,
    "pt2": write_program,
    "aoti": write_package,
}


class ExportOptions(NamedTuple):
    """Options of `retinanet export`."""

    kind: Literal["onnx", "pt2", "aoti"] | None
    """None: chosen by the suffix of the output."""
    nms: bool
    int8: bool
    calibrate: list[str]
    calibration_images: int
    check: bool
    limit: int | None
    latency_runs: int
    batch_sizes: list[int]
    threads: list[int]
    """CPU threads to measure latency with; empty: torch's default."""
    overwrite: bool
    device: Literal["cpu", "cuda"] = "cpu"
    """What a package of AOTInductor is compiled for."""


def export_checkpoint(checkpoint: Path, output: Path, overrides: list[str], options: ExportOptions) -> None:
    """Write `output`, compare it with the checkpoint on the val split, and write the results to `report_of(output)`.

    The exported network computes in float32, and so does the checkpoint that it is compared with, which is on the CPU,
    but its latency is that of the device of the file.
    """
    kind = check_options(output, options)
    check_machine(kind, options)
    images = find_images(options.calibrate) if options.int8 else []
    words = [*overrides, "precision=float32"]
    saved = load_detector(checkpoint, [*words, "device=cpu"])
    config = saved.config.model_copy(update={"device": options.device})
    info = ExportInfo(
        kind=kind, config=config, categories=saved.categories, step=saved.step, nms=options.nms, int8=False
    )
    dataset = validation_set(saved, checkpoint, options.limit) if options.check else None
    make_folder(output.parent)
    resize_rule = build_resize_rule(saved.config)
    traced = saved.detector._replace(
        model=copy.deepcopy(saved.detector.model).to(memory_format=torch.contiguous_format), channels_last=False
    )
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        files = {output.name: output}
        first = output
        if options.int8:
            first = Path(folder) / "float32.onnx"
            files = {"float32 ONNX": first, **files}
        with steps() as on_step:
            on_step(f"writing {first.name}")
            WRITERS[kind](first, traced, info)
            if options.int8:
                on_step(f"writing {output.name} in 8 bits")
                chosen = calibration_sample(images, options.calibration_images)
                write_int8(output, first, chosen, resize_rule, info._replace(int8=True))
        print(f"{output}: {output.stat().st_size / 1e6:.1f} MB written")
        report: dict[str, Any] = {
            "checkpoint": str(checkpoint),
            "file": str(output),
            "kind": kind,
            "nms": options.nms,
            "int8": options.int8,
            "megabytes": round(output.stat().st_size / 1e6, 1),
            "device": torch.cuda.get_device_name() if options.device == "cuda" else "cpu",
            "hardware": measure.hardware(),
            "torch": torch.__version__,
        }
        if options.int8:
            report["calibration"] = {"inputs": options.calibrate, "images": len(chosen)}
        if dataset is not None:
            timed = saved if options.device == "cpu" else load_detector(checkpoint, [*words, "device=cuda"])
            report |= measured(saved, timed.detector, files, dataset, options)
    report_file = report_of(output)
    write_json(report_file, report, indent=1)
    print_export_report(report, report_file)


def report_of(output: Path) -> Path:
    """NAME.onnx.json or NAME.pt2.json: each exported file has a report of its own."""
    return output.with_name(f"{output.name}.json")


def measured(
    saved: SavedDetector, timed: AnyDetector, files: dict[str, Path], dataset: CocoDataset, options: ExportOptions
) -> dict[str, Any]:
    """Results of the checkpoint and of each file: COCO metrics, differences and latency.

    timed: the checkpoint's detector on the device of the files.
    """
    resize_rule = build_resize_rule(saved.config)

    def opened(path: Path, threads: int) -> ExportedDetector:
        return load_exported(path, [f"threads={threads}"]).detector

    def own(_threads: int) -> AnyDetector:
        return timed

    default = torch.get_num_threads()
    detectors = {name: opened(path, default) for name, path in files.items()}
    rule = saved.config.eval
    results = measure.compare_exports(
        saved.detector, detectors, dataset, resize_rule, rule.batch_size, rule, saved.categories
    )
    report: dict[str, Any] = {
        "annotations": str(dataset.annotation_file),
        "images": len(dataset.images),
        "results": results,
    }
    if options.latency_runs:
        contenders = [Contender("checkpoint", own), *(Contender(n, partial(opened, p)) for n, p in files.items())]
        batch = measure.first_batch(dataset, resize_rule)
        threads = options.threads or [default]
        report["canvas"] = list(batch.images.shape[2:])
        with steps() as on_step:
            on_step("measuring latency")
            report["latency"] = measure.latency(contenders, batch, options.batch_sizes, threads, options.latency_runs)
    return report


def check_options(output: Path, options: ExportOptions) -> Kind:
    """The kind of file to write. Raises ConfigError that lists every option that does not fit."""
    errors = []
    by_name: dict[str, Kind] = {".onnx": "onnx", ".pt2": "pt2"}
    kind = options.kind or by_name.get(output.suffix, "onnx")
    wanted = ".onnx" if kind == "onnx" else ".pt2"
    if output.suffix != wanted:
        errors.append(
            f"OUTPUT {output}: the name of a file of format {kind} must end in {wanted}"
            if options.kind
            else f"OUTPUT {output}: the name must end in .onnx (ONNX) or .pt2 (torch.export)"
        )
    if options.device == "cuda" and kind != "aoti":
        errors.append("--device cuda is for --format aoti; a GPU runs ONNX files with eval.onnx_provider=cuda")
    if kind != "onnx" and (options.nms or options.int8):
        errors.append("--nms and --int8 are for ONNX files; `retinanet predict` applies NMS after a .pt2 file")
    if options.int8 != bool(options.calibrate):
        errors.append("--int8 and --calibrate must be given together: the 8-bit ranges are measured on images")
    if not options.overwrite:
        taken = [path for path in (output, report_of(output)) if path.exists()]
        errors += [f"{path} exists; give another name or add --overwrite" for path in taken]
    if errors:
        raise ConfigError(list_errors("cannot export", errors))
    return kind


def check_machine(kind: Kind, options: ExportOptions) -> None:
    """Raise ResourceError if a package or a device that the export needs is missing."""
    if kind == "onnx":
        need("onnx", "onnxscript", "onnxruntime")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ResourceError(
            "--device cuda: compiling for an NVIDIA GPU needs one, and torch finds none here; export on the machine "
            "that will run the file, or leave out --device."
        )


def validation_set(saved: SavedDetector, checkpoint: Path, limit: int | None) -> CocoDataset:
    """The val split of the checkpoint's config, or its first `limit` images."""
    data = saved.config.data
    data = resolve_data(data)
    root = Path(data.root)
    dataset = load_coco(
        root / data.val_annotations,
        root / data.val_images,
        data.check_images,
        root=root,
        depth_range=build_depth_range(data),
    )
    dataset = covered(saved.categories, dataset, checkpoint)
    return first_images(first_images(dataset, data.limit), limit)


def print_export_report(report: dict[str, Any], report_file: Path) -> None:
    """Print the results."""
    console = Console()
    if "results" in report:
        title = data_title(Path(report["annotations"]))
        console.print(f"{report['images']} images of {title}", markup=False, highlight=False)
        console.print(result_table(report["results"]))
    if "latency" in report:
        hardware = report["hardware"]
        canvas = " x ".join(map(str, report["canvas"]))
        where = f"{hardware['cpu']}, {hardware['cores']} cores, load {hardware['load']} before"
        where = where if report["device"] == "cpu" else f"{report['device']} with {where}"
        print(f"\nlatency from canvas ({canvas}) to detections on {where}:")
        console.print(latency_table(report["latency"]))
    print(f"results written to {report_file}")


def result_table(results: dict[str, Any]) -> Table:
    """AP of each detector, and the largest differences from the checkpoint."""
    table = Table("", "AP", "AP50", "AP75", "same detections", "box, px", "score", box=None)
    for name, result in results.items():
        row = [name, *(f"{result['metrics'][key]:.4f}" for key in ("AP", "AP50", "AP75"))]
        if "difference" in result:
            difference = result["difference"]
            found = difference["detections"]
            largest = difference["outputs"] or found
            row += [f"{found['matched']} of {found['checkpoint']}", f"{largest['box_pixels']:.2g}"]
            row.append(f"{largest['score']:.2g}")
        table.add_row(*row)
    return table


def latency_table(rows: list[dict[str, Any]]) -> Table:
    """Milliseconds by detector, number of threads and batch size."""
    table = Table("", "threads", "batch", "p50, ms", "p99, ms", box=None)
    for row in rows:
        table.add_row(row["name"], str(row["threads"]), str(row["batch"]), f"{row['p50_ms']}", f"{row['p99_ms']}")
    return table
