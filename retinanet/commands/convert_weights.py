"""`retinanet convert`: weights of other projects into this project's format, and back."""

from collections.abc import Sequence
from pathlib import Path

from retinanet.commands.arguments import add_overrides, new_parser, split_overrides

CONVERSIONS = {
    "torchvision_v1": "torchvision's retinanet_resnet50_fpn",
    "torchvision_v2": "torchvision's retinanet_resnet50_fpn_v2",
    "detectron2": "a .pkl from its model zoo, or a .pth from its training",
    "mmdetection": "a .pth from its model zoo or training",
    "msra_resnet": "MSRA's ResNet (R-50.pkl) of Detectron or detectron2, for model.backbone.weights",
    "ours": "a checkpoint of this project as .safetensors for publishing, or back as .pt",
    "to_torchvision_v1": "a checkpoint of this project as a state dict for torchvision's model",
    "to_torchvision_v2": "the same for retinanet_resnet50_fpn_v2",
}


def main(words: Sequence[str] | None = None, prog: str | None = None) -> None:
    """Parse the arguments, convert."""
    known = "\n".join(f"  {name:18} {meaning}" for name, meaning in CONVERSIONS.items())
    parser = new_parser(
        prog,
        "Convert weights of a RetinaNet or a backbone; nothing is written unless every tensor fits.\n\n"
        f"conversions:\n{known}",
        "Examples: retinanet convert torchvision_v1 retinanet_coco.pth retinanet.pt\n"
        "          retinanet convert to_torchvision_v1 runs/NAME/checkpoints/best.pt OUT.pth",
    )
    parser.add_argument("conversion", choices=list(CONVERSIONS), metavar="CONVERSION", help="one of those above")
    parser.add_argument("input", type=Path, metavar="IN", help="file of weights; .safetensors is accepted for all")
    parser.add_argument("output", type=Path, metavar="OUT", help="file to write; .safetensors for publishing")
    add_overrides(
        parser, "config keys in which the network differs from the recipe, such as model.anchors.sizes=[16,...]"
    )
    parser.add_argument(
        "--classes", type=Path, metavar="FILE", help="class names: a JSON list or a COCO annotation file"
    )
    parser.add_argument(
        "--coco-only", action="store_true", help="keep only the outputs of COCO's 80 categories among torchvision's 91"
    )
    parser.add_argument(
        "--norm-eps", type=float, metavar="EPS", help="eps of the batch norms (default: 1e-5, or as published)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")
    arguments = parser.parse_intermixed_args(words)
    overrides, stray = split_overrides(arguments.overrides)
    from retinanet.config.load import check_overrides
    from retinanet.errors import ConfigError

    if stray:
        raise ConfigError(f"expected key=value after the two files, not: {' '.join(stray)}")
    check_overrides(overrides)
    from retinanet.interop.convert import ConversionOptions, convert

    wishes = ConversionOptions(arguments.classes, arguments.coco_only, arguments.norm_eps, overrides)
    files = arguments.input, arguments.output
    print("\n".join(convert(arguments.conversion, *files, wishes, overwrite=arguments.overwrite)))
