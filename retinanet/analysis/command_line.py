"""Which words of tools/eval.py go together. Without torch, as the tool's --help needs it."""

import argparse


def find_conflict(arguments: argparse.Namespace) -> str | None:
    """What does not go together on the command line, and what to say instead."""
    first, files = arguments.checkpoint, (arguments.ground_truth, arguments.detections)
    if first is not None and "=" in str(first) and not first.exists():
        return f"{first}: key=value words need a checkpoint before them; for files there are --engine and --images"
    if first is not None and files != (None, None):
        return f"give a checkpoint, or both --ground-truth and --detections, but not {first} and files together"
    if first is None and None in files:
        return "give a checkpoint, or both --ground-truth and --detections"
    if first is not None and (arguments.images or arguments.engine):
        return "with a checkpoint, say data.val_images=FOLDER and eval.engine=NAME instead of --images, --engine"
    if arguments.images and arguments.no_report:
        return "--images is for the report, which --no-report leaves out; give only one of them"
    return None
