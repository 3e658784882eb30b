"""A resolved study as one plain text, from which the processes of its cells load it."""

from typing import Any

from retinanet.ablation.arms import flow
from retinanet.ablation.study import Study
from retinanet.config.class_losses import OwnLossKeys
from retinanet.config.dump import dump_config
from retinanet.config.schema import Config


def study_text(study: Study) -> str:
    """The study as one self-contained file that loads back to an equal study."""
    base = [line for line in dump_config(study.base).splitlines() if not line.startswith(("seed:", "output:"))]
    rule: dict[str, Any] = {"rule": "grid", "values": study.lr_values} if study.lr_values else {"rule": "same"}
    rule |= {} if study.lr_seeds is None else {"seeds": study.lr_seeds}
    rule |= {"widen": study.lr_widen} if study.lr_widen else {}
    lines = [
        f"title: {flow(study.title)}",
        f"note: {flow(study.note)}",
        f"reference: {flow(study.reference)}",
        f"seeds: {flow(study.seeds)}",
        f"lr: {flow(rule)}",
        f"test: {flow({'annotations': study.test[0], 'images': study.test[1]})}",
        f"may_differ: {flow(study.may_differ)}",
        f"jobs: {study.jobs}",
        f"output: {flow(str(study.folder))}",
        *([] if study.shapes is None else [f"shapes: {flow(study.shapes.model_dump(exclude_none=True))}"]),
        *_later_keys(study),
        "arms:",
    ]
    for arm in study.arms:
        lines += [
            f"  - name: {flow(arm.name)}",
            f"    overrides: {flow(_located(arm.overrides, arm.config))}",
            f"    paper: {flow(arm.paper)}",
            f"    note: {flow(arm.note)}",
        ]
    return "\n".join([*lines, "overrides:", *(f"  {line}" for line in base)]) + "\n"


def _located(overrides: tuple[tuple[str, Any], ...], config: Config) -> dict[str, Any]:
    """Overrides with the file of a class loss of the user that they set, and its hash, so that cells train with it."""
    match config.loss.classification:
        case OwnLossKeys(file=file, source_sha256=sha256) if "loss.classification.kind" in dict(overrides):
            place = {"loss.classification.file": file, "loss.classification.source_sha256": sha256}
            return dict(overrides) | place
        case _:
            return dict(overrides)


def _later_keys(study: Study) -> list[str]:
    """Keys that only some studies have; the text of the others is what it was before these keys existed."""
    lines = [] if study.primary is None else [f"primary: {flow(study.primary.model_dump(exclude_none=True))}"]
    lines += [f"score_thresholds: {flow(study.score_thresholds)}"] if study.score_thresholds else []
    lines += ["levels:"] if study.levels else []
    for level in study.levels:
        own = None if level.shapes is None else level.shapes.model_dump(exclude_none=True)
        lines += [
            f"  - name: {flow(level.name)}",
            f"    overrides: {flow(_located(level.overrides, level.base))}",
            *([] if own is None else [f"    shapes: {flow(own)}"]),
            f"    note: {flow(level.note)}",
        ]
    return lines
