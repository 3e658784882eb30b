"""Export a checkpoint to ONNX, torch.export or AOTInductor, and measure what the file gives up."""

import argparse
from pathlib import Path

from retinanet.cli import run

EXAMPLE = "Example: python tools/export.py runs/quickstart/checkpoints/best.pt quickstart.onnx --nms"


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def not_negative(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number of 0 or more")
    return int(text)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description="Write a checkpoint as a file for other runtimes: any batch size and canvas, pixels in, boxes and "
        "scores out, in float32 on the CPU. Then run it beside the checkpoint on the val split of its config and "
        "write AP, differences and latency to OUTPUT.json. tools/predict.py takes the file like a checkpoint.",
        epilog=f"{EXAMPLE}. Needs `pip install -e .[export]`. A .pt2 is a program: load only those you trust.",
    )
    add = parser.add_argument
    add("checkpoint", type=Path, help="such as runs/NAME/checkpoints/best.pt")
    add("output", type=Path, help="NAME.onnx, or NAME.pt2 for torch.export")
    add("overrides", nargs="*", metavar="key=value", help="config keys to change, as data.root=PATH")
    add("--format", choices=("onnx", "pt2", "aoti"), dest="kind", help="aoti: machine code of this CPU in a .pt2")
    add("--nms", action="store_true", help="ONNX: suppress inside, with the thresholds of config eval")
    add("--int8", action="store_true", help="ONNX: 8-bit integers; needs --calibrate")
    add("--calibrate", action="append", default=[], metavar="INPUT", help="image, folder or pattern to calibrate on")
    add("--calibration-images", type=positive, default=64, metavar="N", help="at most so many of them (64)")
    add("--skip-check", action="store_false", dest="check", help="write the file only; needs no data")
    add("--limit", type=positive, metavar="N", help="check on the first N images of the val split")
    add("--latency-runs", type=not_negative, default=50, metavar="N", help="timed calls (50); 0 measures no latency")
    add("--batch-sizes", type=positive, nargs="+", default=[1], metavar="N", help="to time (1)")
    add("--threads", type=positive, nargs="+", default=[], metavar="N", help="to time (as many as torch takes)")
    add("--overwrite", action="store_true", help="replace OUTPUT where it exists")
    return parser.parse_intermixed_args()


def main() -> None:
    given = vars(parse_arguments())
    paths = given.pop("checkpoint"), given.pop("output"), given.pop("overrides")
    from retinanet.export.export import ExportOptions, export_checkpoint

    export_checkpoint(*paths, ExportOptions(**given))


if __name__ == "__main__":
    raise SystemExit(run(main))
