"""From options to a report: build what takes part, check it, time it in turns, profile it, measure its memory."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.status import Status
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.breakdown import Breakdown, break_down
from benchmarks.contest import Comparison, Contest, Contestant, Running
from benchmarks.machine import this_machine
from benchmarks.memory import peak_of
from benchmarks.options import Options
from benchmarks.parts.all_parts import build_contest
from benchmarks.peaks import DTYPES, Peaks, measure_peaks
from benchmarks.report import PartReport, Ratio, Report, Timing
from benchmarks.spread import Spread, paired_ratios, spread_of
from benchmarks.timing import take_turns
from retinanet.errors import ConfigError, ResourceError, UserError

Say = Callable[[str], None]


class Lineup(NamedTuple):
    """The contestants that can run here."""

    running: dict[str, Running]
    results: dict[str, Any]
    """What the first step of each returned."""
    failures: dict[str, str]


def measure_all(options: Options) -> Report:
    """Every part of `options`. Progress goes to stderr."""
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ResourceError("--device cuda: no CUDA device here; use --device cpu")
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    parts = []
    with Console(stderr=True).status("measuring the machine's peaks") as status:
        peaks = measure_peaks(device, options.quick)
        for part in options.parts:
            contest = build_contest(part, options)
            with ExitStack() as stack:
                stack.callback(contest.close)
                contest = with_only(contest, options.only)
                if contest.contestants:
                    parts.append(measure_part(contest, options, peaks, partial(_tell, status, part)))
    if not parts:
        raise ConfigError(f"--only {options.only}: no contestant of {', '.join(options.parts)} has this in its name")
    told = {key: str(value) for key, value in options._asdict().items() if key not in ("json", "check")}
    return Report(machine=this_machine(device), options=told, peaks=peaks, parts=tuple(parts))


def measure_part(contest: Contest, options: Options, peaks: Peaks, say: Say) -> PartReport:
    """One part: results checked first, then times, then what they consist of, then memory."""
    device = torch.device(options.device)
    lineup = line_up(contest, say)
    checked = contest.check(lineup.results)
    flops = count_flops(lineup.running.get(contest.flops_of or ""))
    lineup.results.clear()
    rounds = options.repeats or (3 if options.quick else contest.repeats)
    seconds = take_turns(lineup.running, rounds, contest.warmups, contest.once, device, say)
    breakdowns = profile_all(contest, lineup.running, peaks, device, say) if contest.profiled else ()
    lineup.running.clear()
    memory: dict[str, float | None] = {}
    if options.memory and contest.memory is not None:
        for name in seconds:
            say(f"{name}: memory, in a process of its own")
            memory[name] = peak_of(options, contest.part, name)

    def timing(contestant: Contestant) -> Timing:
        name = contestant.name
        spread = spread_of(seconds[name]) if name in seconds else None
        return Timing(
            name=name,
            ours=contestant.ours,
            precision=contestant.precision,
            seconds=spread,
            failure=lineup.failures.get(name),
            items_per_second=contest.items / spread.median if spread and contest.items else None,
            share_of_peak=share_of_peak(contest, contestant, spread, flops, peaks),
            memory_mb=memory.get(name),
            most_seconds=contestant.most_seconds,
        )

    return PartReport(
        part=contest.part,
        what=contest.what,
        not_same=contest.not_same,
        checked=checked,
        work="operations" if flops else "bytes" if contest.floor_bytes else None,
        memory=contest.memory,
        contestants=tuple(timing(contestant) for contestant in contest.contestants),
        ratios=tuple(ratio(c, seconds, memory) for c in contest.comparisons if {c.ours, c.peer} <= seconds.keys()),
        breakdowns=breakdowns,
    )


def line_up(contest: Contest, say: Say) -> Lineup:
    """Build each contestant and take its first step. A peer that cannot run here is left out, with its reason."""
    lineup = Lineup({}, {}, {})
    for contestant in contest.contestants:
        name = contestant.name
        say(f"{name}: building")
        try:
            running = contestant.build()
            running.before()
            result = running.step()
            running.after()
        except UserError:
            raise
        except Exception as error:  # whatever a peer's own code raises
            if contestant.ours:
                raise
            lineup.failures[name] = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
            continue
        lineup.running[name] = running
        lineup.results[name] = result
    return lineup


def profile_all(
    contest: Contest, lineup: Mapping[str, Running], peaks: Peaks, device: torch.device, say: Say
) -> tuple[Breakdown, ...]:
    """What the steps of all contestants take their time for; they are warm."""
    found = []
    for contestant in contest.contestants:
        if contestant.name in lineup:
            say(f"{contestant.name}: profiling")
            product = peaks.flops.get(contestant.precision)
            peak = product.most if product else None
            running = lineup[contestant.name]
            running.before()
            found.append(break_down(contestant.name, running.step, device, peak))
            running.after()
    return tuple(found)


def count_flops(running: Running | None) -> float:
    """Floating point operations of a step's convolutions and matrix products; 0 where nobody is asked."""
    if running is None:
        return 0.0
    with FlopCounterMode(display=False) as counter:
        running.step()
    return float(counter.get_total_flops())


def share_of_peak(
    contest: Contest, contestant: Contestant, spread: Spread | None, flops: float, peaks: Peaks
) -> float | None:
    """The least time of the step's work at the measured peak over its median time; None where unknown."""
    if spread is None or contestant.precision not in DTYPES:
        return None
    if flops:
        return flops / peaks.flops[contestant.precision].most / spread.median
    least = contest.floor_bytes.get(contestant.precision)
    return least / peaks.bytes.most / spread.median if least else None


def ratio(comparison: Comparison, seconds: Mapping[str, list[float]], memory: Mapping[str, float | None]) -> Ratio:
    ours, peer = memory.get(comparison.ours), memory.get(comparison.peer)
    return Ratio(
        ours=comparison.ours,
        peer=comparison.peer,
        time=paired_ratios(seconds[comparison.peer], seconds[comparison.ours]),
        at_least=comparison.at_least,
        memory=ours / peer if ours is not None and peer else None,
        memory_at_most=comparison.memory_at_most,
        not_same=comparison.not_same,
    )


def with_only(contest: Contest, text: str | None) -> Contest:
    """The contest of those whose name contains `text`; None: of all."""
    if text is None:
        return contest
    return contest._replace(contestants=tuple(c for c in contest.contestants if text in c.name))


def _tell(status: Status, part: str, text: str) -> None:
    status.update(f"{part}: {text}")
