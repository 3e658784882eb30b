"""`retinanet doctor`: why is the AP of a run low?"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from retinanet.commands.arguments import add_overrides, called, natural_int, new_parser


def main(words: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Parse the arguments, examine the run."""
    parser = new_parser(
        prog,
        "Name the causes of a low AP that a run's folder, its data and its detector prove, with numbers and remedies:\n"
        "warmup, learning rate, length, format of boxes, class ids, anchors, score threshold, normalisation, frozen\n"
        "parts, data that differ, overfitting and others. Changes nothing.",
        "Examples: retinanet doctor runs/bccd\n          retinanet doctor runs/bccd data.root=PATH --images 32",
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run, such as runs/NAME")
    add_overrides(parser)
    parser.add_argument(
        "--images",
        type=natural_int,
        default=16,
        metavar="N",
        help="images of train and of val to detect on (default: 16; 0: none)",
    )
    arguments = parser.parse_intermixed_args(words)
    from retinanet.config.load import check_overrides

    check_overrides(arguments.overrides)
    from retinanet.diagnostics.doctor.report import report_run

    report_run(arguments.run, arguments.overrides, images=arguments.images, called=partial(called, prog=prog))
