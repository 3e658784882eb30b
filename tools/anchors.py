"""Do a config's anchors fit its boxes? Best IoU by size and level, and better anchors to paste."""

import argparse
from pathlib import Path

from retinanet.cli import run


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description="The best IoU that any anchor of a config has with each box of its data, by size and level, and "
        "sizes, scales and aspect ratios that fit better.",
        epilog="Examples: python tools/anchors.py configs/quickstart.yaml\n"
        "          python tools/anchors.py configs/bccd.yaml data.root=PATH --split val --output anchors.png",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("config", type=Path, help="YAML file such as configs/quickstart.yaml, or a checkpoint")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config keys to change, as data.root=PATH")
    parser.add_argument("--split", choices=("train", "val"), default="train", help="boxes to use (default: train)")
    parser.add_argument("--output", type=Path, metavar="PNG", help="draw the fit into this file too")
    return parser.parse_intermixed_args()


def main() -> None:
    arguments = parse_arguments()
    from retinanet.anchor_fit.report import report_anchors
    from retinanet.config_diff import read_config

    config = read_config(arguments.config, arguments.overrides)
    report_anchors(config, arguments.config.name, split=arguments.split, output=arguments.output)


if __name__ == "__main__":
    raise SystemExit(run(main))
