"""`retinanet anchors`: do a config's anchors fit its boxes?"""

from collections.abc import Sequence
from pathlib import Path

from retinanet.commands.arguments import add_overrides, new_parser


def main(words: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Parse the arguments, resolve the config, report."""
    parser = new_parser(
        prog,
        "Measure how well a config's anchors fit the boxes of its data (the best IoU of each box with any anchor, by\n"
        "size and level), and suggest sizes, scales and aspect ratios that fit better.",
        "Examples: retinanet anchors quickstart\n"
        "          retinanet anchors configs/bccd.yaml data.root=PATH --split val --output anchors.png",
    )
    parser.add_argument("config", help="a YAML file, a name from `retinanet config list`, or a checkpoint")
    add_overrides(parser)
    parser.add_argument("--split", choices=("train", "val"), default="train", help="boxes to use (default: train)")
    parser.add_argument("--output", type=Path, metavar="PNG", help="also draw the fit into this file")
    arguments = parser.parse_intermixed_args(words)
    from retinanet.config.shipped import find_config
    from retinanet.diagnostics.config_diff import read_config

    path = find_config(arguments.config)
    config = read_config(path, arguments.overrides)
    from retinanet.diagnostics.anchors.report import report_anchors

    report_anchors(config, path.name, split=arguments.split, output=arguments.output)
