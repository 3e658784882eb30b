"""A report as tables for a terminal."""

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from benchmarks.report import Breakdown, GroupTime, PartReport, Ratio, Report, Spread, Timing

PIPED_WIDTH = 160
"""Columns if the output is no terminal."""

LEFT = ("contestant", "precision", "ours", "against", "not the same either", "a step's time")
"""Columns that are aligned left."""

Row = dict[str, str | Text | None]
"""Column -> cell; None: nothing to show."""


def show(report: Report) -> None:
    """Print a report on stdout."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, PIPED_WIDTH))
    console.print(report_tables(report))


def report_tables(report: Report) -> RenderableType:
    """The machine, then each part's contestants and comparisons."""
    return Group(_heading(report), *(block for part in report.parts for block in ("", *_part(part))))


def _heading(report: Report) -> Text:
    machine, peaks = report.machine, report.peaks
    gpu = f", {machine.gpu}" if machine.gpu else ""
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    products = "".join(f"{name} {spread.most / 1e9:,.0f} GFLOP/s, " for name, spread in peaks.flops.items())
    lines = (
        f"{machine.processor}, {machine.cores} cores, {machine.threads} threads, {machine.memory_gb:g} GiB{gpu}",
        f"{machine.system}; {versions}",
        f"measured peaks: {products}copy {peaks.bytes.most / 1e9:,.1f} GB/s "
        f"(products of {peaks.side} x {peaks.side}, {peaks.copied_mb} MB copied, read and written both counted)",
    )
    return Text("\n".join(lines))


def _part(part: PartReport) -> list[RenderableType]:
    text = Text.assemble((part.part, "bold"), "  ", part.what)
    if part.checked:
        text.append(f"\nChecked first: {part.checked}.")
    if part.not_same:
        text.append(f"\nNot the same: {part.not_same}")
    for timing in part.contestants:
        if timing.failure:
            text.append(f"\n{timing.name} failed: {timing.failure}")
    blocks: list[RenderableType] = [text, _table([_contestant(timing, part) for timing in part.contestants])]
    if part.ratios:
        blocks.append(_table([_ratio(ratio) for ratio in part.ratios]))
    for breakdown in part.breakdowns:
        unprofiled = next(timing.seconds for timing in part.contestants if timing.name == breakdown.name)
        blocks += [_profiled(breakdown, unprofiled), _table([_group(group) for group in breakdown.groups])]
    return blocks


def _table(rows: Sequence[Row]) -> Table:
    """A table of the columns in which any row has something to show."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="")
    columns = [column for column in rows[0] if any(row[column] for row in rows)]
    for column in columns:
        table.add_column(column, justify="left" if column in LEFT else "right", no_wrap="not the same" not in column)
    for row in rows:
        table.add_row(*(row[column] or "-" for column in columns))
    return table


def _contestant(timing: Timing, part: PartReport) -> Row:
    seconds, speed, memory = timing.seconds, timing.items_per_second, timing.memory_mb
    share = {"operations": "of the product's peak", "bytes": "of the copy's peak", None: "of the peak"}[part.work]
    met = seconds is not None and timing.most_seconds is not None and seconds.median <= timing.most_seconds
    return {
        "contestant": Text(timing.name, style="bold" if timing.ours else ""),
        "precision": timing.precision,
        "median": format_time(seconds.median) if seconds else None,
        "quartiles": " .. ".join(format_time(quartile) for quartile in seconds.quartiles) if seconds else None,
        "fastest": format_time(seconds.least) if seconds else None,
        "images/s": f"{speed:,.{1 if speed < 1000 else 0}f}" if speed else None,
        share: None if timing.share_of_peak is None else f"{timing.share_of_peak:.0%}",
        "extra memory MB" if part.memory == "extra" else "memory MB": None if memory is None else f"{memory:,.0f}",
        "goal": _verdict(f"<= {format_time(timing.most_seconds)}", met) if timing.most_seconds and seconds else None,
    }


def _ratio(ratio: Ratio) -> Row:
    goal, most, memory = ratio.at_least, ratio.memory_at_most, ratio.memory
    return {
        "ours": ratio.ours,
        "against": ratio.peer,
        "times as fast": Text(f"{ratio.time.median:.2f}", style="bold"),
        "quartiles": " .. ".join(f"{quartile:.2f}" for quartile in ratio.time.quartiles),
        "goal": None if goal is None else _verdict(f"{goal:g}", ratio.time.median >= goal),
        "memory, ours / peer": None if memory is None else f"{memory:.2f}",
        "memory goal": None if most is None or memory is None else _verdict(f"<= {most:g}", memory <= most),
        "not the same either": ratio.not_same or None,
    }


def _profiled(breakdown: Breakdown, unprofiled: Spread | None) -> Text:
    """Duration of the profiled steps and of the others, so that the reader sees what the profiler adds."""
    text = f"  {breakdown.steps} steps with the profiler, {format_time(breakdown.seconds)} each"
    if breakdown.clock == "cuda":
        text += f", of which the GPU works {format_time(sum(group.seconds for group in breakdown.groups))}"
    text += f"; without it {format_time(unprofiled.median)}" if unprofiled else ""
    return Text.assemble((breakdown.name, "bold"), text)


def _group(group: GroupTime) -> Row:
    return {
        "a step's time": group.group,
        "ms": f"{group.seconds * 1e3:,.2f}",
        "share": f"{group.share:.1%}",
        "GFLOP/s": f"{group.flops / group.seconds / 1e9:,.0f}" if group.flops else None,
        "of the product's peak": None if group.share_of_peak is None else f"{group.share_of_peak:.0%}",
    }


def _verdict(goal: str, met: bool) -> Text:
    """The goal in green or red."""
    return Text(f"{goal} {'met' if met else 'missed'}", style="green" if met else "red")


def format_time(seconds: float) -> str:
    """Three significant digits in s, ms or us."""
    unit, scale = ("s", 1.0) if seconds >= 1 else ("ms", 1e3) if seconds >= 1e-3 else ("us", 1e6)
    value = seconds * scale
    digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:,.{digits}f} {unit}"
