"""`retinanet export`: a checkpoint as a file for other runtimes."""

from collections.abc import Sequence
from pathlib import Path

from retinanet.commands.arguments import add_overrides, natural_int, new_parser, positive_int


def main(words: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Parse the arguments, export and check."""
    parser = new_parser(
        prog,
        "Write a checkpoint as a file for other runtimes: any batch size and canvas, pixels in, boxes and scores out,\n"
        "in float32. Then run both on the val split of its config, and write AP, differences and latency to\n"
        "OUTPUT.json. `retinanet predict` and `retinanet eval` accept the file like a checkpoint.",
        "Example: retinanet export runs/quickstart/checkpoints/best.pt quickstart.onnx --nms\n"
        "Needs the extra `export` of the package, or: pip install onnx onnxscript onnxruntime.\n"
        "A .pt2 file is a program: load only those you trust.",
    )
    add = parser.add_argument
    add("checkpoint", type=Path, help="such as runs/NAME/checkpoints/best.pt")
    add("output", type=Path, help="NAME.onnx, or NAME.pt2 for torch.export")
    add_overrides(parser)
    add("--format", choices=("onnx", "pt2", "aoti"), dest="kind", help="default: by suffix; aoti: this machine only")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="aoti: compile for the CPU (default) or the GPU here")
    add("--nms", action="store_true", help="ONNX: include the NMS, with the thresholds of config section eval")
    add("--int8", action="store_true", help="ONNX: 8-bit integers; needs --calibrate")
    add("--calibrate", action="append", default=[], metavar="INPUT", help="image, folder or pattern to calibrate on")
    add("--calibration-images", type=positive_int, default=64, metavar="N", help="use at most N of them (default: 64)")
    add("--skip-check", action="store_false", dest="check", help="only write the file; needs no data")
    add("--limit", type=positive_int, metavar="N", help="check on the first N images of the val split")
    add("--latency-runs", type=natural_int, default=50, metavar="N", help="calls to time (default: 50; 0 for none)")
    add("--batch-sizes", type=positive_int, nargs="+", default=[1], metavar="N", help="to time (default: 1)")
    add("--threads", type=positive_int, nargs="+", default=[], metavar="N", help="to time (default: torch's number)")
    add("--overwrite", action="store_true", help="replace OUTPUT if it exists")
    given = vars(parser.parse_intermixed_args(words))
    paths = given.pop("checkpoint"), given.pop("output"), given.pop("overrides")
    from retinanet.config.load import check_overrides

    check_overrides(paths[2])
    from retinanet.export.command import ExportOptions, export_checkpoint
    from retinanet.interop.any_detector import find_checkpoint

    export_checkpoint(find_checkpoint(paths[0]), *paths[1:], ExportOptions(**given))
