"""The rules for several processes, without a launcher: threads take their part; see tests/faults for real ones."""

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from causalprune.base.errors import ExitCode, LockedError, UsageError
from causalprune.base.runtime import PeerFailure, Processes, launched, processes


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


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Processes()),
        ({"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}, Processes(1, 2, 1)),
        ({"RANK": "3"}, Processes()),
        ({"SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1"}, Processes(5, 8, 1)),
        ({"SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"}, Processes()),
    ],
)
def test_the_launcher_is_read_from_the_environment(monkeypatch, environment, expected):
    for name in ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "LOCAL_RANK", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launched() == expected
