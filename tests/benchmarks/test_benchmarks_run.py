"""Every part runs on tiny shapes and reports numbers; errors of the command line are reported together."""

import io
import json
import runpy
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from places import PROJECT
from rich.console import Console

from benchmarks.breakdown import BACKWARD, BOX_LOSS, FORWARD, GROUPS, TRANSFERS
from benchmarks.measure import measure_all
from benchmarks.memory import peak_of
from benchmarks.options import PARTS, Options, parse_arguments
from benchmarks.parts import BUILDERS, build_contest
from benchmarks.report import (
    Floor,
    RegressionError,
    Report,
    check_floors,
    read_floors,
    read_report,
    write_report,
)
from benchmarks.scenes import write_photos
from benchmarks.table import format_time, report_tables
from retinanet.errors import ConfigError, DataError, ResourceError

RUN = PROJECT / "benchmarks" / "run.py"
FLOORS = RUN.parent / "floors.json"

FOREIGN = """
import torch

def build(size, batch, classes, device):
    return torch.nn.Conv2d(3, classes, 3).to(device), torch.rand(batch, 3, size, size, device=device)

def step(state):
    layer, images = state
    layer(images).sum().backward()
"""


def quick(*words: str) -> Options:
    return parse_arguments(["--quick", "--repeats", "2", "--batch", "1", *words])


@pytest.fixture(scope="module")
def kernels() -> Report:
    """Reports of the parts without a network."""
    return measure_all(quick("loss", "assign", "postprocess", "eval"))


@pytest.fixture(scope="module")
def loading() -> Report:
    """Report of the part on data."""
    return measure_all(quick("data"))


def printed(report: Report) -> str:
    """The tables as words with single spaces."""
    console = Console(width=200, file=io.StringIO())
    with console.capture() as captured:
        console.print(report_tables(report))
    return " ".join(captured.get().split())


@pytest.mark.slow
def test_every_comparison_is_a_number(kernels: Report) -> None:
    assert [part.part for part in kernels.parts] == ["loss", "assign", "postprocess", "eval"]
    for part in kernels.parts:
        assert part.checked, f"{part.part}: results are compared before timing"
        assert part.not_same
        assert part.ratios
        for ratio in part.ratios:
            assert 0 < ratio.time.least <= ratio.time.median <= ratio.time.most < 1e4
            assert ratio.time.count == 2
            assert ratio.met is None, "goals are for full shapes"
        for timing in part.contestants:
            assert timing.failure is None
            assert timing.seconds is not None
            assert timing.memory_mb is None
            assert timing.share_of_peak is None or 0 < timing.share_of_peak < 10
    assert kernels.parts[0].work == "bytes"


@pytest.mark.slow
def test_the_json_is_the_schema(kernels: Report, tmp_path: Path) -> None:
    write_report(kernels, tmp_path / "out.json")
    assert read_report(tmp_path / "out.json") == kernels
    written = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert written["format"] == "retinanet-benchmarks-1"
    assert {"torch", "torchvision", "python"} <= written["machine"]["versions"].keys()
    assert written["peaks"]["flops"]["float32"]["median"] > 0
    assert written["parts"][0]["ratios"][0]["time"]["quartiles"]
    (tmp_path / "out.json").write_text('{"format": 1}', encoding="utf-8")
    with pytest.raises(DataError, match=r"out\.json: not a report"):
        read_report(tmp_path / "out.json")


@pytest.mark.slow
def test_the_table_names_every_contestant(kernels: Report) -> None:
    text = printed(kernels)
    for part in kernels.parts:
        assert part.checked in text
        assert part.not_same in text
        assert all(timing.name in text for timing in part.contestants)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (12.345, "12.3 s"),
        (1.0, "1.00 s"),
        (0.25, "250 ms"),
        (0.00999, "9.99 ms"),
        (0.000012, "12.0 us"),
        (0, "0.00 us"),
    ],
)
def test_times_have_three_figures(seconds: float, text: str) -> None:
    assert format_time(seconds) == text


@pytest.mark.slow
@pytest.mark.parametrize("part", ["train", "infer"])
def test_whole_networks_are_compared_with_torchvision_and_a_file(part: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FOREIGN, encoding="utf-8")
    peers = ("--against", "torchvision", "--against", str(tmp_path / "mine.py"))
    (found,) = measure_all(quick(part, *peers, "--size", "96", "--classes", "3")).parts
    pairs = {(ratio.ours, ratio.peer) for ratio in found.ratios}
    assert {("ours float32", "torchvision as shipped"), ("ours float32", "mine")} <= pairs
    assert all(ratio.time.median > 0 for ratio in found.ratios)
    assert found.work == "operations"
    assert all(timing.failure is None for timing in found.contestants)


def test_a_compiled_network_is_named_so_and_its_operations_are_the_peers(tmp_path: Path) -> None:
    """torch cannot count a compiled network's own."""
    (tmp_path / "peer.py").write_text("def build(*_): ...\ndef step(_): ...\n", encoding="utf-8")
    against_torchvision = build_contest("train", quick("train", "--compile"))
    assert {c.name for c in against_torchvision.contestants if c.ours} >= {"ours float32 compiled"}
    assert {c.ours for c in against_torchvision.comparisons} <= {c.name for c in against_torchvision.contestants}
    assert against_torchvision.flops_of == "torchvision as shipped"
    against_file = ("--against", str(tmp_path / "peer.py"))
    assert build_contest("train", quick("train", "--compile", *against_file)).flops_of is None
    assert build_contest("train", quick("train", *against_file)).flops_of == "ours float32"


@pytest.mark.slow
def test_a_peer_that_fails_is_reported_and_left_out(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("def build(*_):\n    1 / 0\ndef step(_): ...\n", encoding="utf-8")
    options = quick("infer", "--against", str(tmp_path / "broken.py"), "--size", "96", "--classes", "2")
    report = measure_all(options)
    (found,) = report.parts
    broken = next(timing for timing in found.contestants if timing.name == "broken")
    assert broken.seconds is None
    assert broken.failure == "ZeroDivisionError: division by zero"
    assert found.ratios == ()
    assert "broken failed: ZeroDivisionError: division by zero" in printed(report)


@pytest.mark.slow
def test_loaders_are_compared_with_the_reference(loading: Report) -> None:
    (found,) = loading.parts
    assert len(found.ratios) == 5
    assert all(timing.items_per_second for timing in found.contestants)


@pytest.mark.slow
def test_training_from_files_is_compared_with_training_from_memory() -> None:
    (found,) = measure_all(quick("feed", "--size", "96", "--classes", "3")).parts
    assert found.checked == "batches are of 1 x 3 x 96 x 96 bytes in both"
    (ratio,) = found.ratios
    assert (ratio.ours, ratio.peer, ratio.met) == ("ours, from files", "ours, in memory", None)
    assert 0 < ratio.time.median < 10
    for timing in found.contestants:
        assert timing.seconds is not None
        assert timing.items_per_second == pytest.approx(2 / timing.seconds.median), "two steps of one image"
    assert loader_threads() == []


def test_training_from_files_reads_them_and_ends_its_threads(tmp_path: Path) -> None:
    write_photos(tmp_path, 3, (100, 120))
    broken = tmp_path / "000002.jpg"
    broken.write_bytes(broken.read_bytes()[:2000])
    with pytest.raises(DataError, match=r"000002\.jpg"):
        measure_all(quick("feed", "--images", str(tmp_path), "--size", "96", "--classes", "3"))
    assert loader_threads() == []


def loader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("loader")]


@pytest.mark.slow
def test_a_training_step_is_taken_apart(tmp_path: Path) -> None:
    report = measure_all(quick("profile", "--size", "96", "--classes", "3"))
    (found,) = report.parts
    assert [breakdown.name for breakdown in found.breakdowns] == [timing.name for timing in found.contestants]
    everywhere = set(GROUPS) - {TRANSFERS}
    for breakdown in found.breakdowns:
        seconds = {group.group: group.seconds for group in breakdown.groups}
        assert everywhere <= seconds.keys(), "a group is empty: does the step still make the calls that are named?"
        assert sum(group.share for group in breakdown.groups) == pytest.approx(1.0)
        assert sum(seconds.values()) == pytest.approx(breakdown.seconds, rel=0.2)
        assert seconds[BACKWARD] > seconds[FORWARD] > seconds[BOX_LOSS]
        assert all(group.share_of_peak for group in breakdown.groups if group.flops)
    text = printed(report)
    assert all(group in text for group in everywhere)
    assert "3 steps with the profiler" in text
    write_report(report, tmp_path / "new.json")
    assert read_report(tmp_path / "new.json") == report


@pytest.mark.slow
def test_reports_of_before_there_were_breakdowns_can_be_read(kernels: Report, tmp_path: Path) -> None:
    old = kernels.model_dump(mode="json")
    for part in old["parts"]:
        assert part.pop("breakdowns") == []
    (tmp_path / "old.json").write_text(json.dumps(old), encoding="utf-8")
    assert read_report(tmp_path / "old.json") == kernels


@pytest.mark.slow
@pytest.mark.usefixtures("warm_python")
def test_commands_are_timed_up_to_a_first_step() -> None:
    (found,) = measure_all(quick("start", "--repeats", "1", "--only", "train")).parts
    times = {timing.name: timing.seconds.median for timing in found.contestants if timing.seconds is not None}
    assert times["train --help"] < times["train, first step"]


@pytest.mark.slow
def test_memory_is_measured_in_a_process_of_its_own() -> None:
    options = quick("postprocess")
    found = peak_of(options, "postprocess", "torchvision")
    assert found is not None
    assert 0 <= found < 2000


@pytest.mark.slow
def test_only_leaves_the_others_out() -> None:
    (found,) = measure_all(quick("eval", "--only", "ours")).parts
    assert [timing.name for timing in found.contestants] == ["ours"]
    assert found.ratios == ()
    with pytest.raises(ConfigError, match="no contestant of eval"):
        measure_all(quick("eval", "--only", "nobody"))


@pytest.mark.slow
def test_floors(kernels: Report, tmp_path: Path) -> None:
    ratio = kernels.parts[0].ratios[0]
    kept = Floor(part="loss", ours=ratio.ours, peer=ratio.peer, at_least=ratio.time.quartiles[1])
    elsewhere = Floor(part="train", ours="x", peer="y", at_least=99.0)
    check_floors(kernels, (kept, elsewhere), tmp_path)
    with pytest.raises(RegressionError, match=r"loss: ours float32 against .* the floor is 1e\+06"):
        check_floors(kernels, (kept.model_copy(update={"at_least": 1e6}),), tmp_path)
    with pytest.raises(RegressionError, match="was not measured"):
        check_floors(kernels, (kept.model_copy(update={"peer": "nobody"}),), tmp_path)
    (tmp_path / "floors.json").write_text('[{"part": "loss"}]', encoding="utf-8")
    with pytest.raises(ConfigError, match="not a list of floors"):
        read_floors(tmp_path / "floors.json")


@pytest.mark.slow
def test_the_recorded_floors_name_comparisons_that_exist(kernels: Report, loading: Report) -> None:
    parts = (*kernels.parts, *loading.parts)
    pairs = {(part.part, ratio.ours, ratio.peer) for part in parts for ratio in part.ratios}
    floors = read_floors(FLOORS)
    assert floors
    assert {(floor.part, floor.ours, floor.peer) for floor in floors} <= pairs


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["train", "--batch", "0", "--repeats", "0"], ["--batch 0", "--repeats 0"]),
        (["nonsense"], ["nonsense: not a part", "train, infer, loss"]),
        (["train", "--size", "8"], ["--size", "at least 96"]),
        (["train", "--size", "128", "128", "128"], ["--size"]),
        (["train", "--against", "nowhere.py"], ["nowhere.py", "no such file"]),
        (["loss", "--against", str(RUN)], ["in infer or train only"]),
        (["train", "infer", "--against", str(RUN)], ["name one part"]),
        (["train", "--size", "128", "256", "--against", str(RUN)], ["square"]),
        (["data", "--images", "nowhere"], ["--images nowhere"]),
        (["eval", "--check", "nowhere.json"], ["--check nowhere.json"]),
        (["eval", "--json", "no/where.json"], ["--json no/where.json"]),
    ],
)
def test_all_errors_of_a_command_line_are_reported_together(words: list[str], parts: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        parse_arguments(words)
    for part in parts:
        assert part in str(error.value)


def test_parts_and_sizes_of_a_command_line() -> None:
    assert parse_arguments([]).parts == parse_arguments(["all"]).parts == PARTS == tuple(BUILDERS)
    assert parse_arguments(["loss", "train"]).parts == ("train", "loss")
    assert parse_arguments(["train"]).size == (512, 512)
    assert parse_arguments(["train", "--size", "800", "1344"]).size == (800, 1344)


@pytest.mark.slow
def test_a_file_without_its_functions_is_refused(tmp_path: Path) -> None:
    (tmp_path / "half.py").write_text("def build(*_): ...\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="defines no function step"):
        measure_all(quick("train", "--against", str(tmp_path / "half.py"), "--size", "96"))


def test_no_gpu_is_one_message() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ResourceError, match="no CUDA device"):
        measure_all(quick("eval", "--device", "cuda"))


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [str(RUN), *words])
        monkeypatch.setattr(sys, "path", list(sys.path))
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(RUN), run_name="__main__")
        return int(ended.value.code or 0), *capsys.readouterr()

    return call


@pytest.mark.slow
def test_the_command_line_as_a_user_types_it(command: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    quick_eval = ("eval", "--quick", "--repeats", "1")
    code, out, err = command(*quick_eval, "--json", str(tmp_path / "a.json"), "--check", str(FLOORS))
    assert code == 0, err
    assert "pycocotools" in out
    assert read_report(tmp_path / "a.json").parts[0].part == "eval"
    high = [{"part": "eval", "ours": "ours", "peer": "pycocotools", "at_least": 1e5}]
    (tmp_path / "high.json").write_text(json.dumps(high), encoding="utf-8")
    code, out, err = command(*quick_eval, "--check", str(tmp_path / "high.json"))
    assert code == 9
    assert "the floor is 100000" in err
    assert "Traceback" not in err
    code, out, err = command("eval", "--repeats", "0")
    assert (code, out) == (2, "")
    assert err.startswith("error: benchmarks (1 error)")
