"""`retinanet doctor`: what keeps the AP of a run low, on the terminal."""

import re
import shlex
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from retinanet.diagnostics.doctor.diagnose import Diagnosis, diagnose
from retinanet.diagnostics.doctor.facts import Evidence, TrialFacts
from retinanet.diagnostics.doctor.gather import Gathered, gather_evidence, run_folder
from retinanet.display.console import format_ap, print_plain
from retinanet.run.folder import RunFolder
from retinanet.scoring.eval_file import read_eval_file
from retinanet.training.causes import Finding, RunEvidence

WIDEST = 100
"""Columns that text is wrapped to where the terminal is wider."""
SHOWN_ERRORS = 3
_COMMAND = re.compile(r"( *)retinanet ([a-z-]+)(?= )")


def report_run(
    path: Path, overrides: list[str], *, images: int, called: Callable[[str], str] = "retinanet {}".format
) -> None:
    """Print the causes of a low AP that are proven for the run in a folder, their remedies, and what was checked.

    path: the run's folder or a file in it. overrides: keys for its config. images: of each split to detect on. called:
    how a command is typed, given its name. Raises ConfigError for a folder without a run or a config that cannot be
    used, CheckpointError for damaged metrics.
    """
    folder = run_folder(path)
    gathered = gather_evidence(folder, overrides, images)
    diagnosis = diagnose(gathered.evidence)
    console = Console()
    width = min(console.width, WIDEST)
    for line in [
        *describe_examined_run(folder, gathered.evidence),
        "",
        *describe_findings_of_run(folder, gathered, diagnosis),
        "",
        *describe_checks(gathered, diagnosis),
    ]:
        print_plain(console, as_typed(wrapped(line, width), called))


def as_typed(line: str, called: Callable[[str], str]) -> str:
    """A line that is a command, as it is typed where this one was started; others as they are."""
    found = _COMMAND.match(line)
    return f"{found[1]}{called(found[2])}{line[found.end() :]}" if found else line


def wrapped(line: str, width: int) -> str:
    """A line broken between words, keeping its indentation; lines that are commands to copy stay whole."""
    text = line.lstrip()
    indent = " " * (len(line) - len(text))
    if text.startswith(("retinanet ", "set ")):
        return line
    return textwrap.fill(
        text,
        width,
        initial_indent=indent,
        subsequent_indent=indent + "   " * (text[:1].isdigit() and text[1:3] == ". "),
        break_long_words=False,
        break_on_hyphens=False,
    )


def describe_examined_run(folder: RunFolder, evidence: Evidence) -> list[str]:
    """What the run is, and how its weights do on a few images."""
    run = evidence.run
    ap = "never evaluated" if run.best_ap is None else f"best AP {format_ap(run.best_ap)}"
    if run.best_ap is not None and run.best_ap < 0:
        ap = "AP not measured"
    lines = [
        f"{folder.path}: {run.steps():,} of {run.plan.total_steps:,} steps, {run.images_seen():,} images seen, {ap}"
    ]
    if evidence.trial is not None:
        lines.append(describe_trial(evidence.trial))
    return lines


def describe_trial(trial: TrialFacts) -> str:
    """AP50 on both samples."""
    return (
        f"On {trial.train.images} training images AP50 is {format_ap(trial.train.ap50)}, on {trial.val.images} val "
        f"images {format_ap(trial.val.ap50)} (detections of every score; best score {trial.val.best_score:.3f})."
    )


def describe_findings_of_run(folder: RunFolder, gathered: Gathered, diagnosis: Diagnosis) -> list[str]:
    """The causes with their remedies, or that there is none and what costs the most AP50."""
    findings, run = diagnosis.findings, gathered.evidence.run
    if not findings:
        return [*_without_cause(run, folder)]
    count = "1 cause" if len(findings) == 1 else f"{len(findings)} causes"
    lines = [f"{count} of a low AP:" if run.is_low() else f"AP is not low; {count} of what it lacks:"]
    for number, finding in enumerate(findings, 1):
        lines += ["", f"{number}. {finding.title}", f"   {finding.proof}"]
        lines += [f"   {finding.advice}"] if finding.advice else []
        if finding.remedy:
            command = finding.remedy.startswith("retinanet ")
            lines.append(f"   {finding.remedy}" if command else f"   set {finding.remedy}")
    return [*lines, *describe_commands(folder, gathered.weights, findings)]


def _without_cause(run: RunEvidence, folder: RunFolder) -> list[str]:
    if run.best_ap is None:
        return ["No cause of a low AP was found; the run was not evaluated yet."]
    if run.is_low():
        return [
            "No cause of the low AP could be proven. Look at ground truth and detections in "
            f"{folder.pictures}/overview.jpg, and at what the network sees."
        ]
    return ["No cause of a low AP was found.", *describe_losses(folder)]


def describe_losses(folder: RunFolder) -> list[str]:
    """The types of error that cost the most AP50, by eval.json."""
    if not folder.eval.is_file():
        return []
    errors: dict[str, Any] = read_eval_file(folder.eval).get("errors") or {}
    costs = {kind: cost for kind, cost in errors.get("cost_in_AP50", {}).items() if not kind.startswith("false ")}
    most = sorted((kind for kind in costs if costs[kind] > 0), key=lambda kind: -costs[kind])[:SHOWN_ERRORS]
    if not most:
        return []
    listed = ", ".join(f"{kind} {costs[kind]:.3f} ({errors['count'][kind]:,} errors)" for kind in most)
    return [f"What limits it most, as AP50 lost to each type of error: {listed}."]


def describe_commands(folder: RunFolder, weights: Path, findings: tuple[Finding, ...]) -> list[str]:
    """The commands that apply all remedies that are keys with values: a training, or an evaluation."""
    words = [
        word
        for finding in findings
        for word in shlex.split(finding.remedy)
        if "=" in word and not finding.remedy.startswith("retinanet ") and not word.endswith("=FILE")
    ]
    keys: dict[str, str] = {}
    for key, _, value in (word.partition("=") for word in words):
        keys.setdefault(key, value)  # of two findings that set one key, the first counts
    evaluated = {key: value for key, value in keys.items() if key.startswith("eval.")}
    trained = {key: value for key, value in keys.items() if key not in evaluated}
    lines = []
    if trained:
        new = folder.path.with_name(f"{folder.path.name}-again")
        lines += ["", "Train again with:", f"  retinanet train {folder.config} {_words(keys)} output={new}"]
    elif evaluated:
        lines += ["", "Evaluate again with:", f"  retinanet eval {weights} {_words(keys)}"]
    return lines


def describe_checks(gathered: Gathered, diagnosis: Diagnosis) -> list[str]:
    """What was looked for and not found, and what could not be looked for and why."""
    lines = [f"Checked without a finding: {', '.join(diagnosis.cleared) or 'nothing'}."]
    reasons = {cause.name: gathered.reasons.get(cause.part, "") for cause in diagnosis.unchecked}
    for reason in dict.fromkeys(reasons.values()):
        names = ", ".join(name for name, why in reasons.items() if why == reason)
        lines.append(f"Not checked: {names}{': ' if reason else ''}{' '.join(reason.split())}")
    return lines


def _words(keys: dict[str, str]) -> str:
    return " ".join(shlex.quote(f"{key}={value}") for key, value in keys.items())
