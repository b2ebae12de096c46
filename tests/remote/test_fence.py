"""Two writers of one recording after a lock was broken: one goes on, the other stops, nothing committed is lost."""

import dataclasses
import json
import threading

import numpy as np
import pytest
from objects import put, tree
from store_builders import INFO, append_rows, make_rows, make_store

from causalprune.base.errors import LockedError, StorageError
from causalprune.base.locks import LockHolder
from causalprune.trajectory import Store
from causalprune.trajectory.storage.object_client import NoAnswerError, ObjectClient

ROWS, COLUMNS, BLOCK, COMMITTED = 20, 30, 8, 11


class Stalled:
    """Lets one thread stop before its N-th request until it is told to go on."""

    def __init__(self, monkeypatch, stop_at):
        self.stop_at, self.count = stop_at, 0
        self.reached, self.go_on = threading.Event(), threading.Event()
        self.thread = None
        real = ObjectClient._request

        def request(client, action, key, call):
            if threading.current_thread() is self.thread:
                self.count += 1
                if self.count == self.stop_at:
                    self.reached.set()
                    assert self.go_on.wait(30)
            return real(client, action, key, call)

        monkeypatch.setattr(ObjectClient, "_request", request)


def begin(url, values):
    """A recording of which the first rows are committed."""
    writer = make_store(url, COLUMNS).create_recording(
        INFO, np.ones(COLUMNS, bool), max_rows=ROWS, codec="exact", block_rows=BLOCK
    )
    append_rows(writer, values, 0, COMMITTED)
    writer.flush()
    return writer


def take_over(url):
    """What another host does that holds the first writer for dead."""
    other = dataclasses.replace(LockHolder.current(), host="elsewhere")
    put(url, ".lock", json.dumps(dataclasses.asdict(other)).encode())
    return Store.open(url).resume_recording("000", rows=COMMITTED, break_lock=True)


def finish(writer, values):
    append_rows(writer, values, COMMITTED)
    writer.finish()


def require_rows(url, values):
    store = Store.open(url)
    assert store.verify() == []
    assert np.array_equal(store.recording().read_rows(0, ROWS), values)
    assert not [name for name in tree(url) if "lock" in name or "partial" in name]


@pytest.mark.parametrize("when", ["before it goes on", "while it goes on"])
@pytest.mark.parametrize(
    ("flushed", "stop_at"),
    # A shard is replaced in five requests; one that is full and a new one take five and three.
    [*((COMMITTED + 2, number) for number in range(1, 6)), *((2 * BLOCK + 1, number) for number in range(5, 9))],
)
def test_a_writer_that_was_taken_for_dead_loses_to_the_other(s3, monkeypatch, stop_at, flushed, when):
    """It stops before any one of its requests, for as long as the other one needs to take over, or to finish.

    What it appends is unlike what the other one appends, as on another machine, so that a mixture would show.
    """
    url = f"{s3}/t.zarr"
    values, others = make_rows(ROWS, COLUMNS), make_rows(ROWS, COLUMNS)
    others[COMMITTED:] *= 3
    stalled = Stalled(monkeypatch, stop_at)
    writer = begin(url, values)
    stalled.thread = writer._thread
    append_rows(writer, values, COMMITTED, flushed)
    failures = []

    def flush():
        try:
            writer.flush()
            finish_late(writer)
        except LockedError as error:
            failures.append(error)
            writer.abort()

    def finish_late(writer):
        append_rows(writer, values, flushed)
        writer.finish()

    flusher = threading.Thread(target=flush)
    flusher.start()
    if not stalled.reached.wait(5):
        pytest.fail(f"only {stalled.count} requests")
    second = take_over(url)
    if when == "before it goes on":
        finish(second, others)
        stalled.go_on.set()
        flusher.join()
    else:
        stalled.go_on.set()
        flusher.join()
        # Whatever the loser still did, what is committed is whole, also for readers that come between.
        reader = Store.open(url).recording()
        assert reader.verify() == []
        assert np.array_equal(reader.read_rows(0, COMMITTED), values[:COMMITTED])
        finish(second, others)
    assert len(failures) == 1
    assert "`break_lock`" in str(failures[0])
    require_rows(url, others)


def test_who_takes_over_first_is_decided_in_the_log(s3):
    """Both read the same log; the claim of the slower one fails before it has changed anything."""
    url = f"{s3}/t.zarr"
    values = make_rows(ROWS, COLUMNS)
    begin(url, values).abort()
    reader = Store.open(url).recording()
    first, second = reader.read_log(), reader.read_log()
    first.claim()
    before = tree(url)
    with pytest.raises(LockedError, match="those of another writer"):
        second.claim()
    assert tree(url) == before


def test_a_lost_answer_is_looked_for(s3, monkeypatch):
    """Each answer in turn is lost after the change was made, once; the recording goes on and ends with its bytes."""
    monkeypatch.setattr("causalprune.trajectory.storage.object_log._WAIT_SECONDS", 0)
    values = make_rows(ROWS, COLUMNS)
    finish(begin(f"{s3}/expected", values), values)
    expected = tree(f"{s3}/expected")
    real = ObjectClient.put_if
    number = 0
    while True:
        number += 1
        calls = []

        def put_if(client, key, data, version, calls=calls, number=number):
            calls.append(key)
            result = real(client, key, data, version)
            if len(calls) == number:
                raise NoAnswerError("nobody knows")
            return result

        url = f"{s3}/{number}"
        with monkeypatch.context() as patch:
            patch.setattr(ObjectClient, "put_if", put_if)
            try:
                finish(begin(url, values), values)
            except StorageError:
                # Of the check that storage honors conditions: it comes before anything is written.
                assert calls[-1].endswith(".lock")
                continue
        assert tree(url) == expected
        if len(calls) < number:
            break
    assert number > 15
