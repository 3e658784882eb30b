"""`retinanet compare`: is detector B better than detector A?"""

from collections.abc import Sequence
from pathlib import Path

from retinanet.commands.arguments import max_detections, new_parser
from retinanet.config.numbers import COCO_DETECTIONS


def main(words: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Parse the arguments, compare."""
    parser = new_parser(
        prog,
        "Compare two files of COCO detections on one ground truth: B - A in AP and AR, over all, by size, by class\n"
        "and by image, with the paired bootstrap's 95 % interval over images.\n"
        "Writes compare.json, report.html, plots and their CSV files.",
        "Example: retinanet compare runs/A/detections.json runs/B/detections.json \\\n"
        "             --ground-truth data/shapes/annotations/val.json --images data/shapes/val",
    )
    parser.add_argument("first", type=Path, metavar="A", help="COCO results, .json or .json.gz")
    parser.add_argument("second", type=Path, metavar="B", help="COCO results, .json or .json.gz")
    parser.add_argument(
        "--ground-truth", type=Path, required=True, metavar="JSON", help="COCO annotations, .json or .json.gz"
    )
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="images, to draw those that differ most")
    parser.add_argument("--output", type=Path, metavar="DIR", help="folder for the results (default: in runs/)")
    parser.add_argument(
        "--resamples",
        type=int,
        metavar="N",
        help="bootstrap samples, at least 40 (default: 1000; more over 25 classes)",
    )
    parser.add_argument(
        "--max-detections",
        type=max_detections,
        default=COCO_DETECTIONS,
        metavar="N",
        help="detections of a class and image that count (default: %(default)s)",
    )
    arguments = parser.parse_args(words)
    from retinanet.diagnostics.compare.inputs import Inputs
    from retinanet.diagnostics.compare.report import compare_files

    compare_files(
        Inputs(arguments.first, arguments.second, arguments.ground_truth),
        images=arguments.images,
        output=arguments.output,
        resamples=arguments.resamples,
        max_detections=arguments.max_detections,
    )
