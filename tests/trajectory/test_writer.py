import threading
import time

import numpy as np
import pytest
import torch
from store_builders import INFO, append_rows, make_recording, make_rows, make_store, scalars, tree

import causalprune.trajectory.writer as writer_module
from causalprune.base.errors import DataError, LockedError, MismatchError, StorageError, UsageError
from causalprune.trajectory import Store
from causalprune.trajectory.codec import Codec
from causalprune.trajectory.commits import CommitLog


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path / "t.zarr", 6, 4)


def begin(store, max_rows=40, **options):
    options = {"codec": "exact", "block_rows": 4, **options}
    return store.create_recording(INFO, np.ones(10, bool), max_rows=max_rows, **options)


def test_tensors_arrays_and_the_row_itself_are_kept_alike(store):
    values = make_rows(6, 10)
    with begin(store) as writer:
        writer.append(values[0], **scalars(0))
        writer.append(torch.from_numpy(values[1]), **scalars(1))
        writer.append(torch.from_numpy(np.repeat(values[2], 2))[::2].requires_grad_(), **scalars(2))
        row = writer.row()
        row[:] = values[3]
        writer.append(row, **scalars(3))
        np.copyto(writer.row(), values[4])
        writer.append(torch.from_numpy(writer.row()), **scalars(4))
        writer.append(values[5], **{**scalars(5), "loss_before": torch.tensor(1.5), "grad_norm": np.float32(0.5)})
        writer.finish()
    reader = store.recording()
    assert np.array_equal(reader.read_rows(0, 6), values)
    assert reader.steps.loss_before[5] == 1.5
    assert reader.steps.grad_norm[5] == 0.5


def test_the_caller_may_change_its_delta_at_once(store):
    values = make_rows(9, 10)
    delta = np.empty(10, np.float32)
    with begin(store) as writer:
        for row in range(9):
            delta[:] = values[row]
            writer.append(delta, **scalars(row))
            delta[:] = np.nan
        writer.finish()
    assert np.array_equal(store.recording().read_rows(0, 9), values)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, np.array(0x7FFFFFFF, np.uint32).view(np.float32)])
@pytest.mark.parametrize("codec", ["exact", "balanced", "small"])
def test_a_delta_that_is_not_finite_is_named_and_stops_the_writer(store, codec, bad):
    values = make_rows(12, 10)
    values[6, 7] = bad
    writer = begin(store, codec=codec)
    append_rows(writer, values, 0, 7)
    with pytest.raises(DataError, match=r"row 6, layer1\.weight\[1\].*finite"):
        writer.flush()
    with pytest.raises(DataError):
        writer.append(values[0], **scalars(0))
    with pytest.raises(DataError):
        writer.finish()
    reader = store.recording()
    assert (reader.num_rows, reader.finished) == (4, False)
    assert reader.verify() == []


@pytest.mark.parametrize("name", ["loss_before", "loss_after", "lr", "grad_norm"])
def test_a_scalar_that_is_not_finite_is_refused_at_once(store, name):
    writer = begin(store)
    append_rows(writer, make_rows(2, 10))
    with pytest.raises(DataError, match=f"{name} of row 2"):
        writer.append(np.zeros(10, np.float32), **{**scalars(2), name: float("nan")})
    assert writer.rows_appended == 2
    writer.append(np.zeros(10, np.float32), **scalars(2))
    assert writer.flush() == 3
    writer.abort()


def test_a_failing_disk_stops_the_next_call(store, monkeypatch):
    def fail(*args):
        raise StorageError("disk", found="full")

    writer = begin(store, max_rows=10**6)
    monkeypatch.setattr(writer_module, "write_shard", fail)
    with pytest.raises(StorageError, match="full"):
        append_rows(writer, np.zeros((10**5, 10), np.float32))
    with pytest.raises(StorageError, match="full"):
        writer.close()
    assert store.writer is None


def test_a_full_queue_holds_the_caller_back(store, monkeypatch):
    """With a writer that stands still, the caller gets two blocks ahead and no further."""
    gate = threading.Event()
    real = writer_module.write_shard

    def slow(*args):
        assert gate.wait(30)
        return real(*args)

    monkeypatch.setattr(writer_module, "write_shard", slow)
    writer = begin(store, queue_bytes=1)
    values = make_rows(40, 10)
    caller = threading.Thread(target=append_rows, args=(writer, values))
    caller.start()
    while writer.rows_appended < 8:
        time.sleep(0.001)
    caller.join(0.05)
    assert caller.is_alive()
    assert writer.rows_appended == 8
    assert store.recording().num_rows == 0
    gate.set()
    caller.join()
    writer.finish()
    assert np.array_equal(store.recording().read_rows(0, 40), values)


def test_flush_makes_everything_durable_and_is_idempotent(store):
    values = make_rows(7, 10)
    writer = begin(store)
    assert writer.flush() == 0
    append_rows(writer, values, 0, 6)
    assert writer.flush() == 6
    assert np.array_equal(store.recording().read_rows(0, 6), values[:6])
    log = (store.path / "recordings/000/delta/commits.log").read_bytes()
    assert writer.flush() == 6
    assert (store.path / "recordings/000/delta/commits.log").read_bytes() == log
    append_rows(writer, values, 6)
    assert writer.rows_appended == 7
    writer.close()
    writer.close()
    assert np.array_equal(store.recording().read_rows(0, 7), values)
    assert not store.recording().finished


def test_a_failing_body_keeps_committed_rows_only(store):
    writer = begin(store)
    append_rows(writer, make_rows(6, 10))
    writer.flush()
    with pytest.raises(ValueError, match="shape"), writer:
        writer.append(np.zeros(9, np.float32), **scalars(6))
    assert store.recording().num_rows == 6
    assert store.writer is None


def test_a_closed_writer_takes_nothing(store):
    writer = begin(store)
    append_rows(writer, make_rows(1, 10))
    writer.finish()
    with pytest.raises(ValueError, match="closed"):
        append_rows(writer, make_rows(1, 10))
    with pytest.raises(ValueError, match="closed"):
        writer.flush()


def test_more_rows_than_expected_make_the_recording_longer_before_they_are_committed(store, monkeypatch):
    real, seen = CommitLog.append_commit, []

    def append_commit(log, commit):
        shape = store.zarr()["recordings/000/delta"].shape
        real(log, commit)
        seen.append((log.rows, shape[0]))
        assert store.recording().num_rows == log.rows

    monkeypatch.setattr(CommitLog, "append_commit", append_commit)
    values = make_rows(21, 10)
    with begin(store, max_rows=4, block_rows=2, codec="exact") as writer:
        append_rows(writer, values)
        assert writer.flush() == 21
        assert np.array_equal(store.recording().read_rows(0, 21), values)
    assert seen == [
        (2, 4),
        (4, 4),
        (6, 8),
        (8, 8),
        *((rows, 16) for rows in range(10, 17, 2)),
        (18, 32),
        (20, 32),
        (21, 32),
    ]
    assert store.verify() == []
    # Taken up again before and behind the number that was expected, it ends as any other recording.
    for kept in (3, 13):
        with store.resume_recording("000", rows=kept) as writer:
            append_rows(writer, values, kept)
            writer.finish()
        assert store.zarr()["recordings/000/delta"].shape == (21, 10)
        assert np.array_equal(store.recording().read_rows(0, 21), values)
        assert store.verify() == []


def test_a_recording_needs_a_row(store):
    writer = begin(store)
    with pytest.raises(DataError, match="at least one row"):
        writer.finish()
    assert store.writer is None


def test_one_writer_a_store(store):
    with begin(store) as writer:
        append_rows(writer, make_rows(1, 10))
        assert store.writer is not None
        with pytest.raises(LockedError):
            begin(Store.open(store.path))
        with pytest.raises(LockedError):
            store.resume_recording("000", rows=0)
        with pytest.raises(LockedError):
            store.delete_recording("000")
        writer.finish()
    assert begin(store).abort() is None
    assert store.recordings == ("000", "001")
    store.delete_recording("000")
    assert store.recordings == ("001",)


def test_what_cannot_be_recorded(store):
    ones = np.ones(10, bool)
    with pytest.raises(MismatchError, match="mask of 10"):
        store.create_recording(INFO, np.ones(9, bool), max_rows=1)
    with pytest.raises(DataError, match="all of them pruned"):
        store.create_recording(INFO, ~ones, max_rows=1)
    with pytest.raises(UsageError, match="codec"):
        store.create_recording(INFO, ones, max_rows=1, codec="zip")
    with pytest.raises(UsageError, match="rows to record"):
        store.create_recording(INFO, ones, max_rows=0)
    with pytest.raises(UsageError, match="block rows"):
        store.create_recording(INFO, ones, max_rows=1, block_rows=0)
    with pytest.raises(UsageError, match="nothing there yet"):
        make_store(store.path, 3)
    writer = begin(store)
    with pytest.raises(ValueError, match="shape"):
        writer.append(np.zeros(9, np.float32), **scalars(0))
    writer.abort()


def test_rows_arrive_in_bounded_memory(tmp_path):
    """A hundred blocks pass through the buffers of three."""
    _, values = make_recording(
        tmp_path / "t.zarr", rows=400, columns=64, block_rows=4, codec="exact", queue_bytes=3 * 1024
    )
    assert np.array_equal(Store.open(tmp_path / "t.zarr").recording().read_rows(0, 400), values)


def test_untrained_parameters_are_those_of_the_last_commit(store):
    values = make_rows(10, 10)
    writer = begin(store)
    writer.untrained = ("layer0.weight", "layer1.weight")
    append_rows(writer, values, 0, 6)
    writer.close()
    assert store.recording().untrained == ("layer0.weight", "layer1.weight")
    resumed = store.resume_recording("000", rows=6)
    assert resumed.untrained == ("layer0.weight", "layer1.weight")
    resumed.untrained = ("layer1.weight",)
    append_rows(resumed, values, 6, 10)
    resumed.finish()
    assert store.recording().untrained == ("layer1.weight",)
    assert store.verify() == []


def test_a_recording_in_which_everything_is_trained_says_nothing_about_it(tmp_path, store):
    paths = []
    for name, untrained in (("a", ()), ("b", ("layer0.weight",))):
        other = make_store(tmp_path / name, 6, 4)
        with begin(other) as writer:
            writer.untrained = untrained
            append_rows(writer, make_rows(10, 10))
            writer.finish()
        paths.append(other.recording())
    assert [b"untrained" in reader.layout.commit_log.path.read_bytes() for reader in paths] == [False, True]
    assert paths[0].digest != paths[1].digest


WIDE = 3 * 16384 + 100
"""Columns of four chunks, the last one padded."""


@pytest.mark.parametrize("codec", ["exact", "balanced", "small"])
def test_the_bytes_are_the_same_for_one_and_four_compressing_threads(tmp_path, codec):
    """Of full shards and of one that isn't full, also when that one is written twice."""
    values = make_rows(40, WIDE)
    trees = []
    for threads in (1, 4):
        store = make_store(tmp_path / f"{threads}", WIDE)
        writer = store.create_recording(
            INFO, np.ones(WIDE, bool), max_rows=40, codec=codec, block_rows=16, threads=threads
        )
        append_rows(writer, values, 0, 35)
        writer.flush()
        append_rows(writer, values, 35)
        assert len(writer._helpers._threads) == threads - 1
        writer.finish()
        trees.append(tree(store.path))
        assert store.verify() == []
    assert trees[0] == trees[1]


def test_of_several_deltas_that_are_not_finite_the_first_chunks_is_named(tmp_path):
    values = make_rows(16, WIDE)
    values[9, 40_000], values[2, 20_000], values[5, 100] = np.nan, np.inf, -np.inf
    store = make_store(tmp_path / "t.zarr", WIDE)
    writer = store.create_recording(INFO, np.ones(WIDE, bool), max_rows=32, block_rows=16, threads=4)
    append_rows(writer, values)
    with pytest.raises(DataError, match=r"row 5, layer0\.weight\[100\]"):
        writer.flush()
    writer.abort()
    assert store.recording().num_rows == 0


@pytest.mark.parametrize("failing", [MemoryError("no memory"), SystemExit(3)], ids=repr)
def test_an_error_in_any_compressing_thread_stops_the_next_call_and_loses_nothing_committed(
    tmp_path, monkeypatch, failing
):
    before = set(threading.enumerate())
    values, store = make_rows(48, WIDE), make_store(tmp_path / "t.zarr", WIDE)
    writer = store.create_recording(INFO, np.ones(WIDE, bool), max_rows=48, codec="exact", block_rows=16, threads=4)
    append_rows(writer, values, 0, 16)
    assert writer.flush() == 16
    meeting, real = threading.Barrier(4, timeout=30), Codec.encode

    def encode(codec, chunk):
        # The last to come fails, whichever thread it is.
        if meeting.wait() == 3:
            raise failing
        return real(codec, chunk)

    monkeypatch.setattr(Codec, "encode", encode)
    append_rows(writer, values, 16, 32)
    with pytest.raises(type(failing)):
        writer.flush()
    with pytest.raises(type(failing)):
        writer.append(values[0], **scalars(0))
    with pytest.raises(type(failing)):
        writer.close()
    assert set(threading.enumerate()) <= before
    monkeypatch.undo()
    assert store.writer is None
    assert np.array_equal(store.recording().read_rows(0, 16), values[:16])
    with store.resume_recording("000", rows=16, threads=4) as again:
        append_rows(again, values, 16)
        again.finish()
    assert np.array_equal(store.recording().read_rows(0, 48), values)
    assert store.verify() == []


@pytest.mark.parametrize(
    ("cores", "busy", "tensors", "threads", "waits"),
    [
        (2, 2, True, 2, True),
        (2, 1, True, 1, False),
        (8, 2, True, 6, False),
        (1, 1, True, 1, True),
        (4, 4, False, 3, False),
    ],
)
def test_as_many_threads_compress_as_training_leaves_cores_and_where_it_leaves_none_it_waits(
    tmp_path, monkeypatch, cores, busy, tensors, threads, waits
):
    monkeypatch.setattr(writer_module, "own_cores", lambda: cores)
    monkeypatch.setattr(torch, "get_num_threads", lambda: busy)
    events, real = [], Codec.encode

    def encode(codec, chunk):
        if chunk.shape == (16, 16384):
            time.sleep(0.01)
            events.append("compressed")
        return real(codec, chunk)

    monkeypatch.setattr(Codec, "encode", encode)
    columns = 7 * 16384
    store, row = make_store(tmp_path / "t.zarr", columns), np.zeros(columns, np.float32)
    with store.create_recording(INFO, np.ones(columns, bool), max_rows=32, block_rows=16) as writer:
        for number in range(16):
            writer.append(torch.from_numpy(row) if tensors else row, **scalars(number))
        events.append("training goes on")
        writer.flush()
        assert len(writer._helpers._threads) == threads - 1
    assert events.count("compressed") == 7
    assert (events[-1] == "training goes on") == waits


def test_notes_are_those_of_the_last_commit_and_no_part_of_what_identifies_a_recording(tmp_path, store):
    values, noted = make_rows(10, 10), {"vanished": {"0": [1, 10]}}
    writer = begin(store)
    writer.noted = noted
    append_rows(writer, values, 0, 6)
    writer.close()
    resumed = store.resume_recording("000", rows=6)
    assert resumed.noted == noted
    resumed.noted = {**noted, "precision": "float32"}
    append_rows(resumed, values, 6, 10)
    resumed.finish()
    reader = store.recording()
    assert (reader.noted, reader.precision) == ({**noted, "precision": "float32"}, "float32")
    assert reader.vanished_share == 0.1
    assert store.verify() == []
    other = make_store(tmp_path / "plain", 6, 4)
    with begin(other) as writer:
        append_rows(writer, values)
        writer.finish()
    assert b"noted" not in other.recording().layout.commit_log.path.read_bytes()
    assert other.recording().digest == reader.digest
