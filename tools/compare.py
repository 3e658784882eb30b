"""Is detector B better than detector A? Differences in AP with intervals, over all, by size, by class and by image."""

import argparse
from pathlib import Path

from retinanet.cli import run


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description="Compare two files of COCO detections on one ground truth: B - A in AP and AR with the paired "
        "bootstrap's 95 % interval over images. Writes compare.json, report.html, plots and their CSV files.",
        epilog="Example: python tools/compare.py runs/A/detections.json runs/B/detections.json \\\n"
        "             --ground-truth data/shapes/annotations/val.json --images data/shapes/val",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("first", type=Path, metavar="A", help="COCO results, .json or .json.gz")
    parser.add_argument("second", type=Path, metavar="B", help="COCO results, .json or .json.gz")
    parser.add_argument("--ground-truth", type=Path, required=True, help="COCO annotations, .json or .json.gz")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="draw the images that differ most from here")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for the results (default: in runs/)")
    parser.add_argument(
        "--resamples", type=int, metavar="N", help="at least 40 (default: 1000, more for over 25 classes)"
    )
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    from retinanet.compare.report import Inputs, compare_files

    compare_files(
        Inputs(arguments.first, arguments.second, arguments.ground_truth),
        images=arguments.images,
        output=arguments.output,
        resamples=arguments.resamples,
    )


if __name__ == "__main__":
    raise SystemExit(run(main))
