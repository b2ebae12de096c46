"""Threads that work ahead, and the buffers that they fill."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

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
