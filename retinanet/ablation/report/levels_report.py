"""The report of a study with levels, thresholds or a primary comparison: what they add, then each level's own tables.

report.md, report.html and the folder report/, with a folder for each level.
"""

from collections.abc import Sequence
from pathlib import Path

from retinanet.ablation.arms import slug_of
from retinanet.ablation.forecast import StudyForecast, read_plan
from retinanet.ablation.report.collect import StudyResult
from retinanet.ablation.report.imbalance_plot import draw_imbalance
from retinanet.ablation.report.levels import (
    FLAT_POINTS,
    LAST_PART,
    ArmDifference,
    LevelData,
    PrimaryResult,
    arm_differences,
    curve_ends,
    gather_level,
    primary_results,
)
from retinanet.ablation.report.numbers import write_study_numbers
from retinanet.ablation.report.report import (
    PICTURES,
    detail_blocks,
    fairness_blocks,
    learned_nothing,
    result_blocks,
    study_findings,
)
from retinanet.ablation.report.same_images import build_grid
from retinanet.ablation.report.statistics import ArmVerdict
from retinanet.ablation.report.tables import NOTHING_LEARNED, difference_blocks
from retinanet.display.document.blocks import Block, Heading, Listing, Panels, Paragraph, Table, TableRow
from retinanet.display.document.html import render_html
from retinanet.display.document.markdown import render_markdown
from retinanet.display.numbers import NOTHING, p_text, points, signed_points
from retinanet.files import CsvValue, make_folder, write_csv, write_text

VERDICTS = {
    ArmVerdict.BETTER: "is better than",
    ArmVerdict.WORSE: "is worse than",
    ArmVerdict.SEEDS_DOUBT: "cannot be distinguished over seeds from",
    ArmVerdict.SAME: "cannot be distinguished from",
    ArmVerdict.NOT_MEASURED: "is not measured against",
}

PRIMARY_COLUMNS = (
    "level",
    "arm",
    "reference",
    "difference",
    "low",
    "high",
    "p_images",
    "p_images_and_seeds",
    "verdict",
)
"""Of primary.csv: AP of 0..1, intervals of 95 % over images and seeds, p-values with Holm's correction."""


def write_levels_report(results: Sequence[StudyResult], folder: Path, warnings: Sequence[str] = ()) -> None:
    """As `write_study_report`, of the parts of a study. warnings: `plan_warnings` of the whole study."""
    levels = [gather_level(result) for result in results]
    pictures = folder / PICTURES
    make_folder(pictures)
    differences = arm_differences(levels)
    plan = read_plan(folder)
    blocks = [
        *_summary_blocks(levels, warnings),
        *_primary_blocks(primary_results(levels), plan),
        *_imbalance_blocks(levels, differences, pictures),
        *_curve_blocks(levels),
        *_how_blocks(levels),
    ]
    for level in levels:
        own = pictures / slug_of(level.result.level) if level.result.level else pictures
        make_folder(own)
        grid = build_grid(level.main())
        write_study_numbers(level.main(), grid, own)
        parts = [*result_blocks(level.main(), own), *detail_blocks(level.main(), grid, own)]
        blocks += [Heading(f"Level {level.result.level}")] if level.result.level else []
        blocks += [_below(block) if level.result.level else block for block in parts]
    blocks += [Heading("Settings"), *_level_settings(levels), *difference_blocks(levels[0].main())]
    header = ("level", "arm", "threshold", "anchors_per_positive", "difference", "low", "high")
    write_csv(pictures / "imbalance.csv", header, [tuple("" if v is None else v for v in one) for one in differences])
    write_csv(pictures / "primary.csv", PRIMARY_COLUMNS, _primary_rows(primary_results(levels)))
    title = results[0].title
    write_text(folder / "report.md", render_markdown(title, blocks, folder))
    write_text(folder / "report.html", render_html(title, blocks))


def primary_sentence(found: PrimaryResult) -> str:
    """The verdict of the primary comparison at one level, in words."""
    result = found.level.result
    assert result.primary is not None
    where = f"Level {result.level}" if result.level else "Primary comparison"
    if (nothing := learned_nothing(found.level.main())) is not None:
        return f"{where}: {nothing}"
    arm, reference, one = result.primary.arm, result.reference, found.comparison
    if one is None:
        return f"{where}: {arm} has not been compared with {reference} yet."
    interval = f"[{signed_points(one.seeds_low)}, {signed_points(one.seeds_high)}]"
    return (
        f"{where}: {arm} {VERDICTS[one.verdict]} {reference}: {signed_points(one.difference)} AP {interval} over "
        f"images and seeds, p {p_text(one.seeds_p_holm)}; {one.seeds_agree} seeds agree in sign."
    )


def _summary_blocks(levels: Sequence[LevelData], warnings: Sequence[str]) -> list[Block]:
    result = levels[0].result
    blocks: list[Block] = [Paragraph(result.note)] if result.note else []
    found = primary_results(levels)
    sentences = [primary_sentence(one) for one in found]
    for level in levels:
        prefix = f"Secondary, level {level.result.level}: " if level.result.level else "Secondary: "
        if not found or learned_nothing(level.main()) is None:  # the primary comparison has reported it
            sentences += [prefix + text for text in study_findings(level.main())]
    rows = []
    for level in levels:
        main, imbalance = level.main(), level.imbalance
        cells = [cell for cell in level.result.cells if not cell.tuning]
        done = sum(cell.record.status == "done" for cell in cells)
        diverged = sum(cell.record.status == "diverged" for cell in cells)
        steps = {cell.record.steps for cell in cells if cell.record.status == "done"}
        ratio = f"1 : {imbalance.ratio():,.0f} : {imbalance.logits / imbalance.positives:,.0f}"
        texts = (
            level.result.level or "the only one",
            ratio if imbalance.positives > 0 else NOTHING,
            f"{done + diverged} of {len(cells)}" + (f", {diverged} diverged" if diverged else ""),
            ", ".join(f"{count:,}" for count in sorted(steps)) or NOTHING,
            f"{len(main.ground_truth['images']):,}",
            f"{len(main.ground_truth['annotations']):,}",
        )
        rows.append(TableRow(texts))
    header = ("level", "positives : anchors : logits", "trainings", "steps", "test images", "test objects")
    blocks += [Listing(tuple(sentences)), Table("Levels, as measured in training", header, tuple(rows))]
    caveats = [*warnings, *(text for level in levels for text in level.result.guards)]
    for level in levels:
        prefix = f"level {level.result.level}: " if level.result.level else ""
        caveats += [f"{prefix}{text}" for text in level.main().remarks]
    unique = tuple(dict.fromkeys(caveats))
    return [*blocks, Heading("Caveats", 3), Listing(unique)] if unique else blocks


def _primary_blocks(found: Sequence[PrimaryResult], plan: Sequence[StudyForecast]) -> list[Block]:
    if not found:
        return []
    primary = found[0].level.result.primary
    assert primary is not None
    rows = []
    for one in found:
        comparison, result = one.comparison, one.level.result
        forecast = next((known for known in plan if known.level == result.level), None)
        planned = NOTHING if forecast is None else points(forecast.width)
        if comparison is None:
            rows.append(TableRow((result.level, *[NOTHING] * 4, planned, ArmVerdict.NOT_MEASURED)))
            continue
        wider = f"{signed_points(comparison.difference)} [{signed_points(comparison.seeds_low)}, "
        texts = (
            result.level or "the only one",
            f"{wider}{signed_points(comparison.seeds_high)}]",
            p_text(comparison.p_holm),
            p_text(comparison.seeds_p_holm),
            points(comparison.seeds_high - comparison.seeds_low),
            planned,
            comparison.verdict if learned_nothing(one.level.main()) is None else NOTHING_LEARNED,
        )
        rows.append(TableRow(texts))
    header = ("level", "Δ AP [95 %, images and seeds]", "p, images", "p, seeds too", "width", "planned", "verdict")
    title = f"{primary.arm} minus {primary.against}" + _threshold_text(found[0].level)
    return [
        Heading("Primary comparison"),
        Paragraph(
            f"Named in the study's file before it ran: {primary.arm} against {primary.against}. P-values have Holm's "
            f"correction over {len(found)} level{'s' * (len(found) > 1)}; those of the other comparisons, which are "
            "secondary, over the arms of a level. Width: of the interval, in AP points; planned: as --plan predicted."
        ),
        Table(title, header, tuple(rows), (0, 6)),
    ]


def _primary_rows(found: Sequence[PrimaryResult]) -> list[tuple[CsvValue, ...]]:
    """The rows of primary.csv."""
    return [
        (
            one.level.result.level,
            c.arm,
            c.reference,
            c.difference,
            c.seeds_low,
            c.seeds_high,
            c.p_holm,
            c.seeds_p_holm,
            c.verdict.value,
        )
        for one in found
        if (c := one.comparison) is not None
    ]


def _threshold_text(level: LevelData) -> str:
    threshold = level.main().threshold
    return "" if threshold is None else f", at score threshold {threshold:g}"


def _imbalance_blocks(levels: Sequence[LevelData], differences: Sequence[ArmDifference], pictures: Path) -> list[Block]:
    reference = levels[0].result.reference
    blocks: list[Block] = [Heading("Differences over imbalance and score threshold")]
    if len(levels) > 1 and differences:
        blocks.append(
            Panels(
                draw_imbalance(levels, differences, pictures),
                "AP of every arm minus that of the reference against the number of anchors for each positive one",
                f"AP minus that of {reference}, against positive : all anchors (measured in training, logarithmic). "
                "All intervals of the figure hold together with 95 % (the largest deviation over the bootstrap of "
                "images and Student's t of seeds).",
            )
        )
    known = {(one.level, one.arm, one.threshold): one for one in differences}
    columns = [(level, data) for level in levels for data in level.at]
    header = [
        f"{level.result.level} {'' if data.threshold is None else f'at {data.threshold:g}'}".strip() or "Δ AP"
        for level, data in columns
    ]
    names = [arm.info.name for arm in levels[0].main().arms]
    rows = []
    for name in names:
        texts = [name]
        for level, data in columns:
            one = known.get((level.result.level, name, data.threshold))
            mean = next(points(arm.mean()) for arm in data.arms if arm.info.name == name)
            change = "" if one is None else f", {signed_points(one.difference)} "
            if one is not None:
                change += f"[{signed_points(one.low)}, {signed_points(one.high)}]"
            texts.append(f"{mean}{change}")
        rows.append(TableRow(tuple(texts), "reference" if name == reference else ""))
    title = f"AP, and its difference to {reference} with simultaneous 95 % intervals"
    return [*blocks, Table(title, ("arm", *header), tuple(rows))]


def _curve_blocks(levels: Sequence[LevelData]) -> list[Block]:
    ends = [end for level in levels for end in curve_ends(level)]
    rising = [f"{end.level} {end.arm}".strip() for end in ends if not end.is_flat()]
    found = (
        f"Not flat, so longer training could change the comparison: {', '.join(rising)}."
        if rising
        else "All learning curves are flat at their end."
    )
    named = any(end.level for end in ends)
    rows = [
        TableRow(
            (
                *([end.level] if named else []),
                end.arm,
                points(end.last / 100),
                signed_points(end.change / 100),
                "yes" if end.is_flat() else "no",
            )
        )
        for end in ends
    ]
    header = (*(["level"] if named else []), "arm", "AP val at the end", "change over the last quarter", "flat")
    left = (0, 1, 4) if named else (0, 3)
    return [
        Heading("Are the learning curves flat?"),
        Paragraph(
            f"Rule: the mean validation AP of an arm's finished seeds changes by less than {FLAT_POINTS:g} point over "
            f"the last {LAST_PART:.0%} of the steps, by a straight line through its evaluations there. A schedule that "
            f"ends at a learning rate of 0 flattens every curve, so a flat one is no proof of convergence. {found}"
        ),
        Table("The end of the learning curves", header, tuple(rows), left),
    ]


def _how_blocks(levels: Sequence[LevelData]) -> list[Block]:
    """How the comparison was made, with the learning rates of every level."""
    data = levels[0].main()
    text = data.result.lr_rule_text
    if data.result.rates_text:
        rule = text.partition(" Selected: ")[0]
        found = [(level.result.level, level.result.rates_text) for level in levels]
        rates = "; ".join(f"{level}: {text}" if level else text for level, text in found)
        text = f"{rule} Selected: {rates}. Test numbers are of the final weights."
    machines = "; ".join(dict.fromkeys(level.result.machine for level in levels))
    return fairness_blocks(data._replace(result=data.result._replace(lr_rule_text=text, machine=machines)))


def _level_settings(levels: Sequence[LevelData]) -> list[Block]:
    rows = [
        TableRow((level.result.level if place == 0 else "", line))
        for level in levels
        for place, line in enumerate(level.result.level_text or ("none",))
    ]
    named = any(level.result.level for level in levels)
    return [Table("Settings of each level", ("level", "setting"), tuple(rows), (0, 1))] if named else []


def _below(block: Block) -> Block:
    """A heading one level lower; other blocks as they are."""
    return block._replace(level=block.level + 1) if isinstance(block, Heading) else block
