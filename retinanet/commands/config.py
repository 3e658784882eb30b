"""`retinanet config`: configs as they are resolved."""

from collections.abc import Sequence

from retinanet.commands.arguments import new_parser


def main(words: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Parse the arguments; show, list or compare configs."""
    parser = new_parser(
        prog,
        "List the configs that ship, show a config with every key, or compare two configs.\n"
        "A config is a YAML file, a name from `retinanet config list`, or a checkpoint, which contains its config.",
        "Examples: retinanet config list\n"
        "          retinanet config diff recipes/paper recipes/detectron2\n"
        "          retinanet config diff quickstart runs/quickstart/checkpoints/best.pt\n"
        "          retinanet config show runs/quickstart/checkpoints/best.pt",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="list|show|diff")
    commands.add_parser("list", help="print the names of the configs and studies that ship", allow_abbrev=False)
    show = commands.add_parser("show", help="print every key with its value and meaning", allow_abbrev=False)
    show.add_argument("config", help="YAML file, name or checkpoint")
    diff = commands.add_parser("diff", help="print the keys that differ, with both values", allow_abbrev=False)
    diff.add_argument("first", metavar="A", help="YAML file, name or checkpoint")
    diff.add_argument("second", metavar="B", help="YAML file, name or checkpoint")
    arguments = parser.parse_args(words)
    from rich.console import Console

    from retinanet.config.dump import dump_config
    from retinanet.config.shipped import find_config, shipped_configs
    from retinanet.diagnostics.config_diff import print_differences, read_config

    if arguments.command == "list":
        print("\n".join(shipped_configs()))
    elif arguments.command == "show":
        text = dump_config(read_config(find_config(arguments.config)), described=True)
        Console(soft_wrap=True).out(text, end="", highlight=False)
    else:
        print_differences(find_config(arguments.first), find_config(arguments.second), Console())
