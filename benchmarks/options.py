"""The benchmarks' command line. Nothing heavy is imported, so that `--help` is quick."""

import argparse
from pathlib import Path
from typing import Literal, NamedTuple

from retinanet.errors import ConfigError, list_errors

PARTS = ("train", "infer", "loss", "assign", "postprocess", "data", "feed", "profile", "eval", "start")
TORCHVISION = "torchvision"
LEAST_SIDE = 96
"""So that P6 is larger than one cell: torch 2.14's CPU convolution of stride 2 leaves the weights' gradient of a single
cell unwritten in bfloat16."""

FOREIGN_PARTS = frozenset({"train", "infer"})
"""Parts that a file of --against can take."""

EPILOG = """
parts
  train        a whole training step: targets, forward, losses, backward, update
  infer        forward and post-processing
  loss         class loss, forward and backward, and its memory
  assign       ground truth to anchors
  postprocess  scores, thresholds, top-k, decoding, NMS
  data         JPEG files to padded batches
  feed         training steps from JPEG files, beside the same steps on a batch in memory
  profile      what a training step takes its time for
  eval         the twelve COCO numbers
  start        the commands themselves: --help, and the first training step

--against FILE.py times a model of another project in `train` or `infer`. The file defines two functions:
  build(size, batch, classes, device) -> state   size: pixels of the square images; device: a torch.device
  step(state) -> None                            one training step, or one inference with post-processing
Both are called as they are, in this process; what the file imports must be installed.

Examples
  python benchmarks/run.py all --json results.json
  python benchmarks/run.py train infer --device cuda --size 800 1344 --batch 16
  python benchmarks/run.py train --against torchvision --against my_detectron2_step.py
"""


class Options(NamedTuple):
    """What is measured, and how often."""

    parts: tuple[str, ...]
    peers: tuple[str, ...]
    """`torchvision` or the path of a Python file."""
    device: Literal["cpu", "cuda"]
    size: tuple[int, int]
    """(height, width) of the images of `train`, `infer` and `profile`, and of the canvas of `feed`."""
    batch: int
    classes: int
    repeats: int | None
    """None: each part's own."""
    threads: int
    """0: torch's choice."""
    quick: bool
    compile: bool
    """Whether our network is compiled in `train`."""
    only: str | None
    images: Path | None
    memory: bool
    json: Path | None
    check: Path | None


def parse_arguments(words: list[str] | None = None) -> Options:
    """The options of a command line (default: this process's own). Raises ConfigError with all that is wrong."""
    given = _parser().parse_intermixed_args(words)
    parts = PARTS if not given.parts or "all" in given.parts else tuple(p for p in PARTS if p in given.parts)
    size = tuple(given.size or ([128] if given.quick else [512]))
    options = Options(
        parts=parts,
        peers=tuple(given.against or (TORCHVISION,)),
        device=given.device,
        size=(size[0], size[-1]),
        batch=given.batch,
        classes=given.classes,
        repeats=given.repeats,
        threads=given.threads,
        quick=given.quick,
        compile=given.compile,
        only=given.only,
        images=given.images,
        memory=not given.no_memory and not given.quick,
        json=given.json,
        check=given.check,
    )
    unknown = [part for part in given.parts if part not in ("all", *PARTS)]
    errors = [f"{part}: no part; the parts are all, {', '.join(PARTS)}" for part in unknown]
    errors += _errors(options, len(size))
    if errors:
        raise ConfigError(list_errors("benchmarks", errors))
    return options


def _errors(options: Options, sides: int) -> list[str]:
    counts = (("--batch", options.batch), ("--classes", options.classes), ("--repeats", options.repeats))
    errors = [f"{flag} {count}: at least 1" for flag, count in counts if count is not None and count < 1]
    if options.threads < 0:
        errors.append(f"--threads {options.threads}: at least 1, or 0 for torch's choice")
    if sides > 2 or min(options.size) < LEAST_SIDE:
        errors.append(f"--size: one side or height and width, each at least {LEAST_SIDE} pixels")
    for peer in options.peers:
        if peer == TORCHVISION:
            continue
        if not Path(peer).is_file():
            errors.append(f"--against {peer}: no such file; give `{TORCHVISION}` or a Python file")
        elif not set(options.parts) <= FOREIGN_PARTS:
            errors.append(
                f"--against {peer}: a file can be timed in {' or '.join(sorted(FOREIGN_PARTS))} only; name one"
            )
        elif options.size[0] != options.size[1]:
            errors.append(f"--against {peer}: its build() takes square images; give --size one side")
        elif len(options.parts) > 1:
            errors.append(f"--against {peer}: its step() is one of training or of inference; name one part")
    if options.images is not None and not options.images.is_dir():
        errors.append(f"--images {options.images}: no such folder")
    if options.check is not None and not options.check.is_file():
        errors.append(f"--check {options.check}: no such file")
    if options.json is not None and not options.json.absolute().parent.is_dir():
        errors.append(f"--json {options.json}: its folder does not exist")
    return errors


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        allow_abbrev=False,
        description="Time this project beside its peers: same machine, same inputs, interleaved repetitions.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"all (default), {', '.join(PARTS)}")
    parser.add_argument(
        "--against", action="append", metavar="PEER", help=f"`{TORCHVISION}` (default) or FILE.py; may be repeated"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    parser.add_argument(
        "--size",
        type=int,
        nargs="+",
        metavar="PIXELS",
        help="images of train, infer, feed and profile: side, or height and width (512)",
    )
    parser.add_argument("--batch", type=int, default=2, metavar="N", help="images of a step (default: %(default)s)")
    parser.add_argument("--classes", type=int, default=80, metavar="N", help="default: %(default)s")
    parser.add_argument("--repeats", type=int, metavar="N", help="repetitions of each contestant (default: by part)")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="CPU threads (default: torch's choice)")
    parser.add_argument(
        "--only", metavar="TEXT", help="only contestants whose name contains TEXT, and no ratios to others"
    )
    parser.add_argument(
        "--images", type=Path, metavar="FOLDER", help="JPEG files for `data` and `feed` (default: generated photos)"
    )
    parser.add_argument("--no-memory", action="store_true", help="do not measure memory, which takes a process each")
    parser.add_argument(
        "--quick", action="store_true", help="small shapes, a ResNet-18, no memory: to see that everything works"
    )
    parser.add_argument("--compile", action="store_true", help="our network compiled, in train (config `compile`)")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write all figures to this file")
    parser.add_argument(
        "--check", type=Path, metavar="FLOORS", help="fail where a ratio is under its floor in this file"
    )
    return parser
