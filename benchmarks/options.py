"""The benchmarks' command line. Nothing heavy is imported, so that `--help` is quick."""

import argparse
from pathlib import Path
from typing import Literal, NamedTuple

from retinanet.errors import ConfigError, list_errors

PARTS = ("train", "infer", "loss", "assign", "postprocess", "data", "feed", "profile", "eval", "start")
TORCHVISION = "torchvision"
MIN_SIDE = 96
"""So that P6 is larger than one cell: torch 2.14's CPU convolution of stride 2 leaves the weights' gradient of a single
cell unwritten in bfloat16."""

FOREIGN_PARTS = frozenset({"train", "infer"})
"""Parts that accept a file in --against."""

EPILOG = """
parts
  train        a whole training step: targets, forward, losses, backward, update
  infer        forward and post-processing
  loss         class loss, forward and backward, and its memory
  assign       ground truth to anchors
  postprocess  scores, thresholds, top-k, decoding, NMS
  data         JPEG files to padded batches
  feed         training steps from JPEG files, compared with the same steps on a batch in memory
  profile      where a training step spends its time
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
    """What is measured, and how often. The fields are named as the command line's options."""

    parts: tuple[str, ...]
    against: tuple[str, ...]
    """Peers: `torchvision` or the path of a Python file."""
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
    """Whether this project's network is compiled in `train`."""
    only: str | None
    images: Path | None
    memory: bool
    json: Path | None
    check: Path | None

    def backbone(self) -> str:
        """The backbone of the parts on whole networks."""
        return "resnet18" if self.quick else "resnet50"


def parse_arguments(words: list[str] | None = None) -> Options:
    """The options of a command line (default: this process's own). Raises ConfigError with all errors together."""
    given = _parser().parse_intermixed_args(words)
    size = given.size or ([128] if given.quick else [512])
    derived = {
        "parts": PARTS if not given.parts or "all" in given.parts else tuple(p for p in PARTS if p in given.parts),
        "against": tuple(given.against or (TORCHVISION,)),
        "size": (size[0], size[-1]),
        "memory": given.memory and not given.quick,
    }
    options = Options(**vars(given) | derived)
    unknown = [part for part in given.parts if part not in ("all", *PARTS)]
    errors = [f"{part}: not a part; the parts are all, {', '.join(PARTS)}" for part in unknown]
    errors += _errors(options, len(size))
    if errors:
        raise ConfigError(list_errors("benchmarks", errors))
    return options


def _errors(options: Options, sides: int) -> list[str]:
    counts = (("--batch", options.batch), ("--classes", options.classes), ("--repeats", options.repeats))
    errors = [f"{flag} {count}: must be at least 1" for flag, count in counts if count is not None and count < 1]
    if options.threads < 0:
        errors.append(f"--threads {options.threads}: must be at least 1, or 0 for torch's choice")
    if sides > 2 or min(options.size) < MIN_SIDE:
        errors.append(f"--size: give one side, or height and width, each at least {MIN_SIDE} pixels")
    for peer in options.against:
        if peer == TORCHVISION:
            continue
        if not Path(peer).is_file():
            errors.append(f"--against {peer}: no such file; give `{TORCHVISION}` or a Python file")
        elif not set(options.parts) <= FOREIGN_PARTS:
            parts = " or ".join(sorted(FOREIGN_PARTS))
            errors.append(f"--against {peer}: a file can be timed in {parts} only; name one of them")
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
        description="Time this project and its peers: same machine, same inputs, interleaved repetitions.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("parts", nargs="*", metavar="PART", help=f"all (default), {', '.join(PARTS)}")
    add("--against", action="append", metavar="PEER", help=f"`{TORCHVISION}` (default) or FILE.py; may be repeated")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="default: %(default)s")
    sizes = "images of train, infer, feed and profile: side, or height and width (512)"
    add("--size", type=int, nargs="+", metavar="PIXELS", help=sizes)
    add("--batch", type=int, default=2, metavar="N", help="images of a step (default: %(default)s)")
    add("--classes", type=int, default=80, metavar="N", help="default: %(default)s")
    add("--repeats", type=int, metavar="N", help="repetitions of each contestant (default: by part)")
    add("--threads", type=int, default=0, metavar="N", help="CPU threads (default: torch's choice)")
    add("--only", metavar="TEXT", help="only contestants whose name contains TEXT, and no ratios to others")
    images = "JPEG files for `data` and `feed` (default: generated photos)"
    add("--images", type=Path, metavar="FOLDER", help=images)
    memory = "do not measure memory, which takes a process for each contestant"
    add("--no-memory", action="store_false", dest="memory", help=memory)
    add("--quick", action="store_true", help="small shapes, a ResNet-18, no memory: to see that everything works")
    add("--compile", action="store_true", help="compile this project's network in train (config `compile`)")
    add("--json", type=Path, metavar="OUT", help="write all figures to this file")
    add("--check", type=Path, metavar="FLOORS", help="fail if a ratio is below its floor in this file")
    return parser
