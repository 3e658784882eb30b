"""`retinanet COMMAND ...`, also as `python -m retinanet COMMAND ...`."""

import sys
from collections.abc import Callable, Sequence
from functools import partial

from retinanet.commands.border import run

COMMANDS = {
    "train": "train a detector",
    "eval": "COCO numbers of a detector or of files, and a report of what goes wrong",
    "predict": "detect on images: pictures and COCO-style results",
    "ablate": "train and compare the arms of a study",
    "compare": "is detector B better than detector A? Differences with intervals",
    "doctor": "why is the AP of a run low? Causes with proof and remedy",
    "replay": "which layer made the numbers of a run infinite or NaN?",
    "anchors": "do a config's anchors fit its boxes? Better ones to paste",
    "config": "list, show and compare configs",
    "convert": "weights of other projects into this project's format, and back",
    "export": "a checkpoint as ONNX, torch.export or AOTInductor",
    "loss-distribution": "the paper's Figure 4 for a checkpoint",
    "data": "check, convert, fetch or generate data sets",
}


def main() -> None:
    """Run the command line's command and exit with its code."""
    words = sys.argv[1:]
    if words and words[0] in COMMANDS:
        raise SystemExit(run(partial(run_command, words[0], words[1:])))
    if words and words[0] == "--version":
        from importlib.metadata import version

        raise SystemExit(run(partial(print, f"retinanet {version('retinanet')}")))
    if not words or words[0] in ("-h", "--help"):
        raise SystemExit(run(partial(print, usage())))
    print(f"{usage()}\n\nerror: there is no command {words[0]!r}{suggestion(words[0])}", file=sys.stderr)
    raise SystemExit(2)


def run_command(name: str, words: Sequence[str]) -> None:
    """Run one command with its arguments; its modules are imported only now."""
    command_main(name)(words, f"retinanet {name}")


def command_main(name: str) -> Callable[[Sequence[str], str], None]:
    """The `main` of a command."""
    match name:
        case "train":
            from retinanet.commands.train import main
        case "eval":
            from retinanet.commands.evaluate import main
        case "predict":
            from retinanet.commands.predict import main
        case "ablate":
            from retinanet.commands.ablate import main
        case "compare":
            from retinanet.commands.compare import main
        case "doctor":
            from retinanet.commands.doctor import main
        case "replay":
            from retinanet.commands.replay import main
        case "anchors":
            from retinanet.commands.anchors import main
        case "config":
            from retinanet.commands.config import main
        case "convert":
            from retinanet.commands.convert_weights import main
        case "export":
            from retinanet.commands.export import main
        case "loss-distribution":
            from retinanet.commands.loss_distribution import main
        case "data":
            from retinanet.commands.data import main
        case _:
            raise ValueError(f"no command {name!r}")
    return main


def usage() -> str:
    """All commands with a line each."""
    lines = [f"  {name:18} {meaning}" for name, meaning in COMMANDS.items()]
    return "\n".join(
        [
            "usage: retinanet COMMAND ...",
            "",
            "Train, evaluate and compare RetinaNet detectors.",
            "",
            "commands:",
            *lines,
            "",
            "`retinanet COMMAND --help` explains a command; `retinanet --version` prints the version.",
            "A first run: `retinanet data shapes --train 2000 --size 256 256`, then `retinanet train quickstart`.",
        ]
    )


def suggestion(word: str) -> str:
    """Ending of a message: the command that is spelled most like the word, or nothing."""
    import difflib

    near = difflib.get_close_matches(word, COMMANDS, n=1)
    return f"; did you mean {near[0]}?" if near else ""


if __name__ == "__main__":
    main()
