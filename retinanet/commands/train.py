"""`retinanet train`: train a detector."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from retinanet.commands.arguments import add_overrides, called, new_parser

if TYPE_CHECKING:
    from retinanet.run.command_lines import CommandLines


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
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="start anew; the run in the run folder is deleted once the new one has a checkpoint",
    )
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
    if config.data.source is not None:
        from retinanet.evaluation.sources import print_source

        print_source(config.data)
    output = Path(config.output or Path("runs") / config_name(path))
    if arguments.dry_run:
        from retinanet.diagnostics.dry_run import report_dry_run

        report_dry_run(config, output)
        return
    from retinanet.training.engine import run_training

    commands = command_lines(prog, sys.argv[1:] if words is None else words)
    run_training(config, output, resume=arguments.resume, overwrite=arguments.overwrite, commands=commands)


def command_lines(prog: str | None, words: Sequence[str]) -> "CommandLines":
    """The command lines that go on from a run that was started with these arguments.

    prog: None for a script of tools/, as which the others are called then, too.
    """
    from retinanet.run.command_lines import CommandLines

    start = f"python {sys.argv[0]}" if prog is None else called("train", prog)
    again = [word for word in words if word not in ("--resume", "--overwrite")]
    return CommandLines(
        resume=f"{under_torchrun(start)} {shlex.join([*again, '--resume'])}",
        predict=called("predict", prog),
        evaluate=called("eval", prog),
        export=called("export", prog),
        doctor=called("doctor", prog),
    )


def under_torchrun(start: str) -> str:
    """How `python ...` is started on as many processes as this run, on one machine; unchanged for one process."""
    processes = os.environ.get("LOCAL_WORLD_SIZE", "1")
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return start
    module = start.removeprefix("python ") if start.startswith("python ") else f"-m {start}"
    return f"torchrun --nproc-per-node {processes} {module}"
