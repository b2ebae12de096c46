"""Doing the next pieces of work in threads while the caller is busy with this one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Result = TypeVar("Result")


def prefetched(tasks: Iterable[Callable[[], Result]], depth: int) -> Iterator[Result]:
    """Run tasks in order and yield their results in order, up to ``depth`` of them ahead.

    Args:
        tasks: They may run at the same time.
        depth: Results that may exist besides the one yielded last, each worked on by a thread of its own; 0 runs each
            task in the calling thread when its result is asked for.

    Raises:
        Exception: What a task raised, when its turn comes.
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
