import gc
import threading
import time

import pytest

from causalprune.trajectory.threads import BufferPool, Helpers, prefetched


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


@pytest.fixture(params=[0, 3])
def helpers(request):
    helpers = Helpers(request.param)
    yield helpers
    helpers.close()


def test_shared_work_is_yielded_in_order_and_ahead_by_two_a_thread(helpers):
    threads = {threading.current_thread(), *helpers._threads}
    begun, by = [], set()

    def task(number):
        begun.append(number)
        by.add(threading.current_thread())
        return number**2

    yielded = 0
    for result in helpers.ordered(task, 200):
        assert result == yielded**2
        yielded += 1
        assert max(begun) < yielded + 2 * len(threads)
    assert yielded == 200
    assert sorted(begun) == list(range(200))
    assert by <= threads
    assert list(helpers.ordered(task, 0)) == []


def test_all_threads_work_at_once():
    helpers, meeting = Helpers(3), threading.Barrier(4, timeout=30)
    # No thread passes before all four have a task.
    assert list(helpers.ordered(lambda number: meeting.wait() >= 0, 4)) == [True] * 4
    helpers.close()
    assert [thread.is_alive() for thread in helpers._threads] == [False] * 3


def test_the_first_error_in_order_is_raised_and_nothing_runs_afterwards(helpers):
    running = 0
    lock = threading.Lock()

    def task(number):
        nonlocal running
        with lock:
            running += 1
        try:
            if number in (5, 6, 7):
                raise ValueError(number)
            return number
        finally:
            with lock:
                running -= 1

    got = []
    with pytest.raises(ValueError, match="5"):
        got.extend(helpers.ordered(task, 50))
    assert running == 0
    # The threads are there for the next work.
    assert list(helpers.ordered(str, 20)) == [str(number) for number in range(20)]


def test_work_that_is_given_up_ends_before_the_caller_goes_on(helpers):
    ended = []

    def task(number):
        time.sleep(0.002)
        ended.append(number)

    work = helpers.ordered(task, 100)
    next(work)
    work.close()
    count = len(ended)
    time.sleep(0.02)
    assert len(ended) == count < 100


def test_a_system_that_starts_no_more_threads_is_served_by_those_there_are(monkeypatch):
    real, started = threading.Thread.start, []

    def start(thread):
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        real(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    helpers = Helpers(5)
    assert len(helpers._threads) == 2
    assert list(helpers.ordered(abs, 9)) == list(range(9))
    helpers.close()
