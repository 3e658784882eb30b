"""`retinanet data`: check, convert, fetch or generate data sets."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from retinanet.commands.arguments import new_parser, positive_int
from retinanet.errors import ConfigError


def main(words: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Parse the arguments and run the subcommand."""
    options = _parser(prog).parse_args(words)
    match options.command:
        case "check":
            from retinanet.prepare.check import check_data_sets

            check_data_sets(options.path, options.images, every_pixel=options.pixels)
        case "fetch" | "coco":
            from retinanet.prepare.fetch import fetch_coco

            fetch_coco(options.root, options.splits)
            print(f"ready; train with: retinanet train coco/r50_600_1x data.root={options.root}")
        case "shapes":
            from retinanet.display.progress import image_progress
            from retinanet.prepare.shapes import generate_shapes

            with image_progress("generating", options.train + options.val + options.test) as report:
                generate_shapes(
                    options.output,
                    train_images=options.train,
                    val_images=options.val,
                    test_images=options.test,
                    size=tuple(options.size),
                    seed=options.seed,
                    progress=lambda done, total: report(1),
                )
            print(f"ready; train with: retinanet train quickstart data.root={options.output}")
        case _:
            _convert(options)


def _convert(options: argparse.Namespace) -> None:
    from retinanet.prepare.conversion import find_format, split_paths, train_command
    from retinanet.prepare.voc import convert_voc
    from retinanet.prepare.yolo import convert_yolo

    label_format = find_format(options.folder) if options.command == "convert" else options.command
    splits = split_paths(options.split)
    if label_format == "voc":
        written = convert_voc(
            options.folder,
            options.output,
            splits,
            options.images,
            options.classes,
            options.zero_based,
            clip=options.clip,
            overwrite=options.overwrite,
        )
    else:
        only_voc = [flag for flag in ("images", "classes", "zero_based") if vars(options).get(flag)]
        if only_voc:
            flags = ", ".join(f"--{flag.replace('_', '-')}" for flag in only_voc)
            raise ConfigError(f"{options.folder}: has YOLO labels, but {flags} is for Pascal VOC only; leave it out")
        written = convert_yolo(options.folder, options.output, splits, clip=options.clip, overwrite=options.overwrite)
    print(*(split.summary for split in written), "", train_command(written, options.output), sep="\n")


def _parser(prog: str | None) -> argparse.ArgumentParser:
    parser = new_parser(
        prog,
        "Check a data set, convert Pascal VOC or YOLO folders to COCO format, download COCO 2017, or generate scenes.\n"
        "data/README.md explains the formats.",
        "Examples: retinanet data check data/mine\n"
        "          retinanet data convert VOCdevkit/VOC2007 --output data/voc",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="check|convert|fetch|shapes")
    check = commands.add_parser("check", help="report what a COCO-format data set contains, and all its errors")
    check.add_argument("path", type=Path, metavar="PATH", help="annotation file, or a folder with annotations/*.json")
    check.add_argument(
        "--images", type=Path, metavar="FOLDER", help="folder of the images (default: searched near each file)"
    )
    check.add_argument("--pixels", action="store_true", help="decode every image instead of reading its header and end")
    convert = commands.add_parser("convert", help="Pascal VOC XML or YOLO text labels to COCO JSON")
    voc = commands.add_parser("voc", help="the same for a folder with Pascal VOC XML")
    yolo = commands.add_parser("yolo", help="the same for a folder with YOLO text labels")
    for converter in (convert, voc):
        converter.add_argument("--images", type=Path, help="VOC: folder of the images, if not JPEGImages/")
        converter.add_argument(
            "--classes", nargs="+", help="VOC: class names in the order of their ids (default: all, sorted)"
        )
        converter.add_argument(
            "--zero-based", action="store_true", help="VOC: corners count from 0 and exclude the far one"
        )
    for converter in (convert, voc, yolo):
        converter.add_argument("folder", type=Path, help="folder of the labels")
        converter.add_argument("--output", type=Path, required=True, help="folder for the annotation files")
        converter.add_argument(
            "--split", action="append", default=[], metavar="NAME=PATH", help="list of a split's images"
        )
        for flag, meaning in (("clip", "cut boxes that cross the border"), ("overwrite", "replace existing files")):
            converter.add_argument(f"--{flag}", action="store_true", help=meaning)
    for name in ("fetch", "coco"):
        fetch = commands.add_parser(name, help="download COCO 2017, verify and unpack it; resumes where it stopped")
        fetch.add_argument("--root", type=Path, default=Path("data/coco"), help="its folder (default: %(default)s)")
        fetch.add_argument("--splits", nargs="+", choices=("train", "val"), default=("train", "val"))
    shapes = commands.add_parser("shapes", help="generate a data set of cluttered scenes")
    shapes.add_argument("--output", type=Path, default=Path("data/shapes"), help="default: %(default)s")
    for name, default in (("train", 1000), ("val", 200), ("test", 0), ("seed", 0)):
        shapes.add_argument(f"--{name}", type=int, default=default, metavar="N", help="default: %(default)s")
    shapes.add_argument("--size", type=positive_int, nargs=2, default=(320, 320), metavar=("H", "W"), help="pixels")
    return parser
