"""The paper's Figure 4 for any checkpoint: which anchors carry the class loss, under which loss.

The network stays as trained and only the loss changes, as in the paper. `samples` defines a sample. Curves are
normalised, so a loss's weight and normaliser have no effect on them. Nor has alpha on those of negatives; on those of
positives it has a small one, because the other classes of a positive have weight 1 - alpha.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table

from retinanet.build.losses import build_class_loss, build_criterion
from retinanet.build.rules import build_assign_rule, build_resize_rule, build_view_rule
from retinanet.config.class_losses import ClassLossKeys
from retinanet.data.categories import aligned
from retinanet.data.coco import CocoDataset
from retinanet.data.views import tiled
from retinanet.diagnostics.loss_distribution.curves import HARDEST_FRACTIONS, Breakdown, Distribution, distribution_of
from retinanet.diagnostics.loss_distribution.losses import build_losses, check_head, default_losses, name_losses
from retinanet.diagnostics.loss_distribution.plot import draw_distribution
from retinanet.diagnostics.loss_distribution.samples import LossSamples, Measure, sample_losses
from retinanet.display.console import print_plain
from retinanet.display.progress import image_progress
from retinanet.errors import ConfigError, DataError, list_errors
from retinanet.evaluation.saved import SavedDetector, load_detector
from retinanet.evaluation.splits import Split, load_split
from retinanet.files import CsvValue, make_folder, write_csv, write_json
from retinanet.losses.classification import ClassificationLoss

KINDS = ("positives", "negatives")


class LossReport(NamedTuple):
    """One loss and how it is distributed."""

    name: str
    options: ClassLossKeys
    distributions: Mapping[str, Distribution]
    """Of each of KINDS."""
    positives_share: float
    """Fraction of the whole class loss of all images used that positives carry."""


def draw_loss_distribution(
    path: Path,
    overrides: list[str],
    *,
    losses: list[str],
    split: Split = "val",
    most_images: int | None = None,
    output: Path | None = None,
) -> None:
    """Measure a checkpoint's class losses and write loss_distribution.png, curves.csv, shares.csv and summary.json.

    losses: texts as for `build_losses`; none gives `default_losses`. Images of the split are drawn at random (by the
    config's seed) until the paper's numbers of anchors, `most_images` or the end is reached. The files are written to
    `output`, by default loss_distribution/ of the run's folder. Raises ConfigError for losses that cannot be read, do
    not fit the checkpoint's head or are zero everywhere, DataError for data without a positive anchor.
    """
    if most_images is not None and most_images < 1:
        raise ConfigError(f"--images: expected an integer of at least 1, got {most_images}")
    if any(word.strip().startswith("loss.classification") for word in overrides):
        raise ConfigError("loss.classification: the checkpoint's network stays as trained; name losses with --loss")
    given = build_losses(losses)
    saved = load_detector(path, overrides)
    trained_with = saved.config.loss.classification
    named = name_losses(given or default_losses(trained_with))
    built = {name: build_class_loss(options) for name, options in named.items()}
    check_head(trained_with, len(saved.categories), built, path)
    data = saved.config.data
    dataset = aligned(load_split(data, split, data.check_images), saved.categories, str(path))
    dataset = tiled(dataset, build_view_rule(saved.config))
    home = path.parent.parent if path.parent.name == "checkpoints" else path.parent
    folder = output or home / "loss_distribution"
    make_folder(folder)
    images = len(dataset.images) if most_images is None else min(most_images, len(dataset.images))
    with image_progress("measuring losses", images) as report:
        samples = sample_losses(build_measure(saved, built), dataset, most_images, report)
    check_samples(samples, list(named), dataset)
    reports = [report_loss(name, options, samples, index) for index, (name, options) in enumerate(named.items())]
    write_results(folder, reports, samples, saved.step, f"{path}, {split} split ({dataset.annotation_file.name})")
    console = Console()
    console.print(summary_table(reports))
    print_plain(console, f"written to {folder}/")


def build_measure(saved: SavedDetector, losses: dict[str, ClassificationLoss]) -> Measure:
    """The arguments of `sample_losses`, from the checkpoint's config."""
    config = saved.config
    parts = build_criterion(config)
    return Measure(
        detector=saved.detector,
        losses=tuple(losses.values()),
        names=tuple(losses),
        box_loss=lambda deltas, boxes, anchors: parts.box_loss(deltas, boxes, anchors) * parts.box_weight,
        rule=build_assign_rule(config),
        resize_rule=build_resize_rule(config),
        batch_size=config.eval.batch_size,
        workers=config.data.workers,
        seed=config.seed,
    )


def check_samples(samples: LossSamples, names: Sequence[str], dataset: CocoDataset) -> None:
    """Raise DataError where no anchor is positive or none is negative, ConfigError for a loss that is always zero."""
    kinds = {"positive": samples.positives_SP, "negative": samples.negatives_SN}
    for kind, losses_SN in kinds.items():
        if not losses_SN.shape[1]:
            raise DataError(
                f"{dataset.annotation_file}: no anchor of the {samples.images} images used is {kind}, so there is no "
                "distribution to draw; use more images, or another split or data set"
            )
    errors = [
        f"{name}: zero for every {kind} anchor"
        for kind, losses_SN in kinds.items()
        for name, loss_N in zip(names, losses_SN, strict=True)
        if not loss_N.any()
    ]
    if errors:
        raise ConfigError(list_errors("--loss: a loss that is zero everywhere has no distribution", errors))


def report_loss(name: str, options: ClassLossKeys, samples: LossSamples, index: int) -> LossReport:
    """The distributions of the loss at `index` of the samples."""
    distributions = {
        kind: distribution_of(losses_SN[index])
        for kind, losses_SN in zip(KINDS, (samples.positives_SP, samples.negatives_SN))
    }
    (labels,) = (breakdown for breakdown in samples.breakdowns if breakdown.by == "label")
    share = float(labels.shares_SG()[index, labels.names.index("positives")])
    return LossReport(name=name, options=options, distributions=distributions, positives_share=share)


def write_results(folder: Path, reports: Sequence[LossReport], samples: LossSamples, step: int, source: str) -> None:
    """Write the picture, both CSV files and the summary of one measurement."""
    names = [report.name for report in reports]
    write_csv(folder / "curves.csv", ("loss", "anchors", "fraction", "cumulative"), curve_rows(reports))
    header = ("loss", "of", "by", "name", "anchors", "anchor_share", "loss_share")
    write_csv(folder / "shares.csv", header, share_rows(names, samples.breakdowns))
    counts = dict(zip(KINDS, samples.breakdowns[0].anchors_G.tolist()))
    summary = {
        "source": source,
        "step": step,
        "sample": "an anchor, its loss summed over its classes",
        "images": samples.images,
        "anchors": counts,
        "losses": [loss_summary(report) for report in reports],
    }
    write_json(folder / "summary.json", summary, indent=1)
    kept = {kind: distribution.spread.samples for kind, distribution in reports[0].distributions.items()}
    drawn = " and ".join(
        f"all {count:,} {kind}" if kept[kind] == count else f"{kept[kind]:,} of {count:,} {kind}"
        for kind, count in counts.items()
    )
    title = f"{source}\n{samples.images:,} images; curves of {drawn}"
    curves = {kind: {report.name: report.distributions[kind].curve for report in reports} for kind in KINDS}
    draw_distribution(folder / "loss_distribution.png", title, curves, samples.breakdowns)


def curve_rows(reports: Sequence[LossReport]) -> Iterable[Sequence[CsvValue]]:
    """Rows of curves.csv: loss, positives or negatives, fraction of the samples, their fraction of the loss."""
    for report in reports:
        for kind, (curve, _) in report.distributions.items():
            for fraction, cumulative in zip(curve.fraction_M.tolist(), curve.cumulative_M.tolist()):
                yield report.name, kind, f"{fraction:.9g}", f"{cumulative:.9g}"


def share_rows(names: Sequence[str], breakdowns: Iterable[Breakdown]) -> Iterable[Sequence[CsvValue]]:
    """Rows of shares.csv: for each loss, `of` and `by`, both shares sum to 1."""
    for breakdown in breakdowns:
        anchor_shares = breakdown.anchor_shares_G().tolist()
        for name, shares in zip(names, breakdown.shares_SG().tolist(), strict=True):
            groups = zip(breakdown.names, breakdown.anchors_G.tolist(), anchor_shares, shares, strict=True)
            for group, anchors, anchor_share, share in groups:
                yield name, breakdown.of, breakdown.by, group, anchors, f"{anchor_share:.9g}", f"{share:.9g}"


def loss_summary(report: LossReport) -> dict[str, Any]:
    """The entry of one loss in summary.json; the keys of `hardest` are fractions of the samples."""
    spreads = {
        kind: spread._asdict() | {"hardest": {f"{part:g}": s for part, s in zip(HARDEST_FRACTIONS, spread.hardest)}}
        for kind, (_, spread) in report.distributions.items()
    }
    options = report.options.model_dump(mode="json")
    return {"name": report.name, "options": options, "positives_share": report.positives_share, **spreads}


def summary_table(reports: Sequence[LossReport]) -> Table:
    """The main numbers of the picture."""
    title = "Share of the loss that the hardest anchors carry"
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("\nloss", no_wrap=True)
    for fraction in ("pos.\n20 %", "neg.\n20 %", "neg.\n1 %", "neg.\n0.1 %"):
        table.add_column(fraction, justify="right", no_wrap=True)
    for column in ("half of\nneg. in", "effective\nneg.", "pos. of\nall"):
        table.add_column(column, justify="right", no_wrap=True)
    for report in reports:
        positives, negatives = (report.distributions[kind].spread for kind in KINDS)
        table.add_row(
            report.name,
            f"{positives.hardest[-1]:.1%}",
            *(f"{share:.1%}" for share in reversed(negatives.hardest)),
            f"{100 * negatives.half:.2g} %",
            f"{negatives.effective:,.0f}",
            f"{report.positives_share:.1%}",
        )
    return table
