"""Evaluate a checkpoint or a file of detections: the twelve COCO numbers, and AP by class."""

import argparse
from pathlib import Path

from retinanet.cli import run


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description="COCO numbers of a checkpoint on its val split, or of a results file against ground truth.",
        epilog="Examples: python tools/eval.py runs/quickstart/checkpoints/best.pt data.root=data/shapes\n"
        "          python tools/eval.py --ground-truth GT.json --detections DT.json.gz",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", nargs="?", type=Path, help="such as runs/NAME/checkpoints/best.pt")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config keys to change, as data.root=PATH")
    parser.add_argument("--ground-truth", type=Path, help="COCO annotations, .json or .json.gz")
    parser.add_argument("--detections", type=Path, help="COCO results, .json or .json.gz")
    parser.add_argument("--output", type=Path, help="folder for eval.json (default: in the run's folder, or runs/)")
    arguments = parser.parse_intermixed_args()
    files = (arguments.ground_truth, arguments.detections)
    if (arguments.checkpoint is None) == (files == (None, None)) or (None in files and files != (None, None)):
        parser.error("give a checkpoint, or both --ground-truth and --detections")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    from retinanet.inference import evaluate_checkpoint, evaluate_files

    if arguments.checkpoint is not None:
        evaluate_checkpoint(arguments.checkpoint, arguments.overrides, arguments.output)
    else:
        evaluate_files(arguments.ground_truth, arguments.detections, arguments.output)


if __name__ == "__main__":
    raise SystemExit(run(main))
