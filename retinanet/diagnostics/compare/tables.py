"""Sentences and tables of a comparison, for the terminal and the report. AP is in points from 0 to 100."""

import math
from collections.abc import Sequence

from retinanet.diagnostics.compare.differences import (
    DIFFERENT,
    MAIN_METRIC,
    NO_VERDICT,
    NOT_MEASURED,
    TOO_FEW,
    DetectorComparison,
    MetricDifference,
    minimum_p,
)
from retinanet.diagnostics.compare.images import ImageDifference
from retinanet.display.document.blocks import Table, TableRow
from retinanet.display.numbers import NOTHING, p_text, points, signed_points
from retinanet.scoring.intervals import FEWEST_IMAGES, SIGNIFICANCE, fewest_resamples

READING = (
    "The main comparison is AP over all classes. APs, APm and APl are one family for Holm's correction, the classes "
    "are another; the other metrics are shown without a verdict, whatever their interval."
)
"""How to read the tables."""
HEADER = ("A", "B", "B − A", "95 % interval")


def difference_text(difference: float) -> str:
    """A difference of metrics as points with its sign and two decimals."""
    return signed_points(difference, decimals=2)


def interval_text(found: MetricDifference) -> str:
    """The interval as "−0.20 to +1.30"."""
    return NOTHING if math.isnan(found.low) else f"{difference_text(found.low)} to {difference_text(found.high)}"


def p_value_text(p: float) -> str:
    """A p-value as "p = 0.012" or "p < 0.001"."""
    text = p_text(p)
    return f"p {text.replace('<', '< ')}" if text.startswith("<") else f"p = {text}"


def describe_verdict(comparison: DetectorComparison) -> str:
    """The conclusion about the two detectors in the main metric, in a sentence or two."""
    main = comparison.main
    if main.verdict == NOT_MEASURED:
        return "Nothing can be measured: the ground truth has no objects (apart from crowd regions)."
    difference = difference_text(main.difference)
    if main.verdict == TOO_FEW:
        return (
            f"Too few images: only {main.images} have objects, and no test can distinguish two detectors on fewer than "
            f"{FEWEST_IMAGES}. B − A is {difference} points of {MAIN_METRIC} on them."
        )
    numbers = f"B − A is {difference} points, 95 % interval {interval_text(main)}, {p_value_text(main.p)}"
    if main.verdict == DIFFERENT:
        word = "better" if main.difference > 0 else "worse"
        return f"Distinguishable: B is {word} than A in {MAIN_METRIC} ({numbers})."
    return f"Not distinguishable in {MAIN_METRIC} ({numbers}): {why_undecided(main)}."


def why_undecided(found: MetricDifference) -> str:
    """Why a difference is not distinguishable, according to its interval and p-value."""
    if found.low == found.difference == found.high == 0:
        return "almost all resamples of the images give a difference of 0"
    if not found.low <= found.difference <= found.high:
        return "the resamples disagree with the data set itself, so neither can be said to be better"
    if found.low > 0 or found.high < 0:
        return (
            f"a borderline case, since the interval excludes 0 but p is not below {SIGNIFICANCE:g}; more --resamples "
            "make both more precise, and more images would decide"
        )
    if found.low < 0 < found.high:
        return "on other images, either could be better"
    return "on other images, they could be equal"


def describe_scope(comparison: DetectorComparison) -> str:
    """What the verdict is about, and what it is not about."""
    return (
        f"This applies to these two trained detectors on images like these {comparison.images:,}. It does not cover "
        "the variation between trainings with different seeds; compare several trainings of each for that."
    )


def class_findings(comparison: DetectorComparison) -> list[str]:
    """The distinguishable classes, one sentence per direction, or why there are none."""
    compared = [found for found in comparison.classes if found.verdict not in (NOT_MEASURED, TOO_FEW)]
    rare = sum(found.verdict == TOO_FEW for found in comparison.classes)
    sentences = []
    if rare:
        sentences.append(
            f"{rare} of {len(comparison.classes)} classes have objects in fewer than {FEWEST_IMAGES} images, too few "
            f"for a verdict; in {MAIN_METRIC}, each still has the same weight as any other class."
        )
    if not compared:
        return sentences
    for word, sign in (("better", 1), ("worse", -1)):
        names = [
            f"{found.name} ({difference_text(found.difference)})"
            for found in sorted(compared, key=lambda found: -abs(found.difference))
            if found.verdict == DIFFERENT and sign * found.difference > 0
        ]
        if names:
            more = f" and {len(names) - 12} more" if len(names) > 12 else ""
            sentences.append(f"B is {word} in {len(names)} of {len(compared)} classes: {', '.join(names[:12])}{more}.")
    if not any(found.verdict == DIFFERENT for found in compared):
        sentences.append(why_no_class(compared, comparison.resamples))
    return sentences


def why_no_class(compared: Sequence[MetricDifference], resamples: int) -> str:
    """That no class is distinguishable, or that none could be, and what would be needed."""
    needed = fewest_resamples(len(compared))
    if resamples < needed:
        return (
            f"With {resamples:,} resamples no class of {len(compared)} can reach p {SIGNIFICANCE:g} after Holm's "
            f"correction, however large its difference: use --resamples {needed} or more."
        )
    most = max(found.images for found in compared)
    if len(compared) * minimum_p(most) >= SIGNIFICANCE:
        return (
            f"No class of {len(compared)} has objects in enough images to reach p {SIGNIFICANCE:g} after Holm's "
            f"correction, however large its difference: the maximum is {most} images."
        )
    return f"No single class of {len(compared)} is distinguishable after Holm's correction."


def overall_table(comparison: DetectorComparison) -> Table:
    """The metrics over all sizes."""
    rows = [_row(found, (p_text(found.p), found.verdict)) for found in comparison.overall]
    return Table(title="All classes", header=("metric", *HEADER, "p", "verdict"), rows=tuple(rows), left_columns=(0, 6))


def sizes_table(comparison: DetectorComparison) -> Table:
    """AP and AR by object size."""
    rows = [_row(found, (p_text(found.p), p_text(found.p_holm), found.verdict)) for found in comparison.sizes]
    return Table(
        title="By object size",
        header=("metric", *HEADER, "p", "p (Holm)", "verdict"),
        rows=tuple(rows),
        left_columns=(0, 7),
    )


def classes_table(comparison: DetectorComparison, chosen: Sequence[MetricDifference]) -> Table:
    """AP of the chosen classes, in the given order."""
    objects = dict(zip((found.name for found in comparison.classes), comparison.objects_K, strict=True))
    rows = []
    for found in chosen:
        counts = (f"{objects[found.name]:,}", f"{found.images:,}")
        rows.append(_row(found, (p_text(found.p), p_text(found.p_holm), found.verdict, *counts)))
    header = ("class", *HEADER, "p", "p (Holm)", "verdict", "objects", "in images")
    return Table(title="AP by class", header=header, rows=tuple(rows), left_columns=(0, 7))


def image_differences_table(rows: Sequence[ImageDifference]) -> Table:
    """Images with the counts of both detectors."""
    cells = [
        TableRow((row.name, *map(str, (*row.first, *row.second)), f"{row.gain:+d}".replace("-", "−"))) for row in rows
    ]
    counts = ("right", "false", "missed")
    header = ("image", *(f"A {count}" for count in counts), *(f"B {count}" for count in counts), "errors fewer in B")
    return Table(title="Images on which they differ most", header=header, rows=tuple(cells))


def _row(found: MetricDifference, last: tuple[str, ...]) -> TableRow:
    numbers = (points(found.first), points(found.second), difference_text(found.difference), interval_text(found))
    return TableRow((found.name, *numbers, *(cell or NO_VERDICT for cell in last)))
