"""Distributed training with torchrun: rank, world size, device, and collectives that also work in a single process."""

import json
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from threading import Thread
from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from retinanet.errors import ConfigError, RankError, ResourceError, UserError


class Ranks(NamedTuple):
    """Rank of this process and number of processes of the run."""

    rank: int
    local_rank: int
    world_size: int

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, the one that writes files and prints."""
        return self.rank == 0


def read_ranks() -> Ranks:
    """Ranks from torchrun's environment variables; a single process without them. Raises ConfigError for odd ones."""
    ranks = Ranks(
        rank=_variable("RANK", 0), local_rank=_variable("LOCAL_RANK", 0), world_size=_variable("WORLD_SIZE", 1)
    )
    if not 0 <= ranks.rank < ranks.world_size or ranks.local_rank < 0:
        raise ConfigError(
            f"RANK={ranks.rank}, LOCAL_RANK={ranks.local_rank}, WORLD_SIZE={ranks.world_size} in the environment: "
            "ranks count from 0 to one less than the world's size; start with torchrun, or unset all three"
        )
    return ranks


def _variable(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    try:
        return int(text)
    except ValueError as error:
        raise ConfigError(f"{name}={text!r} in the environment is not a whole number; unset it") from error


def was_restarted() -> bool:
    """Whether torchrun has restarted this worker group after a failure."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def may_be_restarted() -> bool:
    """Whether torchrun will restart this worker group if it fails now."""
    restarts = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    return restarts < int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0"))


def choose_device(name: str, ranks: Ranks) -> torch.device:
    """The device of this rank for config `device`.

    Raises ResourceError for a device that is not available and ConfigError for several processes on an Apple GPU.
    """
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if name == "auto":
        name = "cuda" if cuda else "mps" if mps and ranks.world_size == 1 else "cpu"
    if (name == "cuda" and not cuda) or (name == "mps" and not mps):
        raise ResourceError(f"device: {name} is not available on this machine; use device=cpu or device=auto.")
    if name == "mps" and ranks.world_size > 1:
        raise ConfigError("device: mps supports one process only; run without torchrun, or with device=cpu.")
    if name == "cuda":
        if ranks.local_rank >= torch.cuda.device_count():
            raise ResourceError(
                f"torchrun started local rank {ranks.local_rank} but there are {torch.cuda.device_count()} GPUs; "
                "lower --nproc-per-node."
            )
        torch.cuda.set_device(ranks.local_rank)
        return torch.device("cuda", ranks.local_rank)
    return torch.device(name)


def start(ranks: Ranks, device: torch.device, timeout: float = 1800.0) -> None:
    """Join the process group of torchrun, if there are several processes: NCCL on GPUs, gloo elsewhere.

    timeout: seconds that a rank waits for the others. Raises ResourceError if they cannot meet.
    """
    if ranks.world_size == 1 or dist.is_initialized():
        return
    place = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")
    if not place[0] or not place[1].isdecimal():
        raise ConfigError(
            f"WORLD_SIZE={ranks.world_size} in the environment needs MASTER_ADDR and MASTER_PORT, which are "
            f"{place[0]!r} and {place[1]!r}; start with torchrun, or unset WORLD_SIZE"
        )
    try:
        if ranks.rank > 0:
            _check_meeting_place(place[0], int(place[1]), timeout)
        on_gpu = device.type == "cuda"
        dist.init_process_group(
            "nccl" if on_gpu else "gloo",
            timeout=timedelta(seconds=timeout),
            store=_open_store(ranks, timeout),
            rank=ranks.rank,
            world_size=ranks.world_size,
            device_id=device if on_gpu else None,
        )
    except (RuntimeError, TimeoutError) as error:  # gloo's are not all of torch's own kinds
        reason = "the port is in use" if "EADDRINUSE" in str(error) else str(error).partition("\n")[0]
        raise ResourceError(
            f"rank {ranks.rank}: the {ranks.world_size} processes cannot meet at {':'.join(place)} ({reason}); give "
            "another MASTER_PORT (torchrun --master-port), and start every rank with the same address."
        ) from error


def _open_store(ranks: Ranks, timeout: float) -> "dist.Store":  # type: ignore[name-defined]
    """The store in which ranks find each other: torch's, with keys of this restart alone.

    torchrun keeps one store over its restarts, in which ranks find the addresses of those that are gone (torch 2.14).
    Nodes count restarts each for itself, so several of them have no number in common.
    """
    limit = timedelta(seconds=timeout)
    meeting = dist.rendezvous(  # type: ignore[attr-defined]
        "env://", rank=ranks.rank, world_size=ranks.world_size, timeout=limit
    )
    store, _, _ = next(meeting)
    store.set_timeout(limit)
    one_node = os.environ.get("GROUP_WORLD_SIZE") == "1"
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if one_node else "0"
    return dist.PrefixStore(f"restart_{restarts}", store)  # type: ignore[attr-defined]


def _check_meeting_place(host: str, port: int, timeout: float) -> None:
    """Raise TimeoutError where another program than rank 0 listens, for which torch waits without a limit."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((host, port), timeout=2).close()
            break
        except OSError:
            if time.monotonic() > deadline:
                return  # torch's own message says that nothing listens
            time.sleep(0.2)

    def ask() -> None:
        with suppress(RuntimeError):  # an answer that is wrong is reported by torch too
            dist.TCPStore(  # type: ignore[attr-defined]
                host, port, is_master=False, timeout=timedelta(seconds=timeout), wait_for_workers=False
            )

    asked = Thread(target=ask, daemon=True)
    asked.start()
    asked.join(MEETING_SECONDS)
    if asked.is_alive():
        raise TimeoutError(f"what listens there has not answered as rank 0 does within {MEETING_SECONDS:g} s")


def set_timeout(seconds: float) -> None:
    """From now on, wait that long for other ranks."""
    if dist.is_initialized():
        new = hasattr(dist, "set_timeout")  # since torch 2.14
        change = dist.set_timeout if new else dist.distributed_c10d._set_pg_timeout
        change(timedelta(seconds=seconds), dist.group.WORLD)


@contextmanager
def naming_ranks(ranks: Ranks) -> Iterator[None]:
    """Within this context an error of the communication becomes a RankError that names the ranks that do not answer."""
    try:
        yield
    except RuntimeError as error:
        if not dist.is_initialized() or not (isinstance(error, dist.DistError) or _LOST.search(str(error))):
            raise
        raise RankError(_describe_lost(ranks, error)) from error


@contextmanager
def leaving() -> Iterator[None]:
    """Leave the process group when a user's error ends this context: its threads may abort a process that ends in it.

    After a RankError nobody leaves, because that may wait for the rank that is gone.
    """
    try:
        yield
    except RankError:
        raise
    except UserError:
        stop()
        raise


_LOST = re.compile(r"gloo|caused pair closure|[Cc]onnection (closed|reset)|Broken pipe|Timed out waiting|NCCL")
"""Texts of the communication's errors that have no class of their own. Gloo's name its file, except the second one:
what operations that were under way get when another one has waited too long.
"""
ANSWER_SECONDS = 5.0
MEETING_SECONDS = 20.0
"""Within which rank 0 answers a rank that has a connection to it."""


def _describe_lost(ranks: Ranks, error: RuntimeError) -> str:
    """Which ranks do not answer, by a roll call through the store, which outlives them."""
    waited = "Timed out" in str(error) or "timeout" in str(error).lower()
    silent: list[int] = []
    try:
        store = dist.distributed_c10d._get_default_store()
        store.set(f"answers/{ranks.rank}", "1")
        deadline = time.monotonic() + ANSWER_SECONDS
        for rank in range(ranks.world_size):
            if rank != ranks.rank:
                try:
                    store.wait([f"answers/{rank}"], timedelta(seconds=max(deadline - time.monotonic(), 0.01)))
                except RuntimeError:
                    silent.append(rank)
    except RuntimeError:
        silent = []  # the store is gone too
    names = f"rank{'s' * (len(silent) > 1)} {', '.join(map(str, silent))}" if silent else "another rank"
    are = "do" if len(silent) > 1 else "does"
    what = f"{names} {are} not answer" if waited else f"{names} {'are' if are == 'do' else 'is'} gone"
    return (
        f"rank {ranks.rank}: {what}; see its own message or the system's log (killed for memory?), then start all "
        "ranks again with --resume. A rank may wait for others for distributed.timeout seconds."
    )


def find_differences(texts: Mapping[str, str], ranks: Ranks, device: torch.device) -> list[tuple[int, str, str, str]]:
    """Texts that differ between ranks: (rank, name, text of rank 0, text of that rank), on every rank the same.

    texts: what every rank gives under the same names.
    """
    if not dist.is_initialized():
        return []
    store = dist.distributed_c10d._get_default_store()
    store.set(f"texts/{ranks.rank}", json.dumps(dict(texts)))
    sum_over_ranks(torch.zeros(1, device=device))  # all have written
    given = [json.loads(store.get(f"texts/{rank}")) for rank in range(ranks.world_size)]
    sum_over_ranks(torch.zeros(1, device=device))  # all have read
    return [
        (rank, name, given[0].get(name, ""), own.get(name, ""))
        for rank, own in enumerate(given)
        for name in sorted(own.keys() | given[0].keys())
        if own.get(name) != given[0].get(name)
    ]


def stop() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def sum_over_ranks(values: Tensor) -> Tensor:
    """Elementwise sum over all ranks, in place; a single process returns the tensor unchanged."""
    if dist.is_initialized():
        dist.all_reduce(values)
    return values


def largest_over_ranks(value: int, device: torch.device) -> int:
    """The largest of the values that the ranks give, on every rank."""
    if not dist.is_initialized():
        return value
    largest = torch.tensor(value, device=device)
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return int(largest)


def agree(answer: bool, disagreement: str, device: torch.device) -> bool:
    """The answer of all ranks; ResourceError with `disagreement` if they differ."""
    if not dist.is_initialized():
        return answer
    yes = int(sum_over_ranks(torch.tensor(int(answer), device=device)))
    if yes not in (0, dist.get_world_size()):
        raise ResourceError(f"{disagreement}; all nodes of a run need one shared file system.")
    return answer


def gather_rows(rows_NF: Tensor) -> Tensor:
    """Rows (N, F) of all ranks, in rank order, on every rank; N may differ between ranks, F and dtype must not."""
    if not dist.is_initialized():
        return rows_NF
    count = torch.tensor([len(rows_NF)], device=rows_NF.device)
    counts = [torch.zeros_like(count) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, count)
    most = int(max(int(c) for c in counts))
    padded = rows_NF.new_zeros((most, rows_NF.shape[1]))
    padded[: len(rows_NF)] = rows_NF
    gathered = [torch.zeros_like(padded) for _ in counts]
    dist.all_gather(gathered, padded)
    return torch.cat([rows[: int(c)] for rows, c in zip(gathered, counts, strict=True)])
