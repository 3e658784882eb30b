"""The last lines of a run: its best result, where its files are, and what to type next."""

import shlex
from typing import Any, NamedTuple

from rich.console import Group, RenderableType
from rich.padding import Padding

from retinanet.display.console import class_table, format_evaluation, format_seconds
from retinanet.display.facts import LABELS, WIDEST, Fact, Facts
from retinanet.display.numbers import amount
from retinanet.run.command_lines import CommandLines
from retinanet.run.folder import RunFolder
from retinanet.run.metric_rows import mean_over_steps, read_rows
from retinanet.scoring.eval_file import read_eval_file

NEAR_ZERO = 0.01
"""An AP below this is no success, whatever the data."""


class Ending(NamedTuple):
    """How a run has ended."""

    first_step: int
    """Updates before this process."""
    step: int
    seconds: float
    """Of this process's updates and evaluations."""
    evaluating: float
    """Part of the seconds that evaluations took."""


def describe_end(folder: RunFolder, ending: Ending, commands: CommandLines, cause: str | None = None) -> RenderableType:
    """Read from the run's files, so that it is right after a resumed run too.

    cause: what the metrics prove to be the cause if AP is near 0, if anything.
    """
    done = [time_taken(ending), *imbalance(folder)]
    if not folder.eval.exists():
        return Facts([*done, *files_and_commands(folder, commands)])
    content = read_eval_file(folder.eval)
    parts: list[RenderableType] = [Facts([*done, Fact("best", best_result(content))])]
    if content["per_class"]:
        parts.append(Padding(class_table(content["per_class"]), (0, 0, 0, LABELS)))
    ap = content["metrics"]["AP"]
    doctor = f"{commands.doctor} {shlex.quote(str(folder.path))}"
    known = f"AP is near 0: {cause}\n" if cause else "AP is near 0; "
    hint = [Fact("why so low", f"{known}this command looks for {'other causes' if cause else 'the cause'}:\n{doctor}")]
    near_zero = 0.0 <= ap < NEAR_ZERO
    return Group(*parts, Facts([*(hint if near_zero else []), *files_and_commands(folder, commands)]))


def time_taken(ending: Ending) -> Fact:
    """Steps and time of this process."""
    steps = f"steps {ending.first_step + 1:,} to {ending.step:,}" if ending.first_step else amount(ending.step, "step")
    if ending.step <= ending.first_step:
        return Fact("finished", f"after {amount(ending.step, 'step')}; there was nothing left to do")
    taken = f"{steps} in {format_seconds(ending.seconds)}"
    return Fact("finished", f"{taken}, {format_seconds(ending.evaluating)} of it for evaluation")


def imbalance(folder: RunFolder) -> list[Fact]:
    """Positives : anchors : logits of the run, measured over its logged steps, if they were logged."""
    rows = read_rows(folder.metrics) if folder.metrics.exists() else []
    positives, anchors, logits = (
        mean_over_steps(rows, f"{name}_per_image") for name in ("positives", "anchors", "logits")
    )
    if not positives or not anchors:
        return []
    ratio = f"1 : {anchors / positives:,.0f} : {logits / positives:,.0f}"
    return [Fact("imbalance", f"{ratio} (positive anchors : anchors : class outputs)")]


def best_result(content: dict[str, Any]) -> str:
    """AP, AP50 and AP75 of an eval.json and its step."""
    shown = {name: content["metrics"][name] for name in ("AP", "AP50", "AP75")}
    return f"{format_evaluation(shown, WIDEST)}  at step {content['step']:,}"


def files_and_commands(folder: RunFolder, commands: CommandLines) -> list[Fact]:
    """The files to look at and the next commands."""
    files = {
        folder.best: "the best weights",
        folder.eval: "all its numbers",
        folder.pictures / "overview.jpg": "objects found on val",
        folder.pictures / "curves.png": "losses and AP over steps",
    }
    there = {str(path): what for path, what in files.items() if path.exists()}
    width = max((len(path) for path in there), default=0)
    listed = "\n".join(f"{path:<{width}}  {what}" for path, what in there.items())
    typed = commands.after(folder.best) if folder.best.exists() else []
    return [
        *([Fact("files", listed)] if there else []),
        *(Fact("next" if number == 0 else "", line, is_command=True) for number, line in enumerate(typed)),
    ]
