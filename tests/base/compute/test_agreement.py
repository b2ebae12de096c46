"""Processes that agree now and then, played by threads with clocks of their own."""

import threading

import pytest

from causalprune.base.compute import agreement as agreement_module
from causalprune.base.compute.agreement import PERIOD, Agreement
from causalprune.base.compute.runtime import Processes


class Exchange:
    """The largest numbers of all threads, as the processes exchange them."""

    def __init__(self, count):
        self.barrier = threading.Barrier(count, timeout=30)
        self.numbers, self.count = [None] * count, 0

    def largest(self, rank, numbers):
        self.numbers[rank] = numbers
        if self.barrier.wait() == 0:
            self.count += 1
        found = [max(column) for column in zip(*self.numbers, strict=True)]
        self.barrier.wait()
        return found


def play(monkeypatch, seconds, stop_at, steps):
    """Let each process take its time for a step, and ask it to stop at one; where each stopped, and exchanges."""
    exchange, stopped = Exchange(len(seconds)), [None] * len(seconds)
    clock = threading.local()
    monkeypatch.setattr(agreement_module.time, "monotonic", lambda: clock.now)

    class Player(Processes):
        def largest(self, *numbers):
            return exchange.largest(self.rank, numbers)

    def run(rank):
        clock.now = 0.0
        agreement = Agreement(Player(rank, len(seconds)))
        for step in range(steps):
            clock.now += seconds[rank]
            stopping, other = agreement.any(step >= stop_at[rank], False)
            assert not other
            if stopping:
                stopped[rank] = step
                return

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(len(seconds))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return stopped, exchange.count


NEVER = 10**9


@pytest.mark.parametrize("seconds", [(0.001, 0.001), (0.01, 0.04), (2.0, 0.1)])
@pytest.mark.parametrize("stopped_rank", [0, 1])
def test_all_stop_at_the_same_step_soon_after_one_of_them_was_asked_to(monkeypatch, seconds, stopped_rank):
    asked = [NEVER, NEVER]
    asked[stopped_rank] = 700
    (first, second), exchanges = play(monkeypatch, seconds, asked, 2000)
    assert first == second
    assert 0 <= (first - 700) * max(seconds) <= PERIOD
    assert exchanges <= 3 + 701 * max(seconds) / (PERIOD - max(seconds)) if max(seconds) < PERIOD else 701


def test_nobody_stops_unless_asked(monkeypatch):
    assert play(monkeypatch, (0.001, 0.002, 0.001), (NEVER,) * 3, 2000)[0] == [None] * 3


def test_a_single_process_decides_at_every_step():
    agreement = Agreement(Processes())
    assert [agreement.any(number == 3, True) for number in range(5)] == [[number == 3, True] for number in range(5)]
