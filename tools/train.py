"""Train a detector: python tools/train.py CONFIG [key=value ...] [--resume] [--overwrite] [--print-config]"""

import argparse
import sys
from pathlib import Path

from retinanet.cli import run


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description="Train a RetinaNet that a YAML config describes.",
        epilog="Example: python tools/train.py configs/quickstart.yaml schedule.lr=0.005 output=runs/slow",
    )
    parser.add_argument("config", type=Path, help="a config, such as configs/quickstart.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config keys to change, as data.root=PATH")
    parser.add_argument("--resume", action="store_true", help="continue the run in the output folder, if there is one")
    parser.add_argument("--overwrite", action="store_true", help="delete the run in the output folder and start anew")
    parser.add_argument("--print-config", action="store_true", help="print the resolved config and stop")
    return parser.parse_intermixed_args()


def main() -> None:
    arguments = parse_arguments()
    from retinanet.config_file import config_name, dump_config, load_config

    config = load_config(arguments.config, arguments.overrides)
    if arguments.print_config:
        sys.stdout.write(dump_config(config, described=True))
        return
    from retinanet.engine import train

    output = Path(config.output or Path("runs") / config_name(arguments.config))
    train(config, output, resume=arguments.resume, overwrite=arguments.overwrite)


if __name__ == "__main__":
    raise SystemExit(run(main))
