"""`retinanet loss-distribution`: the paper's Figure 4 for a checkpoint."""

from collections.abc import Sequence
from pathlib import Path

from retinanet.commands.arguments import add_overrides, new_parser


def main(words: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Parse the arguments, measure and draw."""
    parser = new_parser(
        prog,
        "The paper's Figure 4: cumulative loss of a checkpoint's positive and negative anchors under several class\n"
        "losses, and its shares by level, object size and class.\n"
        "Writes loss_distribution.png, curves.csv, shares.csv and summary.json.",
        "Examples: retinanet loss-distribution runs/quickstart/checkpoints/best.pt\n"
        "          retinanet loss-distribution runs/NAME/checkpoints/last.pt data.root=PATH --images 200 \\\n"
        "              --loss kind=focal,gamma=2,alpha=0.25 --loss '{kind: cross_entropy}'",
    )
    parser.add_argument("checkpoint", type=Path, help="such as runs/NAME/checkpoints/best.pt")
    add_overrides(parser)
    parser.add_argument("--split", choices=("val", "train"), default="val", help="images to use (default: val)")
    parser.add_argument("--images", type=int, metavar="N", help="use at most N images, drawn at random")
    parser.add_argument(
        "--loss",
        action="append",
        default=[],
        metavar="KEYS",
        help="a loss, by the keys of config loss.classification; repeatable (default: focal with gamma 0, 0.5, 1, 2)",
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="folder for the results (default: loss_distribution/ of the run)"
    )
    arguments = parser.parse_intermixed_args(words)
    from retinanet.config.load import check_overrides

    check_overrides(arguments.overrides)
    from retinanet.diagnostics.loss_distribution.draw import draw_loss_distribution

    draw_loss_distribution(
        arguments.checkpoint,
        arguments.overrides,
        losses=arguments.loss,
        split=arguments.split,
        most_images=arguments.images,
        output=arguments.output,
    )
