"""Run an ablation study: python tools/ablate.py STUDY [key=value ...] [--resume] [--dry-run] [--report]"""

import argparse
from pathlib import Path

from retinanet.cli import run


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description="Train and compare the arms of a study, and write its report.",
        epilog="Example: python tools/ablate.py configs/ablations/quickstart.yaml --resume",
    )
    parser.add_argument("study", type=Path, help="a study, such as configs/ablations/quickstart.yaml")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="config keys for all arms, as data.root=PATH")
    parser.add_argument("--resume", action="store_true", help="continue the study in its folder; finished cells stay")
    parser.add_argument("--overwrite", action="store_true", help="delete the study in its folder and start anew")
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--dry-run", action="store_true", help="list the cells and the hours they take, from a few steps")
    only.add_argument("--report", action="store_true", help="only write the report of what is finished")
    only.add_argument("--cell", metavar="NAME", help="run this one cell, by name or number, in this process")
    parser.add_argument("--jobs", type=int, help="trainings at a time (default: the study's `jobs`)")
    parser.add_argument("--gpus", type=lambda text: tuple(text.split(",")), default=(), help="as 0,1,2: one cell each")
    return parser.parse_intermixed_args()


def main() -> None:
    arguments = parse_arguments()
    from retinanet.ablation.study import load_study

    study = load_study(arguments.study, arguments.overrides)
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
            study,
            Path(__file__).resolve(),
            resume=arguments.resume,
            overwrite=arguments.overwrite,
            jobs=arguments.jobs,
            gpus=arguments.gpus,
        )


if __name__ == "__main__":
    raise SystemExit(run(main))
