"""What the command lines have in common: parsers, and words such as `schedule.lr=0.01` among paths."""

import argparse
import re
import sys
from pathlib import Path

from retinanet.config.numbers import COCO_DETECTIONS

TTA = ("eval.tta_flip=true", "eval.tta_scales=[0.8,1,1.25]")
"""What `--tta` stands for."""

_OVERRIDE = re.compile(r"\s*[A-Za-z_]\w*(\.\w+)*\s*=")


def new_parser(prog: str | None, description: str, epilog: str) -> argparse.ArgumentParser:
    """A parser whose help keeps the line breaks of its texts. prog: None takes the name of the script."""
    return argparse.ArgumentParser(
        prog=prog,
        allow_abbrev=False,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def detector_path(text: str) -> Path:
    """The file of a detector; for the folder of a run, or of its checkpoints, the best one.

    A folder without one is left as it is, for the error of whoever opens it.
    """
    path = Path(text)
    if path.is_dir():
        places = (path / "checkpoints" / "best.pt", path / "best.pt")
        return next((place for place in places if place.is_file()), path)
    return path


def called(name: str, prog: str | None) -> str:
    """How the command `name` is typed where this one was started, as `retinanet NAME` or in another way.

    prog: None for a script of tools/, as which the others are called then, too.
    """
    script = Path(sys.argv[0])
    if prog is None:
        sibling = script.with_name(f"{name}.py")
        return f"python {sibling}" if sibling.exists() else f"python -m retinanet {name}"
    return f"{'python -m retinanet' if script.name == '__main__.py' else 'retinanet'} {name}"


def add_overrides(
    parser: argparse.ArgumentParser, meaning: str = "config keys to change, such as data.root=PATH"
) -> None:
    """Let the command line end in `key.path=value` words, as `overrides`."""
    parser.add_argument("overrides", nargs="*", metavar="key=value", help=meaning)


def add_views(parser: argparse.ArgumentParser) -> None:
    """Let the command line say how images are seen: `view_words` makes config keys of it."""
    parser.add_argument(
        "--tile",
        type=positive_int,
        metavar="PIXELS",
        help="detect on overlapping tiles of this side at the image's own scale (data.tile)",
    )
    parser.add_argument(
        "--overlap",
        type=fraction,
        metavar="PART",
        help="least part of a tile's side that it shares with the next one (data.tile_overlap, 0.2)",
    )
    parser.add_argument(
        "--tta",
        action="store_true",
        help=f"test-time augmentation: also on the mirror image and at other scales ({' '.join(TTA)})",
    )


def view_words(arguments: argparse.Namespace) -> list[str]:
    """The key=value words of the flags that `add_views` adds."""
    return [
        *([f"data.tile={arguments.tile}"] if arguments.tile is not None else []),
        *([f"data.tile_overlap={arguments.overlap}"] if arguments.overlap is not None else []),
        *(TTA if arguments.tta else ()),
    ]


def split_overrides(items: list[str]) -> tuple[list[str], list[str]]:
    """`(overrides, others)`: the `key.path=value` words and the rest, each in order.

    The path of an existing file is never an override, whatever its name.
    """
    overrides: list[str] = []
    others: list[str] = []
    for item in items:
        is_override = _OVERRIDE.match(item) is not None and not _exists(item)
        (overrides if is_override else others).append(item)
    return overrides, others


def positive_int(text: str) -> int:
    """An argparse type."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def max_detections(text: str) -> int:
    """An argparse type: how many detections of a class and image count."""
    if not text.isdecimal() or int(text) < COCO_DETECTIONS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a whole number of at least {COCO_DETECTIONS}, COCO's own limit"
        )
    return int(text)


def fraction(text: str) -> float:
    """An argparse type: a number above 0 and below 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 and below 1, such as 0.2")
    return value


def natural_int(text: str) -> int:
    """An argparse type."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 0 or more")
    return int(text)


def _exists(word: str) -> bool:
    try:
        return Path(word).exists()
    except (OSError, ValueError):
        # Too long for a file name, or not one at all.
        return False
