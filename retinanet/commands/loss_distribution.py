"""`retinanet loss-distribution`: the paper's Figure 4 for a checkpoint, and its figures of the losses themselves."""

from collections.abc import Sequence
from pathlib import Path

from retinanet.commands.arguments import add_overrides, new_parser


def main(words: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Parse the arguments, measure and draw."""
    parser = new_parser(
        prog,
        "The paper's Figure 4: cumulative loss of a checkpoint's positive and negative anchors under several class\n"
        "losses, and its shares by level, object size and class.\n"
        "Writes loss_distribution.png, curves.csv, shares.csv and summary.json.\n"
        "With --formulas, the losses as functions of the logit, for which no checkpoint is needed.",
        "Examples: retinanet loss-distribution runs/quickstart/checkpoints/best.pt\n"
        "          retinanet loss-distribution runs/NAME/checkpoints/last.pt data.root=PATH --images 200 \\\n"
        "              --loss kind=focal,gamma=2,alpha=0.25 --loss '{kind: cross_entropy}'\n"
        "          retinanet loss-distribution --formulas runs/formulas",
    )
    parser.add_argument("checkpoint", type=Path, nargs="?", help="such as runs/NAME/checkpoints/best.pt")
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
    parser.add_argument(
        "--formulas",
        type=Path,
        metavar="FOLDER",
        help="draw the losses over logits and probabilities (the paper's Figures 1, 5, 6 and 7) into FOLDER",
    )
    arguments = parser.parse_intermixed_args(words)
    if arguments.checkpoint is None and arguments.formulas is None:
        parser.error("give a checkpoint, or --formulas FOLDER")
    from retinanet.config.load import check_overrides

    check_overrides(arguments.overrides)
    if arguments.formulas is not None:
        from retinanet.diagnostics.loss_distribution.formulas import draw_loss_formulas

        for path, caption in draw_loss_formulas(arguments.formulas).items():
            print(f"{path}: {caption}")
    if arguments.checkpoint is None:
        return
    from retinanet.diagnostics.loss_distribution.draw import draw_loss_distribution
    from retinanet.interop.any_detector import find_checkpoint

    draw_loss_distribution(
        find_checkpoint(arguments.checkpoint),
        arguments.overrides,
        losses=arguments.loss,
        split=arguments.split,
        most_images=arguments.images,
        output=arguments.output,
    )
