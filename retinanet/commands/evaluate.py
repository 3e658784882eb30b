"""`retinanet eval`: COCO numbers of a detector or of a file of detections, and a report of what goes wrong."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from retinanet.commands.arguments import add_overrides, add_views, detector_path, max_detections, new_parser, view_words


def main(words: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Parse the arguments, evaluate a detector or files."""
    parser = _parser(prog)
    arguments = parser.parse_intermixed_args(words)
    conflict = find_conflict(arguments)
    if conflict:
        parser.error(conflict)
    report = not arguments.no_report
    if arguments.checkpoint is not None:
        from retinanet.config.load import check_overrides

        overrides = [*view_words(arguments), *arguments.overrides]
        check_overrides(overrides)
        from retinanet.diagnostics.evaluate import evaluate_loaded
        from retinanet.export.runtime import load_any

        detector = load_any(arguments.checkpoint, overrides)
        evaluate_loaded(
            detector,
            arguments.checkpoint,
            arguments.output,
            report=report,
            intervals=arguments.intervals,
            crops=arguments.crops,
            split=arguments.split or "val",
        )
    else:
        from retinanet.diagnostics.evaluate import evaluate_files
        from retinanet.scoring.columns import DETECTIONS

        files = (arguments.ground_truth, arguments.detections, arguments.output)
        evaluate_files(
            *files,
            engine=arguments.engine or "auto",
            max_detections=arguments.max_detections or DETECTIONS,
            images=arguments.images,
            report=report,
            intervals=arguments.intervals,
            crops=arguments.crops,
        )


def _parser(prog: str | None) -> argparse.ArgumentParser:
    parser = new_parser(
        prog,
        "The twelve COCO numbers of a checkpoint on its val split, or of a results file against ground truth.\n"
        "Writes eval.json (numbers, best thresholds, types of error ...), report.html and plots/.",
        "Examples: retinanet eval runs/quickstart/checkpoints/best.pt data.root=data/shapes\n"
        "          retinanet eval --ground-truth GT.json --detections DT.json.gz --images FOLDER",
    )
    parser.add_argument(
        "checkpoint",
        nargs="?",
        type=detector_path,
        help="such as runs/NAME/checkpoints/best.pt, or a file from `retinanet export`",
    )
    add_overrides(parser)
    parser.add_argument("--ground-truth", type=Path, metavar="JSON", help="COCO annotations, .json or .json.gz")
    parser.add_argument("--detections", type=Path, metavar="JSON", help="COCO results, .json or .json.gz")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="images, to draw the best and the worst of them")
    engines = ("auto", "pycocotools", "fast")
    parser.add_argument(
        "--engine", choices=engines, help="library for the numbers of files (default: auto, the fast one)"
    )
    parser.add_argument(
        "--max-detections", type=max_detections, metavar="N", help="detections of a class and image of files that count"
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder for the results (default: in the run folder, or runs/)"
    )
    parser.add_argument(
        "--split", choices=("train", "val", "test"), help="images of the data set to evaluate on (default: val)"
    )
    add_views(parser)
    parser.add_argument("--intervals", action="store_true", help="95 %% intervals of all metrics over images")
    parser.add_argument(
        "--crops", action="store_true", help="also write false positives and missed objects as pictures, by class"
    )
    parser.add_argument("--no-report", action="store_true", help="write eval.json only, no report.html and plots/")
    return parser


def find_conflict(arguments: argparse.Namespace) -> str | None:
    """Which arguments contradict each other, and what to write instead; None if they agree."""
    first, files = arguments.checkpoint, (arguments.ground_truth, arguments.detections)
    if first is not None and "=" in str(first) and not first.exists():
        return f"{first}: key=value words need a checkpoint before them; for files use --engine and --images"
    if first is not None and files != (None, None):
        return f"give a checkpoint, or both --ground-truth and --detections, but not {first} and files together"
    if first is None and None in files:
        return "give a checkpoint, or both --ground-truth and --detections"
    if first is not None and (arguments.images or arguments.engine or arguments.max_detections):
        return (
            "with a checkpoint, use data.val_images=FOLDER, eval.engine=NAME and eval.max_detections=N instead of "
            "--images, --engine, --max-detections"
        )
    if first is None and arguments.split:
        return "--split is for a checkpoint; files are scored on all images of --ground-truth"
    if first is None and view_words(arguments):
        return "--tile, --overlap and --tta are for a checkpoint; files of detections are scored as they are"
    if arguments.crops and first is None and not arguments.images:
        return "--crops needs the images: give their folder with --images"
    if arguments.images and arguments.no_report and not arguments.crops:
        return "--images is for the report, which --no-report leaves out; give only one of them"
    return None
