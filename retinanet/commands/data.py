"""`retinanet data`: check, convert, fetch or generate data sets."""

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from retinanet.commands.arguments import called, fraction, natural_int, new_parser, positive_int
from retinanet.config.numbers import HOLD_OUT
from retinanet.errors import ConfigError, DataError, one_line, printable

if TYPE_CHECKING:
    from retinanet.prepare.conversion import ConvertedSplit


def main(words: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Parse the arguments and run the subcommand."""
    options = _parser(prog).parse_args(words)
    match options.command:
        case "check":
            _check(options, prog)
        case "split":
            from retinanet.prepare.source import split_source

            written = split_source(options.path, options.output, options.hold_out, options.seed, options.overwrite)
            _print_written(written, options)
        case "fetch" | "coco":
            from retinanet.prepare.fetch import fetch_coco

            fetch_coco(options.root, options.splits)
            print(f"ready; train with: retinanet train coco/r50_600_1x data.root={options.root}")
        case "shapes":
            from retinanet.display.progress import image_progress
            from retinanet.prepare.shapes import generate_shapes
            from retinanet.prepare.shapes_scene import DEFAULT_MIX, SceneMix

            with image_progress("generating", options.train + options.val + options.test) as report:
                generate_shapes(
                    options.output,
                    train_images=options.train,
                    val_images=options.val,
                    test_images=options.test,
                    size=tuple(options.size),
                    seed=options.seed,
                    mix=SceneMix(
                        objects=tuple(options.objects or DEFAULT_MIX.objects),
                        object_sides=tuple(options.object_sizes) if options.object_sizes else None,
                        empty_share=DEFAULT_MIX.empty_share if options.empty is None else options.empty,
                    ),
                    progress=lambda done, total: report(1),
                )
            print(f"ready; train with: retinanet train quickstart data.root={options.output}")
        case _:
            _convert(options)


def _check(options: argparse.Namespace, prog: str | None) -> None:
    from retinanet.prepare.check import check_data_sets, check_parts
    from retinanet.prepare.recognise import is_coco
    from retinanet.prepare.source import open_source

    if options.images is not None or not options.path.exists() or is_coco(options.path):
        check_data_sets(options.path, options.images, every_pixel=options.pixels)
        try:
            divided = open_source(options.path, HOLD_OUT).divided if options.images is None else None
        except DataError as error:
            print(printable(f"note: a training with data={options.path} is not possible: {error}"))
            return
        if divided:
            print(divided)
    else:
        source = open_source(options.path, HOLD_OUT)
        print(printable("\n".join([f"{source.form} in {options.path}", *source.describe(), ""])))
        parts = [part for part in (source.train, source.val, source.test) if part is not None]
        check_parts([(part.annotations, part.images) for part in parts], every_pixel=options.pixels)
    for place, config in (("train with:", "own"), ("on a CPU:  ", "own_cpu")):
        print(place, called("train", prog), one_line(shlex.join([config, f"data={options.path}"])))


def _convert(options: argparse.Namespace) -> None:
    from retinanet.prepare.conversion import split_paths, with_notes, write_splits
    from retinanet.prepare.recognise import CocoFiles, read_any
    from retinanet.prepare.source import divide_written
    from retinanet.prepare.voc import convert_voc
    from retinanet.prepare.yolo import convert_yolo

    splits = split_paths(options.split)
    label_format = find_label_format(options, bool(splits))
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
    elif label_format == "yolo":
        written = convert_yolo(options.folder, options.output, splits, clip=options.clip, overwrite=options.overwrite)
    else:
        read = read_any(options.folder)
        if isinstance(read, CocoFiles):
            raise ConfigError(
                f"{options.folder}: is in COCO format, so no conversion is needed: retinanet data check "
                f"{options.folder}; to hold out a part: retinanet data split {options.folder} --output FOLDER"
            )
        description = f"converted from {read.form}, folder {options.folder.name}"
        written = write_splits(read.splits, read.classes, options.output, description, options.overwrite)
        written = with_notes(written, read.notes)
    if options.hold_out:
        written = divide_written(written, options.output, options.hold_out, options.seed)
    _print_written(written, options)


def _print_written(written: "Sequence[ConvertedSplit]", options: argparse.Namespace) -> None:
    """Summaries of annotation files, and the command that trains on them."""
    from retinanet.prepare.conversion import train_command

    print(printable("\n".join([*(split.summary for split in written if split.summary), ""])))
    if len(written) > 1:
        print(train_command(written, options.output))
    else:
        print(f"There is no val split. Add --hold-out {HOLD_OUT:g}, or let the training hold out a part:")
        print(shlex.join(["retinanet", "train", "own", f"data={options.folder}"]))


def find_label_format(options: argparse.Namespace, splits: bool) -> str:
    """`voc` or `yolo` where the command or its arguments are about those formats; `any` for other formats."""
    from retinanet.prepare.conversion import find_format, formats_in

    only_voc = [flag for flag in ("images", "classes", "zero_based") if vars(options).get(flag)]
    if options.command == "convert":
        named = formats_in(options.folder) if options.folder.is_dir() else []
        label_format: str = find_format(options.folder) if named or only_voc or splits else "any"
    else:
        label_format = options.command
    if only_voc and label_format != "voc":
        flags = ", ".join(f"--{flag.replace('_', '-')}" for flag in only_voc)
        raise ConfigError(f"{options.folder}: has YOLO labels, but {flags} is for Pascal VOC only; leave it out")
    return label_format


def _add_shapes(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    shapes = commands.add_parser("shapes", help="generate a data set of cluttered scenes")
    shapes.add_argument("--output", type=Path, default=Path("data/shapes"), help="default: %(default)s")
    for name, default in (("train", 1000), ("val", 200), ("test", 0), ("seed", 0)):
        shapes.add_argument(f"--{name}", type=int, default=default, metavar="N", help="default: %(default)s")
    shapes.add_argument("--size", type=positive_int, nargs=2, default=(320, 320), metavar=("H", "W"), help="pixels")
    shapes.add_argument("--objects", type=positive_int, nargs=2, metavar=("MIN", "MAX"), help="in a scene (2 to 11)")
    shapes.add_argument("--object-sizes", type=float, nargs=2, metavar=("MIN", "MAX"), help="pixels of the longer side")
    shapes.add_argument("--empty", type=float, metavar="SHARE", help="share of scenes without objects (0.03)")


def _parser(prog: str | None) -> argparse.ArgumentParser:
    parser = new_parser(
        prog,
        "Check or divide a data set of any format, convert it to COCO format, download COCO 2017, or generate scenes.\n"
        "data/README.md explains the formats.",
        "Examples: retinanet data check data/mine\n"
        "          retinanet data convert VOCdevkit/VOC2007 --output data/voc",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="check|split|convert|fetch|shapes")
    check = commands.add_parser("check", help="report what a data set contains, and all its errors")
    check.add_argument("path", type=Path, metavar="PATH", help="folder, .zip or file in any format that is recognised")
    check.add_argument(
        "--images", type=Path, metavar="FOLDER", help="folder of the images (default: searched near each file)"
    )
    check.add_argument("--pixels", action="store_true", help="decode every image instead of reading its header and end")
    split = commands.add_parser("split", help="divide a data set into train.json and val.json, by a seed and by class")
    split.add_argument("path", type=Path, metavar="PATH", help="folder, .zip or file in any format that is recognised")
    split.add_argument("--output", type=Path, required=True, help="folder for train.json and val.json")
    split.add_argument("--seed", type=natural_int, default=0, metavar="N", help="default: %(default)s")
    split.add_argument("--overwrite", action="store_true", help="replace existing files")
    convert = commands.add_parser("convert", help="labels of any program (Pascal VOC, YOLO, VIA ...) to COCO JSON")
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
        converter.add_argument("--seed", type=natural_int, default=0, metavar="N", help="of --hold-out (default: 0)")
        for flag, meaning in (("clip", "cut boxes that cross the border"), ("overwrite", "replace existing files")):
            converter.add_argument(f"--{flag}", action="store_true", help=meaning)
    for command, default in ((split, HOLD_OUT), (convert, None), (voc, None), (yolo, None)):
        command.add_argument(
            "--hold-out",
            type=fraction,
            default=default,
            metavar="PART",
            help="part of the images that becomes the val split" + (f" (default: {default})" if default else ""),
        )
    for name in ("fetch", "coco"):
        fetch = commands.add_parser(name, help="download COCO 2017, verify and unpack it; resumes where it stopped")
        fetch.add_argument("--root", type=Path, default=Path("data/coco"), help="its folder (default: %(default)s)")
        fetch.add_argument("--splits", nargs="+", choices=("train", "val"), default=("train", "val"))
    _add_shapes(commands)
    return parser
