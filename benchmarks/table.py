"""A report as tables for a terminal."""

from rich.box import SIMPLE_HEAD
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from benchmarks.breakdown import Breakdown
from benchmarks.report import PartReport, Ratio, Report, Timing
from benchmarks.spread import Spread

ABSENT = "-"
PIPED_WIDTH = 160
"""Columns where no terminal says how many it has."""


def show(report: Report) -> None:
    """Print a report on stdout."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, PIPED_WIDTH))
    console.print(report_tables(report))


def report_tables(report: Report) -> RenderableType:
    """The machine, then each part's contestants and comparisons."""
    return Group(_heading(report), *(block for part in report.parts for block in ("", *_part(part))))


def _heading(report: Report) -> RenderableType:
    machine, peaks = report.machine, report.peaks
    gpu = f", {machine.gpu}" if machine.gpu else ""
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    products = ", ".join(f"{name} {spread.most / 1e9:,.0f} GFLOP/s" for name, spread in peaks.flops.items())
    lines = (
        f"{machine.processor}, {machine.cores} cores, {machine.threads} threads, {machine.memory_gb:g} GiB{gpu}",
        f"{machine.system}; {versions}",
        f"measured peaks: {products + '; ' if products else ''}copy {peaks.bytes.most / 1e9:,.1f} GB/s "
        f"(products of {peaks.side} x {peaks.side}, {peaks.copied_mb} MB copied, read and written both counted)",
    )
    return Text("\n".join(lines))


def _part(part: PartReport) -> tuple[RenderableType, ...]:
    text = Text.assemble((part.part, "bold"), "  ", part.what)
    if part.checked:
        text.append(f"\nChecked first: {part.checked}.")
    if part.not_same:
        text.append(f"\nNot the same: {part.not_same}")
    blocks: list[RenderableType] = [text, _contestants(part)]
    if part.ratios:
        blocks.append(_ratios(part.ratios))
    for breakdown in part.breakdowns:
        without = next(timing.seconds for timing in part.contestants if timing.name == breakdown.name)
        blocks += [_profiled(breakdown, without), _groups(breakdown)]
    return tuple(blocks)


def _contestants(part: PartReport) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="")
    table.add_column("contestant", no_wrap=True)
    table.add_column("precision")
    for title in ("median", "quartiles", "fastest"):
        table.add_column(title, justify="right", no_wrap=True)
    share = {"operations": "of the product's peak", "bytes": "of the copy's peak", None: ""}[part.work]
    memory = {"whole": "memory MB", "extra": "extra memory MB", None: ""}[part.memory]
    if all(timing.memory_mb is None for timing in part.contestants):
        memory = ""
    speed = any(timing.items_per_second for timing in part.contestants)
    goal = any(timing.most_seconds for timing in part.contestants)
    for title in ("images/s" if speed else "", share, memory, "goal" if goal else ""):
        if title:
            table.add_column(title, justify="right")
    for timing in part.contestants:
        cells = _times(timing)
        if speed:
            cells.append(_number(timing.items_per_second))
        if share:
            cells.append(ABSENT if timing.share_of_peak is None else f"{timing.share_of_peak:.0%}")
        if memory:
            cells.append(ABSENT if timing.memory_mb is None else f"{timing.memory_mb:,.0f}")
        if goal:
            cells.append(_time_goal(timing))
        table.add_row(Text(timing.name, style="bold" if timing.ours else ""), timing.precision, *cells)
    return table


def _times(timing: Timing) -> list[RenderableType]:
    if timing.seconds is None:
        return [Text(f"failed: {timing.failure}", overflow="fold", no_wrap=False), "", ""]
    low, high = timing.seconds.quartiles
    least = timing.seconds.least
    return [format_time(timing.seconds.median), f"{format_time(low)} .. {format_time(high)}", format_time(least)]


def _ratios(ratios: tuple[Ratio, ...]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="")
    for title in ("ours", "against"):
        table.add_column(title)
    for title in ("times as fast", "quartiles", "goal"):
        table.add_column(title, justify="right", no_wrap=True)
    memory = any(ratio.memory is not None for ratio in ratios)
    if memory:
        table.add_column("memory, ours / theirs", justify="right")
    if any(ratio.not_same for ratio in ratios):
        table.add_column("not the same either", ratio=1)
    for ratio in ratios:
        low, high = ratio.time.quartiles
        cells: list[RenderableType] = [
            Text(f"{ratio.time.median:.2f}", style="bold"),
            f"{low:.2f} .. {high:.2f}",
            _verdict(ratio.at_least, ratio.at_least is not None and ratio.time.median >= ratio.at_least, ""),
        ]
        if memory:
            most = ratio.memory_at_most
            kept = most is not None and ratio.memory is not None and ratio.memory <= most
            number = Text(ABSENT if ratio.memory is None else f"{ratio.memory:.2f}")
            cells.append(number if most is None else number.append("  ").append_text(_verdict(most, kept, "<= ")))
        table.add_row(
            ratio.ours, ratio.peer, *cells, *([ratio.not_same] if len(table.columns) > len(cells) + 2 else [])
        )
    return table


def _profiled(breakdown: Breakdown, without: Spread | None) -> Text:
    """How long the profiled steps took, and the others, so that the reader sees what the profiler adds."""
    busy = f", of which the GPU works {format_time(sum(group.seconds for group in breakdown.groups))}"
    text = f"  {breakdown.steps} steps with the profiler, {format_time(breakdown.seconds)} each"
    text += busy if breakdown.clock == "cuda" else ""
    text += f"; without it {format_time(without.median)}" if without else ""
    return Text.assemble((breakdown.name, "bold"), text)


def _groups(breakdown: Breakdown) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, header_style="")
    table.add_column("a step's time", no_wrap=True)
    for title in ("ms", "share", "GFLOP/s", "of the product's peak"):
        table.add_column(title, justify="right", no_wrap=True)
    for group in breakdown.groups:
        table.add_row(
            group.group,
            f"{group.seconds * 1e3:,.2f}",
            f"{group.share:.1%}",
            f"{group.flops / group.seconds / 1e9:,.0f}" if group.flops else ABSENT,
            ABSENT if group.share_of_peak is None else f"{group.share_of_peak:.0%}",
        )
    return table


def _verdict(goal: float | None, met: bool, sign: str) -> Text:
    """The goal in green or red; a dash without one."""
    if goal is None:
        return Text(ABSENT)
    return Text(f"{sign}{goal:g} {'met' if met else 'missed'}", style="green" if met else "red")


def _time_goal(timing: Timing) -> Text:
    if timing.most_seconds is None or timing.seconds is None:
        return Text(ABSENT)
    met = timing.seconds.median <= timing.most_seconds
    return Text(f"<= {format_time(timing.most_seconds)} {'met' if met else 'missed'}", style="green" if met else "red")


def _number(value: float | None) -> str:
    return ABSENT if value is None else f"{value:,.1f}" if value < 1000 else f"{value:,.0f}"


def format_time(seconds: float) -> str:
    """Three figures in s, ms or us."""
    for unit, scale in (("s", 1.0), ("ms", 1e3), ("us", 1e6)):
        value = seconds * scale
        if value >= 1 or unit == "us":
            digits = 0 if value >= 99.95 else 1 if value >= 9.995 else 2
            return f"{value:,.{digits}f} {unit}"
    raise AssertionError("a time is in one of three units")
