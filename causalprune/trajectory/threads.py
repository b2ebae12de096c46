"""Threads that work ahead or help, and the buffers that they fill."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Generic, TypeVar

import numpy as np

Result = TypeVar("Result")


def prefetched(tasks: Iterable[Callable[[], Result]], depth: int) -> Iterator[Result]:
    """Run tasks in order and yield their results in order, up to ``depth`` of them ahead.

    Args:
        tasks: They may run concurrently.
        depth: Largest number of results besides the one yielded last, each computed by its own thread. With 0, each
            task runs in the calling thread when its result is asked for.

    Raises:
        Exception: Whatever a task raised, when its turn comes.
    """
    if depth == 0:
        for task in tasks:
            yield task()
        return
    remaining = iter(tasks)
    executor = ThreadPoolExecutor(depth, thread_name_prefix="causalprune-read")
    try:
        ahead: deque[Future[Result]] = deque(executor.submit(task) for task in islice(remaining, depth))
        while ahead:
            result = ahead.popleft().result()
            ahead.extend(executor.submit(task) for task in islice(remaining, 1))
            yield result
            del result
    finally:
        executor.shutdown(wait=True, cancel_futures=True)


class Helpers:
    """Threads that share the work of the thread that asks them, which works as well.

    No executor: the threads of those end before what is registered with ``atexit`` runs, where a recording that is
    still open is stored.

    Args:
        count: Threads besides the one that asks. Where the system starts no more of them, there are fewer.
        name: Of the threads.
    """

    def __init__(self, count: int, name: str = "causalprune-help") -> None:
        self._changed = threading.Condition()
        self._job: _Job[object] | None = None
        self._closed = False
        self._threads: list[threading.Thread] = []
        with suppress(RuntimeError):
            for _ in range(count):
                thread = threading.Thread(target=self._help, name=name, daemon=True)
                thread.start()
                self._threads.append(thread)

    def ordered(self, task: Callable[[int], Result], count: int) -> Generator[Result, None, None]:
        """Yield ``task(0)`` to ``task(count - 1)`` in order; one thread at a time may ask.

        Two results a thread are computed ahead. When the iterator ends or is closed, no task runs any more.

        Raises:
            Exception: What a task raised, when its turn comes.
        """
        job = _Job(task, count)
        with self._changed:
            self._job = job  # type: ignore[assignment]
        try:
            for number in range(count):
                while number not in job.results:
                    with self._changed:
                        job.limit = min(count, number + 2 * (len(self._threads) + 1))
                        self._changed.notify_all()
                        if job.begun == job.limit:
                            self._changed.wait_for(partial(job.results.__contains__, number))
                            break
                        own = job.claim()
                    self._do(job, own)
                yield job.take(number)
        finally:
            with self._changed:
                self._job = None
                self._changed.wait_for(lambda: job.running == 0)

    def close(self) -> None:
        """End the threads."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _do(self, job: _Job[Result], number: int) -> None:
        try:
            outcome: Result | _Raised = job.task(number)
        except BaseException as error:
            outcome = _Raised(error)
        with self._changed:
            job.results[number] = outcome
            job.running -= 1
            self._changed.notify_all()

    def _help(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or (self._job is not None and self._job.open))
                if self._closed:
                    return
                job = self._job
                assert job is not None
                number = job.claim()
            self._do(job, number)
            del job


class _Raised:
    def __init__(self, error: BaseException) -> None:
        self.error = error


class _Job(Generic[Result]):
    """Tasks of which those below ``limit`` may be begun."""

    def __init__(self, task: Callable[[int], Result], count: int) -> None:
        self.task, self.count = task, count
        self.begun = self.limit = self.running = 0
        self.results: dict[int, Result | _Raised] = {}

    @property
    def open(self) -> bool:
        return self.begun < self.limit

    def claim(self) -> int:
        self.begun += 1
        self.running += 1
        return self.begun - 1

    def take(self, number: int) -> Result:
        outcome = self.results.pop(number)
        if isinstance(outcome, _Raised):
            raise outcome.error
        return outcome


class BufferPool:
    """Reuses the memory of float32 arrays: fresh pages cost about as much as decoding into them.

    An array's memory is used again only after the array and all its views are gone, so a caller can keep a block.

    Args:
        capacity: Free buffers to keep.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._free: list[np.ndarray] = []
        self._lock = threading.RLock()  # re-entrant: the collector may run `_Borrowed.__del__` at any allocation

    def take(self, *shape: int) -> np.ndarray:
        """An uninitialized C-contiguous float32 array."""
        size = math.prod(shape)
        with self._lock:
            fitting = [i for i, memory in enumerate(self._free) if memory.size >= size]
            memory = self._free.pop(fitting[-1]) if fitting else None
        return np.asarray(_Borrowed(self, np.empty(size, np.float32) if memory is None else memory, shape))

    def give(self, memory: np.ndarray) -> None:
        """Return memory to the pool."""
        with self._lock:
            if len(self._free) < self._capacity:
                self._free.append(memory)


class _Borrowed:
    """The owner of an array's memory, which NumPy keeps alive as long as any view of the array."""

    def __init__(self, pool: BufferPool, memory: np.ndarray, shape: tuple[int, ...]) -> None:
        self._pool = pool
        self._memory = memory
        self.__array_interface__ = {
            "version": 3,
            "shape": shape,
            "typestr": memory.dtype.str,
            "data": (memory.ctypes.data, False),
        }

    def __del__(self) -> None:
        self._pool.give(self._memory)
