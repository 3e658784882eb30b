"""`retinanet train`: train a detector."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from retinanet.commands.arguments import add_overrides, new_parser

if TYPE_CHECKING:
    from retinanet.config.schema import DataKeys


def main(words: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Parse the arguments, resolve the config, train."""
    parser = new_parser(
        prog,
        "Train the RetinaNet that a YAML config describes. Checkpoints, metrics, pictures and the evaluation\n"
        "are written to the run folder: config key `output`, or runs/NAME.",
        "Examples: retinanet train quickstart\n"
        "          retinanet train configs/bccd.yaml data.root=PATH schedule.lr=0.005 output=runs/slow\n"
        "          torchrun --nproc-per-node 8 -m retinanet train coco/r50_600_1x precision=auto",
    )
    parser.add_argument("config", help="a YAML file, or a name from `retinanet config list`, such as quickstart")
    add_overrides(parser)
    parser.add_argument("--resume", action="store_true", help="continue the run in the run folder, if there is one")
    parser.add_argument("--overwrite", action="store_true", help="delete the run in the run folder and start anew")
    parser.add_argument(
        "--dry-run", action="store_true", help="print size, speed, time, memory and disk of the training, and stop"
    )
    parser.add_argument(
        "--print-config", action="store_true", help="print every config key with its value and meaning, and stop"
    )
    arguments = parser.parse_intermixed_args(words)
    from retinanet.config.dump import dump_config
    from retinanet.config.load import config_name, load_config
    from retinanet.config.shipped import find_config

    path = find_config(arguments.config)
    config = load_config(path, arguments.overrides)
    if arguments.print_config:
        sys.stdout.write(dump_config(config, described=True))
        return
    print_source(config.data)
    output = Path(config.output or Path("runs") / config_name(path))
    if arguments.dry_run:
        from retinanet.diagnostics.dry_run import report_dry_run

        report_dry_run(config, output)
        return
    from retinanet.training.engine import train

    command = resume_command(prog, sys.argv[1:] if words is None else words)
    train(config, output, resume=arguments.resume, overwrite=arguments.overwrite, resume_command=command)


def print_source(data: "DataKeys") -> None:
    """Open `data.source`, if there is one, and print what it is; on the main rank only."""
    if data.source is None or os.environ.get("RANK", "0") != "0":
        return
    from retinanet.evaluation.sources import describe_source, find_source

    source = find_source(data)
    if source is not None:
        print(*describe_source(data, source), sep="\n", flush=True)


def resume_command(prog: str | None, words: Sequence[str]) -> str:
    """The command line that continues a run that was started with these arguments."""
    again = [word for word in words if word not in ("--resume", "--overwrite")]
    return " ".join([prog or f"python {sys.argv[0]}", shlex.join([*again, "--resume"])])
