"""`retinanet predict`: detect on images."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from retinanet.commands.arguments import add_views, new_parser, split_overrides, view_words
from retinanet.config.numbers import HOLD_OUT


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
    from retinanet.prepare.inputs import named_pictures

    check_overrides(overrides)
    given = named_pictures(inputs, HOLD_OUT)
    paths = find_images(given.paths)
    from retinanet.evaluation.outputs import PredictOptions
    from retinanet.evaluation.predict import predict
    from retinanet.export.runtime import load_any
    from retinanet.interop.any_detector import find_checkpoint

    checkpoint = find_checkpoint(arguments.checkpoint)
    predict(
        lambda: load_any(checkpoint, overrides),
        paths,
        source=checkpoint,
        options=PredictOptions(
            output=arguments.output,
            formats=tuple(arguments.format or ("coco",)),
            pictures=not arguments.no_pictures,
            enlarge=arguments.enlarge,
            overwrite=arguments.overwrite,
        ),
        thresholds=arguments.thresholds,
        passed_over="\n".join([*given.notes, *filter(None, [files_passed_over(given.paths)])]),
    )


def _parser(prog: str | None) -> argparse.ArgumentParser:
    parser = new_parser(
        prog,
        "Run a checkpoint, or a file from `retinanet export`, on images, folders, glob patterns, lists or data sets.\n"
        "Writes pictures with boxes, and COCO-style results in detections.json, into a new folder.\n"
        "A .pt2 file is a program: load only those you trust.",
        "Examples: retinanet predict runs/quickstart/checkpoints/best.pt photos/ eval.shown_score=0.5\n"
        "          retinanet predict BEST.pt aerial/ --tile 1024 --overlap 0.2 --format csv --format crops",
    )
    parser.add_argument(
        "checkpoint",
        type=Path,
        help="such as runs/NAME, runs/NAME/checkpoints/best.pt, NAME.safetensors, NAME.onnx, NAME.pt2, a "
        "detector's file of torchvision, detectron2 or mmdetection, or torchvision_v2_coco, which is downloaded",
    )
    parser.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="image, folder, glob pattern, .zip, .txt list of paths, data.yaml or COCO .json; key=value changes a "
        "config key",
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
