"""From options to a report: build the contestants, check their results, time them in turns, profile, measure memory."""

import gc
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, NamedTuple

import torch
from rich.console import Console
from torch.utils.benchmark import Timer, timer
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.breakdown import break_down
from benchmarks.contest import Comparison, Contest, Contestant, Stretch
from benchmarks.machine import DTYPES, measure_peaks, this_machine
from benchmarks.memory import peak_of
from benchmarks.options import Options
from benchmarks.parts import build_contest
from benchmarks.report import Breakdown, PartReport, Peaks, Ratio, Report, Spread, Timing, paired_ratios, spread_of
from retinanet.errors import ConfigError, ResourceError, UserError

MIN_RUN_TIME = 0.05
"""Seconds: shorter steps are repeated for so long, so that the clock and the scheduler matter little."""

Say = Callable[[str], None]
"""Receives what is being done, for the progress line."""


class Lineup(NamedTuple):
    """The contestants that can run here."""

    stretches: dict[str, Stretch]
    results: dict[str, Any]
    """What the first step of each returned."""
    failures: dict[str, str]


def measure_all(options: Options) -> Report:
    """Measure every part of `options`. Progress goes to stderr."""
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ResourceError("--device cuda: no CUDA device here; use --device cpu")
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    torch.backends.cudnn.allow_tf32 = False  # float32 is float32, of peers and peaks as in a run of this project
    parts = []
    with Console(stderr=True).status("measuring the machine's peaks") as status:
        peaks = measure_peaks(device, options.quick)
        for part in options.parts:
            with ExitStack() as stack:
                contest = build_contest(part, options)
                stack.callback(contest.close)
                if options.only is not None:
                    kept = tuple(c for c in contest.contestants if options.only in c.name)
                    contest = contest._replace(contestants=kept)
                if contest.contestants:
                    parts.append(measure_part(contest, options, peaks, status.update))
    if not parts:
        raise ConfigError(f"--only {options.only}: no contestant of {', '.join(options.parts)} has this in its name")
    used = {key: str(value) for key, value in options._asdict().items() if key not in ("json", "check")}
    return Report(machine=this_machine(device), options=used, peaks=peaks, parts=tuple(parts))


def measure_part(contest: Contest, options: Options, peaks: Peaks, say: Say) -> PartReport:
    """Measure one part: results are checked first, then come times, profiles and memory."""
    device = torch.device(options.device)

    def say_part(text: str) -> None:
        say(f"{contest.part}: {text}")

    lineup = line_up(contest, say_part)
    checked = contest.check(lineup.results)
    flops = count_flops(lineup.stretches.get(contest.flops_of or ""))
    lineup.results.clear()
    rounds = options.repeats or (3 if options.quick else contest.repeats)
    seconds = take_turns(lineup.stretches, rounds, contest.warmups, contest.once, say_part)
    breakdowns = profile_all(contest, lineup.stretches, peaks, device, say_part) if contest.profiled else ()
    lineup.stretches.clear()
    memory: dict[str, float | None] = {}
    if options.memory and contest.memory is not None:
        for name in seconds:
            say_part(f"{name}: memory, in a process of its own")
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
    """Build each contestant and take its first step. A peer that cannot run here is left out, with the reason."""
    lineup = Lineup({}, {}, {})
    for contestant in contest.contestants:
        name = contestant.name
        say(f"{name}: building")
        try:
            stretch = contestant.build()
            with stretch() as step:
                result = step()
        except UserError:
            raise
        except Exception as error:  # whatever a peer's own code raises
            if contestant.ours:
                raise
            lineup.failures[name] = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
            continue
        lineup.stretches[name] = stretch
        lineup.results[name] = result
    return lineup


def take_turns(
    stretches: Mapping[str, Stretch], rounds: int, warmups: int, once: bool, say: Say
) -> dict[str, list[float]]:
    """Seconds of a step of each contestant in each round: a, b, c, a, b, c, ...; `rounds` figures each.

    A repetition is one step if `once`, or if the last warm-up step took MIN_RUN_TIME; otherwise steps are repeated
    for that time. The garbage collector runs between rounds only.
    """
    single = {}
    for name, stretch in stretches.items():
        say(f"{name}: warming up")
        warm = [time_step(stretch) for _ in range(warmups)]
        single[name] = once or not warm or warm[-1] >= MIN_RUN_TIME
    seconds: dict[str, list[float]] = {name: [] for name in stretches}
    gc.disable()
    try:
        for turn in range(rounds):
            gc.collect()
            for name, stretch in stretches.items():
                say(f"{name}: round {turn + 1} of {rounds}")
                seconds[name].append(time_step(stretch) if single[name] else time_many(stretch))
    finally:
        gc.enable()
    return seconds


def time_step(stretch: Stretch) -> float:
    """Seconds of one step; a GPU has finished at both ends."""
    with stretch() as step:
        started = timer()
        step()
        return timer() - started


def time_many(stretch: Stretch) -> float:
    """Median seconds of a step that is repeated for MIN_RUN_TIME, after steps that find out how often."""
    with stretch() as step:
        clock = Timer("step()", globals={"step": step}, num_threads=torch.get_num_threads())
        return clock.blocked_autorange(min_run_time=MIN_RUN_TIME).median


def profile_all(
    contest: Contest, stretches: Mapping[str, Stretch], peaks: Peaks, device: torch.device, say: Say
) -> tuple[Breakdown, ...]:
    """Profile the steps of all contestants; they are warm."""
    found = []
    for contestant in contest.contestants:
        if contestant.name in stretches:
            say(f"{contestant.name}: profiling")
            product = peaks.flops.get(contestant.precision)
            with stretches[contestant.name]() as step:
                found.append(break_down(contestant.name, step, device, product.most if product else None))
    return tuple(found)


def count_flops(stretch: Stretch | None) -> float:
    """Floating point operations of a step's convolutions and matrix products; 0 without a contestant to count."""
    if stretch is None:
        return 0.0
    with stretch() as step, FlopCounterMode(display=False) as counter:
        step()
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
    """Time and memory of two contestants that both ran."""
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
