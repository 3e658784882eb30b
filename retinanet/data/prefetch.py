"""Work done ahead of its use, on threads, in order.

Decoding and resizing let go of Python's lock, so threads use as many cores as processes would, and nothing has to be
sent from one process to another: that takes longer than decoding a JPEG.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier, BrokenBarrierError
from typing import TypeVar

import torch

AHEAD = 4
"""Batches that a loader's thread may have ready."""

Task = TypeVar("Task")
Result = TypeVar("Result")


def prefetched(
    work: Callable[[Task], Result], tasks: Iterable[Task], threads: int, ahead: int = AHEAD
) -> Generator[Result, None, None]:
    """work(task) of each task, in order; with 0 threads each is done when it is asked for.

    To be closed: that ends the threads. What `work` raises is raised where its result would come. ahead: results that
    each thread may have ready.
    """
    if threads == 0:
        for task in tasks:
            yield work(task)
        return
    pool = _start(threads)
    ready: deque[Future[Result]] = deque()
    try:
        for task in tasks:
            ready.append(pool.submit(work, task))
            if len(ready) >= ahead * threads:
                yield ready.popleft().result()
        while ready:
            yield ready.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start(threads: int) -> ThreadPoolExecutor:
    """A pool of threads that compute on one core each.

    torch.set_num_threads is of the thread that calls it, and of all that come later: so every thread of the pool calls
    it before this one, whose number is then again that of later ones (autograd's, for instance).
    """
    own = torch.get_num_threads()
    ready = Barrier(threads + 1)

    def begin() -> None:
        torch.get_num_threads()  # the first call in a thread takes the number over, so it must not come later
        torch.set_num_threads(1)
        with suppress(BrokenBarrierError):
            ready.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="loader", initializer=begin)
    try:
        for _ in range(threads):
            pool.submit(int)
        ready.wait()
    except BaseException:  # no thread to be had, or Ctrl-C: the others must not wait for ever
        ready.abort()
        raise
    torch.set_num_threads(own)
    return pool
