import gc
import threading

import pytest

from causalprune.trajectory.threads import BufferPool, prefetched


def test_a_pool_uses_memory_again_only_when_no_view_is_left():
    pool = BufferPool(1)
    first = pool.take(3, 4)
    address = first.ctypes.data
    view = first[1:, 2]
    del first
    gc.collect()
    assert pool.take(3, 4).ctypes.data != address
    pool = BufferPool(1)
    first = pool.take(3, 4)
    address = first.ctypes.data
    del first, view
    assert pool.take(2, 5).ctypes.data == address


def test_prefetching_is_bounded_ordered_and_stops():
    running, most, started = 0, 0, 0
    lock = threading.Lock()

    def task(number):
        nonlocal running, most, started
        with lock:
            running += 1
            started += 1
            most = max(most, running)
        with lock:
            running -= 1
        return number

    results = prefetched(((lambda i=i: task(i)) for i in range(100)), 3)
    assert [next(results) for _ in range(10)] == list(range(10))
    results.close()
    assert started <= 10 + 3
    assert most <= 3


def test_prefetching_raises_where_the_failure_belongs():
    results = prefetched(iter([lambda: 1, lambda: 1 / 0, lambda: 3]), 2)
    assert next(results) == 1
    with pytest.raises(ZeroDivisionError):
        next(results)
