"""`retinanet predict`: detect on images."""

from collections.abc import Sequence
from pathlib import Path

from retinanet.commands.arguments import new_parser, split_overrides


def main(words: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Parse the arguments, find the images, load the detector, predict."""
    parser = new_parser(
        prog,
        "Run a checkpoint, or a file from `retinanet export`, on images, folders of images or glob patterns.\n"
        "Writes pictures with boxes, and COCO-style results in detections.json.\n"
        "A .pt2 file is a program: load only those you trust.",
        "Example: retinanet predict runs/quickstart/checkpoints/best.pt photos/ eval.shown_score=0.5",
    )
    parser.add_argument(
        "checkpoint", type=Path, help="such as runs/NAME/checkpoints/best.pt, NAME.safetensors, NAME.onnx or NAME.pt2"
    )
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="image, folder or glob pattern; key=value changes a config key"
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("predictions"),
        metavar="DIR",
        help="folder for the results (default: %(default)s)",
    )
    parser.add_argument(
        "--thresholds",
        type=Path,
        metavar="EVAL_JSON",
        help="draw and count only detections that reach the best threshold of their class, from `retinanet eval`",
    )
    arguments = parser.parse_intermixed_args(words)
    overrides, inputs = split_overrides(arguments.inputs)
    from retinanet.config.load import check_overrides
    from retinanet.data.find_images import files_passed_over, find_images

    check_overrides(overrides)
    paths = find_images(inputs)
    from retinanet.evaluation.predict import predict
    from retinanet.export.runtime import load_any

    predict(
        lambda: load_any(arguments.checkpoint, overrides),
        paths,
        source=arguments.checkpoint,
        output=arguments.output,
        thresholds=arguments.thresholds,
        passed_over=files_passed_over(inputs),
    )
