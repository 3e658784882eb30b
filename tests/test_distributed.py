"""Ranks from torchrun's variables, the choice of device, and two real gloo processes."""

import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from forked_tools import ToolServer
from places import PROJECT

from retinanet import distributed
from retinanet.distributed import (
    Ranks,
    choose_device,
    gather_rows,
    naming_ranks,
    read_ranks,
    start,
    stop,
    sum_over_ranks,
    was_restarted,
)
from retinanet.errors import ConfigError, RankError, ResourceError

VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "TORCHELASTIC_RESTART_COUNT")
ROWS = ([3, 0], [0, 2], [0, 0], [1, 1])
"""Row counts of rank 0 and rank 1 in each round."""


def rows_of(rank: int, count: int, dtype: torch.dtype) -> torch.Tensor:
    return (torch.arange(count * 2).reshape(count, 2) + 100 * rank + 2**40).to(dtype)


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("one_process")
def test_one_process_without_torchrun() -> None:
    assert read_ranks() == Ranks(rank=0, local_rank=0, world_size=1)
    assert read_ranks().is_main
    assert not was_restarted()
    start(read_ranks(), torch.device("cpu"))
    assert not dist.is_initialized()
    stop()


def test_ranks_are_torchruns(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(VARIABLES, ("5", "1", "8", "2"), strict=True):
        monkeypatch.setenv(name, value)
    assert read_ranks() == Ranks(rank=5, local_rank=1, world_size=8)
    assert not read_ranks().is_main
    assert was_restarted()


def test_one_process_sums_and_gathers_its_own() -> None:
    values, rows = torch.tensor([1.0, 2.0]), torch.rand(3, 2)
    assert sum_over_ranks(values) is values
    assert gather_rows(rows) is rows


@pytest.mark.parametrize("size", [1, 2])
def test_the_cpu_is_always_there(size: int) -> None:
    assert choose_device("cpu", Ranks(0, 0, size)) == torch.device("cpu")


def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto", Ranks(0, 0, 1)) == torch.device("cpu")
    for name in ("cuda", "mps"):
        with pytest.raises(ResourceError, match=f"device: {name} is not available"):
            choose_device(name, Ranks(0, 0, 1))


def test_an_apple_gpu_serves_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto", Ranks(0, 0, 1)).type == "mps"
    assert choose_device("auto", Ranks(0, 0, 2)).type == "cpu"
    with pytest.raises(ConfigError, match="one process only"):
        choose_device("mps", Ranks(0, 0, 2))


def test_more_local_ranks_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ResourceError, match="local rank 2 but there are 2 GPUs"):
        choose_device("cuda", Ranks(2, 2, 3))


def rank_main(rank: int, folder: str) -> None:
    """One of two processes: every collective of the module, results saved to `folder`."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    start(Ranks(rank, rank, 2), torch.device("cpu"))
    results = [sum_over_ranks(torch.tensor([1.0 + rank, 10.0]))]
    for counts in ROWS:
        results += [gather_rows(rows_of(rank, counts[rank], dtype)) for dtype in (torch.float64, torch.int64)]
    stop()
    torch.save({"results": results, "left": not dist.is_initialized()}, Path(folder) / f"{rank}.pt")


@pytest.mark.slow
def test_two_processes_gather_uneven_rows_in_rank_order(tmp_path: Path, tool_server: ToolServer) -> None:
    program = f"import sys; sys.path.insert(0, {str(PROJECT / 'tests')!r})\n"
    program += "from test_distributed import rank_main; rank_main(int(sys.argv[1]), sys.argv[2])"
    ranks = [tool_server.start_python("-c", program, rank, tmp_path) for rank in range(2)]
    for one in ranks:
        _, err = one.communicate(timeout=60)
        assert one.returncode == 0, err
    expected = [torch.tensor([3.0, 20.0])]
    for counts in ROWS:
        for dtype in (torch.float64, torch.int64):
            expected.append(torch.cat([rows_of(rank, count, dtype) for rank, count in enumerate(counts)]))
    for rank in range(2):
        saved = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert saved["left"]
        for found, wanted in zip(saved["results"], expected, strict=True):
            assert found.dtype == wanted.dtype
            assert torch.equal(found, wanted)


def test_a_program_that_listens_but_is_not_rank_0_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch alone would wait for its answer for ever."""
    monkeypatch.setattr(distributed, "MEETING_SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", str(listener.getsockname()[1]))
        with pytest.raises(
            ResourceError, match=r"rank 1: the 2 processes cannot meet at .* has not answered as rank 0"
        ):
            start(Ranks(rank=1, local_rank=1, world_size=2), torch.device("cpu"), timeout=1)


def test_every_operation_under_way_names_the_rank_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gloo raises another error for the operations that were not the first to wait too long."""
    first, _second = two_groups_of_this_process(seconds=0.2)
    works = [first.allreduce([torch.ones(100)]) for _ in range(3)]
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist.distributed_c10d, "_get_default_store", dist.HashStore)
    monkeypatch.setattr(distributed, "ANSWER_SECONDS", 0.1)
    texts = set()
    for work in works:
        with pytest.raises(RankError, match="rank 0: rank 1 does not answer") as caught, naming_ranks(Ranks(0, 0, 2)):
            work.wait()
        texts.add(str(caught.value.__cause__))
    assert len(texts) == 2


def two_groups_of_this_process(seconds: float) -> list[dist.ProcessGroupGloo]:
    """The process groups of ranks 0 and 1, both of this process; they wait so long for each other."""
    store = dist.HashStore()

    def join(rank: int) -> dist.ProcessGroupGloo:
        return dist.ProcessGroupGloo(store, rank, 2, timedelta(seconds=seconds))

    with ThreadPoolExecutor(2) as threads:
        return list(threads.map(join, range(2)))


@pytest.mark.parametrize(
    ("variables", "what"),
    [
        ({"RANK": "abc"}, "RANK='abc' .* is not a whole number"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2, LOCAL_RANK=0, WORLD_SIZE=2 .* count from 0"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE=0"),
        ({"WORLD_SIZE": "2"}, "needs MASTER_ADDR and MASTER_PORT"),
        ({"WORLD_SIZE": "2", "MASTER_ADDR": "x", "MASTER_PORT": "y"}, "'x' and 'y'"),
    ],
)
@pytest.mark.usefixtures("one_process")
def test_odd_variables_are_named(variables: dict[str, str], what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=what):
        start(read_ranks(), torch.device("cpu"))


@pytest.mark.parametrize(("nodes", "found"), [("1", [True, False]), ("2", [True, True])])
def test_restarted_ranks_do_not_find_addresses_of_those_that_are_gone(
    nodes: str, found: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # torchrun's, over all restarts
    stores = []
    monkeypatch.setattr(dist, "init_process_group", lambda *_, store, **__: stores.append(store))
    agent = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(server.port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    for name, value in {**agent, "GROUP_WORLD_SIZE": nodes}.items():
        monkeypatch.setenv(name, value)
    for restarts in ("0", "1"):
        monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", restarts)
        start(Ranks(rank=0, local_rank=0, world_size=2), torch.device("cpu"), timeout=5)
    first, second = stores
    first.set("address of rank 1", "old")
    assert [store.check(["address of rank 1"]) for store in (first, second)] == found
