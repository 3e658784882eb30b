"""What a study has measured: the border between those who run cells and those who report on them."""

from pathlib import Path
from typing import NamedTuple


class ArmInfo(NamedTuple):
    """One arm as the study file describes it."""

    name: str
    overrides_text: tuple[str, ...]
    """`key.path: value`, one a line, of what the arm sets on top of the base and the study's own overrides."""
    paper: dict[str, float]
    """The paper's own numbers, in points from 0 to 100 as it prints them, by name (AP, AP50, ...); may be empty."""
    note: str


class CellResult(NamedTuple):
    """One training of one arm with one learning rate and one seed."""

    arm: str
    lr: float
    seed: int
    folder: Path
    """The run folder: config.yaml, metrics.jsonl, checkpoints/, and test/{eval.json,detections.json} if done."""
    status: str
    """done, diverged, failed, or waiting (not finished yet)."""
    message: str
    """Why it diverged or failed; empty where it is done."""
    seconds: float
    """Training time, summed over interruptions, without validation and test."""
    test_metrics: dict[str, float]
    """The COCO numbers on the test split, 0 to 1, with the final weights; empty unless done."""
    val_metrics: dict[str, float]
    """The COCO numbers on the config's val split, with the final weights; empty unless done."""
    tuning: bool
    """True for a learning rate that the grid rule tried and did not choose: no part of any comparison."""


class StudyResult(NamedTuple):
    """A study, finished or not."""

    title: str
    note: str
    reference: str
    """Name of the arm that the others are compared with."""
    arms: tuple[ArmInfo, ...]
    cells: tuple[CellResult, ...]
    """Every cell, unfinished and tuning ones too, in the study's order."""
    lr_rule_text: str
    """The learning-rate rule in a sentence, with what it chose for each arm."""
    guards: tuple[str, ...]
    """What a reader is warned of."""
    test_annotations: Path
    test_images: Path
    base_text: str
    """The resolved base config, with the study's own overrides, as YAML."""
    machine: str
    """Where the cells ran: host, device, torch version."""
