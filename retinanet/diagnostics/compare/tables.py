"""The words and tables of a comparison, for the terminal and the report alike. AP is in points from 0 to 100."""

import math
from collections.abc import Sequence

from retinanet.diagnostics.compare.differences import (
    DIFFERENT,
    FEWEST_IMAGES,
    MAIN_METRIC,
    NO_VERDICT,
    NOT_MEASURED,
    TOO_FEW,
    Comparison,
    Difference,
    least_p,
)
from retinanet.diagnostics.compare.images import ImageDifference
from retinanet.display.document.blocks import Table, TableRow
from retinanet.scoring.intervals import SIGNIFICANCE, fewest_resamples

NOTHING = "–"
READING = (
    "AP over all classes is the one question asked. APs, APm and APl are one family for Holm's correction, all classes "
    "are another; the other metrics are shown without a verdict, whatever their interval."
)
"""How the tables are to be read."""
HEADER = ("A", "B", "B − A", "95 % interval")


def points(value: float) -> str:
    """A metric from 0 to 1 as points; a dash for NaN."""
    return NOTHING if math.isnan(value) else f"{100 * value:.1f}"


def signed(value: float) -> str:
    """A difference of metrics as points with its sign."""
    return NOTHING if math.isnan(value) else f"{100 * value:+.2f}".replace("-", "−")


def p_text(p: float) -> str:
    """A p-value to three decimals; what is less is said to be less."""
    return NOTHING if math.isnan(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def interval(found: Difference) -> str:
    """The interval as "−0.2 to +1.3"."""
    return NOTHING if math.isnan(found.low) else f"{signed(found.low)} to {signed(found.high)}"


def verdict(comparison: Comparison) -> str:
    """What may be said of the two in the main metric, in a sentence or two."""
    main = comparison.main
    if main.verdict == NOT_MEASURED:
        return "Nothing can be measured: the ground truth has no objects (apart from crowd regions)."
    if main.verdict == TOO_FEW:
        return (
            f"Too few images: only {main.images} have objects, and no test can tell two detectors apart on fewer than "
            f"{FEWEST_IMAGES}. B − A is {signed(main.difference)} points of {MAIN_METRIC} on them."
        )
    numbers = f"B − A is {signed(main.difference)} points, 95 % interval {interval(main)}, p {p_text(main.p)}"
    if main.verdict == DIFFERENT:
        word = "better" if main.difference > 0 else "worse"
        return f"Distinguishable: B is {word} than A in {MAIN_METRIC} ({numbers})."
    return f"Not distinguishable in {MAIN_METRIC} ({numbers}): {why_undecided(main)}."


def why_undecided(found: Difference) -> str:
    """What follows of a difference that is not distinguishable, as its interval and p have it."""
    if found.low == found.difference == found.high == 0:
        return "hardly a resample of the images differs from 0"
    if not found.low <= found.difference <= found.high:
        return "the resamples disagree with the images as they are, so neither can be said to be ahead"
    if found.low > 0 or found.high < 0:
        return (
            f"a borderline case, since the interval leaves out 0 but p is not below {SIGNIFICANCE:g}; more --resamples "
            "make both more exact, and more images decide"
        )
    if found.low < 0 < found.high:
        return "with other images, either could be ahead"
    return "with other images, they could be level"


def scope(comparison: Comparison) -> str:
    """What the verdict speaks of, and what it does not."""
    return (
        f"This speaks of these two trained detectors on images like these {comparison.images:,}. How another training "
        "of either would do, with another seed, it does not say; compare several trainings of each for that."
    )


def class_findings(comparison: Comparison) -> list[str]:
    """Which classes are distinguishable, a sentence for each direction."""
    compared = [found for found in comparison.classes if found.verdict not in (NOT_MEASURED, TOO_FEW)]
    rare = sum(found.verdict == TOO_FEW for found in comparison.classes)
    sentences = []
    if rare:
        sentences.append(
            f"{rare} of {len(comparison.classes)} classes have objects in fewer than {FEWEST_IMAGES} images, too few "
            f"to judge; each still weighs as much in {MAIN_METRIC} as any other class."
        )
    if not compared:
        return sentences
    for word, sign in (("better", 1), ("worse", -1)):
        names = [
            f"{found.name} ({signed(found.difference)})"
            for found in sorted(compared, key=lambda found: -abs(found.difference))
            if found.verdict == DIFFERENT and sign * found.difference > 0
        ]
        if names:
            more = f" and {len(names) - 12} more" if len(names) > 12 else ""
            sentences.append(f"B is {word} in {len(names)} of {len(compared)} classes: {', '.join(names[:12])}{more}.")
    if not any(found.verdict == DIFFERENT for found in compared):
        sentences.append(why_no_class(compared, comparison.resamples))
    return sentences


def why_no_class(compared: Sequence[Difference], resamples: int) -> str:
    """That no class is distinguishable, or that none could have been, and what it would take."""
    needed = fewest_resamples(len(compared))
    if resamples < needed:
        return (
            f"With {resamples:,} resamples no class of {len(compared)} can reach p {SIGNIFICANCE:g} after Holm's "
            f"correction, however clear it is: use --resamples {needed} or more."
        )
    most = max(found.images for found in compared)
    if len(compared) * least_p(most) >= SIGNIFICANCE:
        return (
            f"No class of {len(compared)} has objects in enough images to reach p {SIGNIFICANCE:g} after Holm's "
            f"correction, however clear it is: the most are {most} images."
        )
    return f"No single class of {len(compared)} is distinguishable after Holm's correction."


def overall_table(comparison: Comparison) -> Table:
    rows = [_row(found, (p_text(found.p), found.verdict)) for found in comparison.overall]
    return Table("All classes", ("metric", *HEADER, "p", "verdict"), tuple(rows), (0, 6))


def sizes_table(comparison: Comparison) -> Table:
    rows = [_row(found, (p_text(found.p), p_text(found.p_holm), found.verdict)) for found in comparison.sizes]
    return Table("By object size", ("metric", *HEADER, "p", "p (Holm)", "verdict"), tuple(rows), (0, 7))


def classes_table(comparison: Comparison, chosen: Sequence[Difference]) -> Table:
    """AP of the chosen classes."""
    objects = dict(zip((found.name for found in comparison.classes), comparison.objects_K, strict=True))
    rows = []
    for found in chosen:
        counts = (f"{objects[found.name]:,}", f"{found.images:,}")
        rows.append(_row(found, (p_text(found.p), p_text(found.p_holm), found.verdict, *counts)))
    header = ("class", *HEADER, "p", "p (Holm)", "verdict", "objects", "in images")
    return Table("AP by class", header, tuple(rows), (0, 7))


def images_table(rows: Sequence[ImageDifference]) -> Table:
    """Images with the counts of both detectors."""
    cells = [
        TableRow((row.name, *map(str, (*row.first, *row.second)), f"{row.gain:+d}".replace("-", "−"))) for row in rows
    ]
    counts = ("right", "false", "missed")
    header = ("image", *(f"A {count}" for count in counts), *(f"B {count}" for count in counts), "errors fewer in B")
    return Table("Images on which they differ most", header, tuple(cells))


def _row(found: Difference, last: tuple[str, ...]) -> TableRow:
    numbers = (points(found.first), points(found.second), signed(found.difference), interval(found))
    return TableRow((found.name, *numbers, *(cell or NO_VERDICT for cell in last)))
