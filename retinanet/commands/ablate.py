"""`retinanet ablate`: train and compare the arms of a study."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from retinanet.commands.arguments import add_overrides, new_parser


def main(words: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Parse the arguments, resolve the study, run or report it."""
    arguments = _parser(prog).parse_intermixed_args(words)
    from retinanet.ablation.cells import find_cell, list_cells
    from retinanet.ablation.study import load_study
    from retinanet.config.shipped import find_study
    from retinanet.errors import ConfigError

    runs_no_study = arguments.report or arguments.dry_run or arguments.plan or arguments.cell is not None
    # A pilot is always continued, so --resume means nothing else there.
    if runs_no_study and (arguments.overwrite or (arguments.resume and not arguments.plan)):
        raise ConfigError("--resume and --overwrite apply only to running a whole study: remove them here.")
    of_plan = (arguments.pilot, arguments.pilot_seeds, arguments.difference)
    if not arguments.plan and any(given is not None for given in of_plan):
        raise ConfigError("--pilot, --pilot-seeds and --difference apply only to --plan: add it, or remove them.")
    if arguments.pilot is not None and arguments.pilot_seeds is not None:
        raise ConfigError("--pilot-seeds applies to a pilot that is run, --pilot names one that was: give one of them.")
    _check_cluster(arguments)
    study = load_study(find_study(arguments.study), arguments.overrides)
    if arguments.cell is not None:
        find_cell(list_cells(study), arguments.cell)  # A wrong name is reported before torch is imported.
    from retinanet.ablation import ablate
    from retinanet.ablation.cluster import Cluster
    from retinanet.ablation.local import build_slots

    if arguments.plan:
        slots = build_slots(study, arguments.jobs, arguments.gpus)
        ablate.show_plan(study, slots, arguments.pilot, arguments.difference, arguments.pilot_seeds)
    elif arguments.report:
        ablate.report(study)
    elif arguments.dry_run:
        ablate.dry_run(study, build_slots(study, arguments.jobs, arguments.gpus))
    elif arguments.cell is not None:
        ablate.run_one(study, arguments.cell)
    elif arguments.ray is not None:
        cluster = Cluster(
            address=arguments.ray, jobs=arguments.jobs, cpus=arguments.cell_cpus, gpus=arguments.cell_gpus
        )
        ablate.run_all(study, cluster, resume=arguments.resume, overwrite=arguments.overwrite)
    else:
        slots = build_slots(study, arguments.jobs, arguments.gpus)
        ablate.run_all(study, slots, resume=arguments.resume, overwrite=arguments.overwrite)


def _parser(prog: str | None) -> argparse.ArgumentParser:
    parser = new_parser(
        prog,
        "Train and compare the arms of a study, and write its report.\n"
        "A cell is one training: an arm with a learning rate and a seed.",
        "Examples: retinanet ablate ablations/quickstart --dry-run\n"
        "          retinanet ablate configs/ablations/bccd.yaml data.root=PATH --resume --jobs 2",
    )
    parser.add_argument(
        "study", help="a YAML file, or a name from `retinanet config list`, such as ablations/quickstart"
    )
    add_overrides(parser, "config keys to change in all arms, such as data.root=PATH")
    parser.add_argument("--resume", action="store_true", help="continue the study in its folder, keep finished cells")
    parser.add_argument("--overwrite", action="store_true", help="delete the study in its folder and start again")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--dry-run", action="store_true", help="list the cells and estimate their hours from a few steps")
    only.add_argument("--plan", action="store_true", help="predict intervals, seeds and hours from a pilot of two arms")
    only.add_argument("--report", action="store_true", help="only write the report of the finished cells")
    only.add_argument("--cell", metavar="NAME", help="run this one cell, by name or number, in this process")
    parser.add_argument("--pilot", type=Path, metavar="FOLDER", help="with --plan: a study's folder, instead of a run")
    parser.add_argument(
        "--pilot-seeds", type=int, metavar="N", help="with --plan: of the pilot that is run, or continued (default: 4)"
    )
    parser.add_argument(
        "--difference", type=float, metavar="AP", help="with --plan: points to be found (default: the study's)"
    )
    parser.add_argument("--jobs", type=int, metavar="N", help="cells to run at a time (default: `jobs` of the study)")
    parser.add_argument(
        "--gpus",
        type=lambda text: tuple(text.split(",")),
        default=(),
        metavar="LIST",
        help="such as 0,1,2: one cell at a time on each; 0,0,0, or 0 with --jobs 3: three share GPU 0",
    )
    nodes = parser.add_argument_group("on the nodes of a Ray cluster (needs the extra `cluster`)")
    nodes.add_argument("--ray", metavar="ADDRESS", help="HOST:6379, or auto on a node: run as many cells as fit")
    nodes.add_argument("--cell-gpus", type=float, metavar="X", help="GPU share of a cell, such as 0.25 (default: 1)")
    nodes.add_argument(
        "--cell-cpus", type=float, metavar="X", help="CPUs of a cell (default: `threads` of the study, or 1)"
    )
    return parser


def _check_cluster(arguments: argparse.Namespace) -> None:
    """Raise ConfigError for options that exclude --ray, or need it."""
    from retinanet.errors import ConfigError

    if arguments.ray is None:
        if arguments.cell_gpus is not None or arguments.cell_cpus is not None:
            raise ConfigError(
                "--cell-gpus and --cell-cpus are shares of a Ray cluster's nodes: give --ray ADDRESS too."
            )
        return
    if arguments.report or arguments.dry_run or arguments.plan or arguments.cell is not None:
        raise ConfigError("--ray applies only to running a whole study: remove it here.")
    if arguments.gpus:
        raise ConfigError(
            "--gpus and --ray exclude each other: Ray gives each cell a GPU, or the share of --cell-gpus."
        )
