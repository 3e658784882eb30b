"""Configs as they are resolved: python tools/config.py show A, python tools/config.py diff A B"""

import argparse
from pathlib import Path

from retinanet.cli import run


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description="Show a config with every key, or the keys in which two configs differ. A config is a YAML file "
        "or a checkpoint, which holds its own.",
        epilog="Examples: python tools/config.py diff configs/recipes/paper.yaml configs/recipes/detectron2.yaml\n"
        "          python tools/config.py diff configs/quickstart.yaml runs/quickstart/checkpoints/best.pt\n"
        "          python tools/config.py show runs/quickstart/checkpoints/best.pt",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="show|diff")
    show = commands.add_parser("show", help="print every key with its meaning", allow_abbrev=False)
    show.add_argument("config", type=Path, help="YAML file or checkpoint")
    diff = commands.add_parser("diff", help="print the keys that differ, with both values", allow_abbrev=False)
    diff.add_argument("first", type=Path, metavar="A", help="YAML file or checkpoint")
    diff.add_argument("second", type=Path, metavar="B", help="YAML file or checkpoint")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    from rich.console import Console

    from retinanet.config_diff import print_differences, read_config
    from retinanet.config_file import dump_config

    if arguments.command == "show":
        Console(soft_wrap=True).out(dump_config(read_config(arguments.config), described=True), end="", highlight=False)
    else:
        print_differences(arguments.first, arguments.second, Console())


if __name__ == "__main__":
    raise SystemExit(run(main))
