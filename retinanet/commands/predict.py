"""`retinanet predict`: detect on images."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from retinanet.commands.arguments import add_views, detector_path, new_parser, split_overrides, view_words


def main(words: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Parse the arguments, find the images, load the detector, predict."""
    parser = _parser(prog)
    arguments = parser.parse_intermixed_args(words)
    overrides, inputs = split_overrides(arguments.inputs)
    overrides = [*view_words(arguments), *overrides]
    if arguments.enlarge and arguments.no_pictures:
        parser.error("--enlarge is for the pictures that --no-pictures leaves out; give only one of them")
    from retinanet.config.load import check_overrides
    from retinanet.data.find_images import files_passed_over, find_images

    check_overrides(overrides)
    paths = find_images(inputs)
    from retinanet.evaluation.outputs import PredictOptions
    from retinanet.evaluation.predict import predict
    from retinanet.export.runtime import load_any

    predict(
        lambda: load_any(arguments.checkpoint, overrides),
        paths,
        source=arguments.checkpoint,
        options=PredictOptions(
            output=arguments.output,
            formats=tuple(arguments.format or ("coco",)),
            pictures=not arguments.no_pictures,
            enlarge=arguments.enlarge,
            overwrite=arguments.overwrite,
        ),
        thresholds=arguments.thresholds,
        passed_over=files_passed_over(inputs),
    )


def _parser(prog: str | None) -> argparse.ArgumentParser:
    parser = new_parser(
        prog,
        "Run a checkpoint, or a file from `retinanet export`, on images, folders of images or glob patterns.\n"
        "Writes pictures with boxes, and COCO-style results in detections.json, into a new folder.\n"
        "A .pt2 file is a program: load only those you trust.",
        "Examples: retinanet predict runs/quickstart/checkpoints/best.pt photos/ eval.shown_score=0.5\n"
        "          retinanet predict BEST.pt aerial/ --tile 1024 --overlap 0.2 --format csv --format crops",
    )
    parser.add_argument(
        "checkpoint",
        type=detector_path,
        help="such as runs/NAME/checkpoints/best.pt, NAME.safetensors, NAME.onnx or NAME.pt2",
    )
    parser.add_argument(
        "inputs", nargs="+", metavar="INPUT", help="image, folder or glob pattern; key=value changes a config key"
    )
    parser.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder for the results (default: a new one, runs/predict, runs/predict-2 ...)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files of the same names in --output")
    parser.add_argument(
        "--format",
        action="append",
        choices=("coco", "csv", "yolo", "crops"),
        help="write detections.json (the default), detections.csv, YOLO labels, or each object as a picture; may be "
        "given several times",
    )
    parser.add_argument("--no-pictures", action="store_true", help="write no pictures with boxes")
    parser.add_argument("--enlarge", action="store_true", help="draw small images larger, so that labels can be read")
    parser.add_argument(
        "--thresholds",
        type=Path,
        metavar="EVAL_JSON",
        help="show only detections that reach the best threshold of their class, from `retinanet eval`",
    )
    add_views(parser)
    return parser
