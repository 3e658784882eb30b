"""`retinanet ablate`: train and compare the arms of a study."""

from collections.abc import Sequence

from retinanet.commands.arguments import new_parser


def main(words: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Parse the arguments, resolve the study, run or report it."""
    parser = new_parser(
        prog,
        "Train and compare the arms of a study, and write its report.",
        "Example: retinanet ablate configs/ablations/quickstart.yaml --resume",
    )
    parser.add_argument("study", help="a study: a YAML file, or the name of one that ships, such as quickstart")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config keys for all arms, as data.root=PATH")
    parser.add_argument("--resume", action="store_true", help="continue the study in its folder; finished cells stay")
    parser.add_argument("--overwrite", action="store_true", help="delete the study in its folder and start anew")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--dry-run", action="store_true", help="list the cells and estimate their hours from a few steps")
    only.add_argument("--report", action="store_true", help="only write the report of what is finished")
    only.add_argument("--cell", metavar="NAME", help="run this one cell, by name or number, in this process")
    parser.add_argument("--jobs", type=int, help="trainings at a time (default: the study's `jobs`)")
    parser.add_argument("--gpus", type=lambda text: tuple(text.split(",")), default=(), help="as 0,1,2: one cell each")
    arguments = parser.parse_intermixed_args(words)
    from retinanet.ablation.study import load_study
    from retinanet.config.shipped import find_study

    study = load_study(find_study(arguments.study), arguments.overrides)
    from retinanet.ablation import ablate

    one = arguments.report or arguments.dry_run or arguments.cell is not None
    ablate.check_flags(one, arguments.resume or arguments.overwrite)

    if arguments.report:
        ablate.report(study)
    elif arguments.dry_run:
        ablate.dry_run(study, arguments.jobs, arguments.gpus)
    elif arguments.cell is not None:
        ablate.run_one(study, arguments.cell)
    else:
        ablate.run_all(
            study, resume=arguments.resume, overwrite=arguments.overwrite, jobs=arguments.jobs, gpus=arguments.gpus
        )
