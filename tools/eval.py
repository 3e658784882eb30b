"""Evaluate a checkpoint or a file of detections: COCO numbers, AP by class, and a report of what goes wrong."""

import argparse
from pathlib import Path

from retinanet.analysis.command_line import find_conflict
from retinanet.cli import run


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description="COCO numbers of a checkpoint on its val split, or of a results file against ground truth. Writes "
        "eval.json (numbers, thresholds, kinds of error ...), report.html and plots/.",
        epilog="Examples: python tools/eval.py runs/quickstart/checkpoints/best.pt data.root=data/shapes\n"
        "          python tools/eval.py --ground-truth GT.json --detections DT.json.gz --images FOLDER",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "checkpoint", nargs="?", type=Path, help="such as runs/NAME/checkpoints/best.pt, or an exported file"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config keys to change, as data.root=PATH")
    parser.add_argument("--ground-truth", type=Path, help="COCO annotations, .json or .json.gz")
    parser.add_argument("--detections", type=Path, help="COCO results, .json or .json.gz")
    parser.add_argument("--images", type=Path, help="folder of the images, to draw the best and the worst of them")
    engines = ("auto", "pycocotools", "fast")
    parser.add_argument("--engine", choices=engines, help="who computes the numbers of files (default: auto)")
    parser.add_argument("--output", type=Path, help="folder for all files (default: in the run's folder, or runs/)")
    parser.add_argument("--no-report", action="store_true", help="eval.json alone, without report.html and plots/")
    arguments = parser.parse_intermixed_args()
    conflict = find_conflict(arguments)
    if conflict:
        parser.error(conflict)
    return arguments


def main() -> None:
    arguments = parse_arguments()
    report = not arguments.no_report
    if arguments.checkpoint is not None:
        from retinanet.inference import evaluate_loaded
        from retinanet.predict import load_any

        detector = load_any(arguments.checkpoint, arguments.overrides)
        evaluate_loaded(detector, arguments.checkpoint, arguments.output, report=report)
    else:
        from retinanet.analysis.outcome import evaluate_files

        files = (arguments.ground_truth, arguments.detections, arguments.output)
        evaluate_files(*files, engine=arguments.engine or "auto", images=arguments.images, report=report)


if __name__ == "__main__":
    raise SystemExit(run(main))
