"""A disk that is full at any one moment: an error, a store that is whole, and the same bytes after a resume."""

import shutil
import threading

import numpy as np
import pytest
from faulty_disk import FREEING, FaultyDisk
from store_builders import INFO, append_rows, make_recording, make_rows, make_store, tree

from causalprune.base import files
from causalprune.base.errors import StorageError
from causalprune.trajectory import Store

ROWS, COLUMNS, CHECKPOINT = 10, 20, 6


def record(path, values, expected_rows=ROWS):
    """Make a store, record with a checkpoint in the middle of a shard, finish; continue whatever there is already."""
    store = Store.open(path) if path.exists() else make_store(path, COLUMNS)
    if store.recordings:
        committed = store.recording().num_rows
        writer = store.resume_recording("000", rows=CHECKPOINT if committed >= CHECKPOINT else 0)
    else:
        writer = store.create_recording(
            INFO, np.ones(COLUMNS, bool), max_rows=expected_rows, codec="exact", block_rows=4
        )
    with writer:
        append_rows(writer, values, writer.rows_appended, max(CHECKPOINT, writer.rows_appended))
        writer.flush()
        append_rows(writer, values, writer.rows_appended)
        writer.finish()


def changes_that_need_space(tmp_path, action):
    """Their numbers."""
    disk = FaultyDisk()
    with files.use(disk):
        action(tmp_path / "counted")
    return [number for number, name in enumerate(disk.changes, 1) if name not in FREEING]


@pytest.mark.parametrize(("full", "rows"), [(False, ROWS), (True, ROWS), (False, 2)])
def test_no_space_at_any_change_of_a_recording(tmp_path, full, rows):
    values = make_rows(ROWS, COLUMNS)
    numbers = changes_that_need_space(tmp_path, lambda path: record(path, values, rows))
    expected = tree(tmp_path / "counted")
    assert len(numbers) > 40
    for number in numbers:
        path = tmp_path / f"{number}"
        error = pytest.raises(StorageError, match="no space left on device")
        with files.use(FaultyDisk("ENOSPC", number, full=full)), error:
            record(path, values, rows)
        if path.exists():
            store = Store.open(path)
            assert store.verify() == []
            assert store.writer is None
            for name in store.recordings:
                reader = store.recording(name)
                assert np.array_equal(reader.read_rows(0, reader.num_rows), values[: reader.num_rows])
        record(path, values, rows)
        assert tree(path) == expected, number


def test_no_space_while_four_threads_compress(tmp_path):
    """Whatever chunk can't be written: none is compressed any more, and the same bytes come of a second attempt."""
    columns = 5 * 16384
    values = make_rows(20, columns)

    def record_wide(path):
        store = Store.open(path) if path.exists() else make_store(path, columns)
        if store.recordings:
            writer = store.resume_recording("000", rows=0, threads=4)
        else:
            writer = store.create_recording(
                INFO, np.ones(columns, bool), max_rows=20, codec="balanced", block_rows=16, threads=4
            )
        with writer:
            append_rows(writer, values, writer.rows_appended)
            writer.finish()

    numbers, before = changes_that_need_space(tmp_path, record_wide), set(threading.enumerate())
    expected = tree(tmp_path / "counted")
    for number in numbers[::3]:
        path = tmp_path / f"{number}"
        with files.use(FaultyDisk("ENOSPC", number, full=True)), pytest.raises(StorageError, match="no space left"):
            record_wide(path)
        assert set(threading.enumerate()) <= before
        record_wide(path)
        assert tree(path) == expected, number
        shutil.rmtree(path)


def test_no_space_at_any_change_of_a_resume(tmp_path):
    values = make_rows(ROWS, COLUMNS)
    make_recording(tmp_path / "expected", ROWS, COLUMNS, block_rows=4, codec="exact")
    expected = tree(tmp_path / "expected")

    def again(path):
        store = Store.open(path)
        with store.resume_recording("000", rows=3) as writer:
            append_rows(writer, values, 3)
            writer.finish()

    make_recording(tmp_path / "counted", ROWS, COLUMNS, block_rows=4, codec="exact")
    for number in changes_that_need_space(tmp_path, again):
        path = tmp_path / f"{number}"
        store, _ = make_recording(path, ROWS, COLUMNS, block_rows=4, codec="exact")
        with files.use(FaultyDisk("ENOSPC", number)), pytest.raises(StorageError):
            again(path)
        reader = store.recording()
        assert np.array_equal(reader.read_rows(0, reader.num_rows), values[: reader.num_rows])
        assert reader.num_rows >= 3
        again(path)
        assert tree(path) == expected, number


def test_no_space_at_any_change_of_a_fit(tmp_path):
    old, new = {"gamma": np.arange(20.0)}, {"gamma": -np.arange(20.0)}
    store, _ = make_recording(tmp_path / "counted", ROWS, COLUMNS)
    store.fits().write("default", old, {"alpha": 1})

    def replace(path):
        Store.open(path).fits().write("default", new, {"alpha": 2}, overwrite=True)

    for number in changes_that_need_space(tmp_path, replace):
        path = tmp_path / f"{number}"
        store, _ = make_recording(path, ROWS, COLUMNS)
        reader = store.recording()
        store.fits().write("default", old, {"alpha": 1})
        with files.use(FaultyDisk("ENOSPC", number)), pytest.raises(StorageError):
            replace(path)
        assert reader.fits == ("default",)
        fit = reader.read_fit("default")
        assert fit.arrays["gamma"].tolist() == (old if fit.attributes["alpha"] == 1 else new)["gamma"].tolist()
        assert store.verify() == []
        replace(path)
        assert reader.read_fit("default").attributes == {"alpha": 2}
        assert [name for name in tree(path / "recordings/000/fits") if "." in name.split("/")[0][:1]] == []
