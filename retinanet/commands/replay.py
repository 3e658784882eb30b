"""`retinanet replay`: which layer made the numbers of a run infinite or NaN?"""

from collections.abc import Sequence
from pathlib import Path

from retinanet.commands.arguments import add_overrides, natural_int, new_parser


def main(words: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Parse the arguments, repeat the step."""
    parser = new_parser(
        prog,
        "Repeat the step that ended a run because a loss or gradient was not finite, from what the run kept of it in\n"
        "failures/step-N, and name the first layer whose numbers are not finite. Changes nothing.",
        "Examples: retinanet replay runs/bccd\n"
        "          retinanet replay runs/bccd/failures/step-812 device=cpu precision=float32",
    )
    parser.add_argument("failure", type=Path, metavar="FOLDER", help="a run's folder, or its failures/step-N")
    add_overrides(parser)
    parser.add_argument(
        "--rank", type=natural_int, default=0, metavar="N", help="of several processes, the one whose images are taken"
    )
    arguments = parser.parse_intermixed_args(words)
    from retinanet.config.load import check_overrides

    check_overrides(arguments.overrides)
    from retinanet.diagnostics.replay import report_replay

    report_replay(arguments.failure, arguments.overrides, arguments.rank)
