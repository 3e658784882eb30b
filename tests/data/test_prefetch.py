"""Results computed ahead: their order, how far ahead, on how many cores, and where errors are raised."""

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from retinanet.data.prefetch import AHEAD, prefetched
from retinanet.errors import DataError


@pytest.mark.parametrize("threads", [0, 1, 3])
def test_results_come_in_the_order_of_the_tasks(threads: int) -> None:
    def slow_if_early(task: int) -> int:
        time.sleep(0.0005 * (20 - task))
        return task * task

    assert list(prefetched(slow_if_early, range(20), threads)) == [task * task for task in range(20)]


@pytest.mark.parametrize("threads", [1, 2])
def test_no_more_than_the_maximum_are_ready(threads: int) -> None:
    taken: list[int] = []

    def tasks() -> Iterator[int]:
        for task in range(1000):
            taken.append(task)
            yield task

    results = prefetched(int, tasks(), threads)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert len(taken) == AHEAD * threads + 2
    results.close()


def test_each_thread_computes_on_one_core_and_other_threads_keep_theirs() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        results = prefetched(lambda _: torch.get_num_threads(), range(8), 2)
        assert next(results) == 1
        later: list[int] = []
        other = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        other.start()
        other.join()
        assert later == [3]
        assert set(results) == {1}
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [0, 2])
def test_an_error_is_raised_where_its_result_would_come(threads: int) -> None:
    def work(task: int) -> int:
        if task == 3:
            raise DataError("image 3 is cut short")
        return task

    results = prefetched(work, range(9), threads)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DataError, match="image 3"):
        next(results)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("loader")]


def test_no_thread_starts_before_the_first_result_is_requested() -> None:
    before = threading.active_count()
    prefetched(int, range(3), 2).close()
    assert threading.active_count() == before


def test_closing_drops_tasks_that_have_not_begun() -> None:
    done: list[int] = []

    def work(task: int) -> int:
        time.sleep(0.01)
        done.append(task)
        return task

    results = prefetched(work, range(100), 1)
    next(results)
    results.close()
    assert len(done) <= 3


def test_a_thread_that_cannot_start_leaves_no_other_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    start, started = threading.Thread.start, []

    def third_fails(thread: threading.Thread) -> None:
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", third_fails)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        list(prefetched(int, range(9), 3))
    for thread in started:
        thread.join(timeout=5)
        assert not thread.is_alive()
