"""Detect on images: pictures with boxes, and COCO-style results."""

import argparse
from pathlib import Path

from retinanet.cli import run, split_overrides


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description="Run a checkpoint, or a file that tools/export.py wrote, on images, folders of images or glob "
        "patterns. A .pt2 file is a program: load only those you trust.",
        epilog="Example: python tools/predict.py runs/quickstart/checkpoints/best.pt photos/ eval.shown_score=0.5",
    )
    parser.add_argument(
        "checkpoint", type=Path, help="such as runs/NAME/checkpoints/best.pt, NAME.safetensors, NAME.onnx or NAME.pt2"
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="image, folder, pattern, or a key=value")
    parser.add_argument("--output", type=Path, default=Path("predictions"), help="folder for the results")
    parser.add_argument(
        "--thresholds",
        type=Path,
        metavar="EVAL_JSON",
        help="draw and count what scores at least the best threshold of its class in this eval.json of tools/eval.py",
    )
    return parser.parse_intermixed_args()


def main() -> None:
    arguments = parse_arguments()
    overrides, inputs = split_overrides(arguments.inputs)
    from retinanet.predict import predict

    predict(arguments.checkpoint, inputs, overrides, arguments.output, arguments.thresholds)


if __name__ == "__main__":
    raise SystemExit(run(main))
