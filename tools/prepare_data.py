"""Get data: fetch COCO 2017, convert Pascal VOC or YOLO folders, or generate shapes. data/README.md tells more."""

import argparse
from pathlib import Path

from retinanet.cli import run


def main() -> None:
    options = _parser().parse_args()
    if options.command == "coco":
        from retinanet.data.fetch import fetch_coco

        fetch_coco(options.root, options.splits)
        print(f"ready; train with a config of configs/coco and data.root={options.root}")
    elif options.command == "shapes":
        from retinanet.data.shapes import generate_shapes

        counts = {"train_images": options.train, "val_images": options.val, "test_images": options.test}
        generate_shapes(options.output, **counts, size=tuple(options.size), seed=options.seed)
        print(f"ready; train with configs/quickstart.yaml and data.root={options.output}")
    else:
        from retinanet.data.conversion import split_paths, train_command
        from retinanet.data.voc import convert_voc
        from retinanet.data.yolo import convert_yolo

        given = options.folder, options.output, split_paths(options.split)
        flags = {"clip": options.clip, "overwrite": options.overwrite}
        voc = (options.images, options.classes, options.zero_based) if options.command == "voc" else ()
        written = convert_voc(*given, *voc, **flags) if voc else convert_yolo(*given, **flags)
        print(*(split.summary for split in written), "", train_command(written, options.output), sep="\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    coco = commands.add_parser("coco", help="download COCO 2017, verify and unpack it; resumes where it stopped")
    coco.add_argument("--root", type=Path, default=Path("data/coco"), help="folder for it (default: %(default)s)")
    coco.add_argument("--splits", nargs="+", choices=("train", "val"), default=("train", "val"))
    shapes = commands.add_parser("shapes", help="generate a data set of cluttered scenes")
    shapes.add_argument("--output", type=Path, default=Path("data/shapes"), help="default: %(default)s")
    for name, default in (("train", 1000), ("val", 200), ("test", 0), ("seed", 0)):
        shapes.add_argument(f"--{name}", type=int, default=default, metavar="N", help="default: %(default)s")
    shapes.add_argument("--size", type=int, nargs=2, default=(320, 320), metavar=("H", "W"), help="pixels")
    voc = commands.add_parser("voc", help="Pascal VOC XML to COCO JSON")
    voc.add_argument("--images", type=Path, help="where the images lie, if not in JPEGImages/ or beside the XML")
    voc.add_argument("--classes", nargs="+", help="class names in the order of their ids; default: all found, sorted")
    voc.add_argument("--zero-based", action="store_true", help="corners count from 0, the far one excluded")
    for converter in (voc, commands.add_parser("yolo", help="YOLO text labels to COCO JSON")):
        converter.add_argument("folder", type=Path)
        converter.add_argument("--output", type=Path, required=True, help="folder for the annotation files")
        converter.add_argument("--split", action="append", default=[], metavar="NAME=PATH", help="list of its images")
        for flag, meaning in (("clip", "cut boxes that cross the border"), ("overwrite", "replace what is there")):
            converter.add_argument(f"--{flag}", action="store_true", help=meaning)
    return parser


if __name__ == "__main__":
    raise SystemExit(run(main))
