"""Results computed ahead of their use, by threads, in order.

Decoding and resizing release Python's lock, so threads use as many cores as processes would, without sending results
from one process to another, which takes longer than decoding a JPEG.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from threading import Barrier, BrokenBarrierError
from typing import TypeVar

import torch

AHEAD = 4
"""Maximum batches that each of a loader's threads may have ready."""

Task = TypeVar("Task")
Result = TypeVar("Result")


def prefetched(
    work: Callable[[Task], Result], tasks: Iterable[Task], threads: int, ahead: int = AHEAD
) -> Generator[Result, None, None]:
    """Yield work(task) of each task, in order; with 0 threads each is computed when it is requested.

    Close the generator to end its threads. An error of `work` is raised where its result would come. ahead: maximum
    results that each thread may have ready.
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

    torch.set_num_threads applies to the calling thread and to all that start later. So every thread of the pool calls
    it first and this thread last, whose number then applies again to later ones (autograd's, for instance).
    """
    own = torch.get_num_threads()
    ready = Barrier(threads + 1)

    def begin() -> None:
        torch.get_num_threads()  # a thread's first call inherits the number, so it must not come later
        torch.set_num_threads(1)
        with suppress(BrokenBarrierError):
            ready.wait()

    pool = ThreadPoolExecutor(threads, thread_name_prefix="loader", initializer=begin)
    try:
        for _ in range(threads):
            pool.submit(int)
        ready.wait()
    except BaseException:  # a thread that cannot be started, or Ctrl-C: the others must not wait forever
        ready.abort()
        raise
    torch.set_num_threads(own)
    return pool
