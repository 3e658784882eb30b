"""`retinanet ablate`: train and compare the arms of a study."""

from collections.abc import Sequence

from retinanet.commands.arguments import add_overrides, new_parser


def main(words: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Parse the arguments, resolve the study, run or report it."""
    parser = new_parser(
        prog,
        "Train and compare the arms of a study, and write its report. A cell is one training: an arm with a seed.",
        "Examples: retinanet ablate ablations/quickstart --dry-run\n"
        "          retinanet ablate configs/ablations/bccd.yaml data.root=PATH --resume --jobs 2",
    )
    parser.add_argument(
        "study", help="a YAML file, or a name from `retinanet config list`, such as ablations/quickstart"
    )
    add_overrides(parser, "config keys to change in all arms, such as data.root=PATH")
    parser.add_argument("--resume", action="store_true", help="continue the study in its folder, keep finished cells")
    parser.add_argument("--overwrite", action="store_true", help="delete the study in its folder and start anew")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--dry-run", action="store_true", help="list the cells and estimate their hours from a few steps")
    only.add_argument("--report", action="store_true", help="only write the report of what is finished")
    only.add_argument("--cell", metavar="NAME", help="run this one cell, by name or number, in this process")
    parser.add_argument("--jobs", type=int, metavar="N", help="cells to run at a time (default: `jobs` of the study)")
    parser.add_argument(
        "--gpus",
        type=lambda text: tuple(text.split(",")),
        default=(),
        metavar="LIST",
        help="such as 0,1,2: one cell at a time on each",
    )
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
