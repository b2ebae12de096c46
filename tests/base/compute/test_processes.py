"""The rules for several processes, without a launcher: threads take their part; see tests/faults for real ones."""

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from causalprune.base.compute import runtime
from causalprune.base.compute.runtime import PeerFailure, Processes, processes, resolve_device
from causalprune.base.errors import ExitCode, LockedError, UsageError


def in_threads(count, action):
    """What ``action`` returns, or raises, in each of so many processes that are threads."""
    slots, barrier = [None] * count, threading.Barrier(count, timeout=30)

    class Threads(Processes):
        def _reduce_integers(self, values):
            slots[self.rank] = values
            barrier.wait()
            most = [max(column) for column in zip(*slots, strict=True)]
            barrier.wait()
            return most

    def run(rank):
        try:
            return action(Threads(rank, count, rank))
        except Exception as error:
            return error

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def test_what_fails_in_the_first_process_ends_the_others_with_its_exit_code():
    def action(own):
        def fail():
            raise LockedError("the lock")

        own.first(fail)

    first, *others = in_threads(3, action)
    assert isinstance(first, LockedError)
    assert [(type(error), error.exit_code) for error in others] == [(PeerFailure, ExitCode.LOCKED)] * 2


def test_memory_that_the_first_process_lacks_ends_the_others_with_its_exit_code():
    first, other = in_threads(2, lambda own: own.first(lambda: bytearray(2**60)))
    assert isinstance(first, MemoryError)
    assert other.exit_code == ExitCode.STORAGE


def test_what_the_first_process_does_is_done_once():
    done = []
    assert in_threads(3, lambda own: own.first(lambda: done.append(own.rank))) == [None] * 3
    assert done == [0]


def test_a_flag_of_any_process_is_a_flag_of_all():
    assert in_threads(3, lambda own: own.any(own.rank == 1, False)) == [[True, False]] * 3


def test_different_findings_are_an_error_in_every_process():
    assert in_threads(2, lambda own: own.require_agreement("state", {"step": 3})) == [None] * 2
    errors = in_threads(2, lambda own: own.require_agreement("state", {"step": own.rank}))
    assert [type(error) for error in errors] == [UsageError] * 2


@given(st.integers(0, 10_000), st.integers(1, 64))
def test_shares_are_consecutive_and_differ_by_at_most_one(samples, count):
    shares = [Processes(rank, count).share(samples) for rank in range(count)]
    assert (shares[0].start, shares[-1].stop) == (0, samples)
    assert all(a.stop == b.start for a, b in pairwise(shares))
    sizes = [share.stop - share.start for share in shares]
    assert max(sizes) - min(sizes) <= 1


def test_one_process_alone_needs_no_connection():
    own, value, model = processes(), torch.ones(2), nn.Linear(1, 1)
    assert (own, own.is_first) == (Processes(0, 1, 0), True)
    assert own.sum(value) is value
    assert own.from_first([1.5]) == [1.5]
    assert own.any(True, False) == [True, False]
    assert own.parallel(model) is model
    own.require_agreement("anything", object)


def gpus(monkeypatch, *uuids, own):
    """As if each process computed on the GPU of such an identifier, and this one on ``own``."""

    def gather(found, mine, group):
        assert mine == own
        found[:] = uuids

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid=own))
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda group: len(uuids))
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    monkeypatch.setattr(runtime, "_control", [None])


def test_two_processes_on_one_gpu_are_refused(monkeypatch):
    gpus(monkeypatch, "a", "b", "a", own="a")
    with pytest.raises(UsageError, match=r"`device`: expected a GPU for each process, found processes 0, 2 on one GPU"):
        runtime._require_own_gpu(torch.device("cuda", 0))
    gpus(monkeypatch, "a", "b", "c", own="b")
    runtime._require_own_gpu(torch.device("cuda", 0))


@pytest.mark.parametrize(("visible", "expected"), [(1, 0), (2, 1), (4, 3)])
def test_a_process_that_sees_only_its_own_gpus_counts_them_from_zero(monkeypatch, visible, expected):
    """As with srun --gpus-per-task=1, where the fourth task of a host sees one GPU, its own."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    monkeypatch.setattr(runtime, "_current", [Processes(3, 4, 3)])
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda", expected)
