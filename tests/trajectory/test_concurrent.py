import threading

import numpy as np
import pytest
from store_builders import INFO, append_rows, make_rows, make_store

from causalprune.base.errors import MismatchError
from causalprune.trajectory import Store

ROWS, COLUMNS = 150, 64


def test_readers_see_whole_rows_while_a_writer_goes_on(tmp_path):
    """The writer flushes at every third row, so that the last shard is replaced again and again under the readers."""
    path = tmp_path / "t.zarr"
    values = make_rows(ROWS, COLUMNS)
    store = make_store(path, COLUMNS)
    writer = store.create_recording(INFO, np.ones(COLUMNS, bool), max_rows=ROWS, codec="exact", block_rows=8)
    done = threading.Event()

    def write():
        for row in range(ROWS):
            append_rows(writer, values, row, row + 1)
            if row % 3 == 2:
                writer.flush()
        writer.finish()
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    seen, looks = 0, 0
    try:
        while not done.is_set() or looks < 3:
            reader = Store.open(path).recording()
            assert reader.num_rows >= seen
            seen = reader.num_rows
            assert np.array_equal(reader.read_columns(0, COLUMNS), values[:seen])
            # And once more, with an index that may be that of a file replaced meanwhile.
            assert np.array_equal(reader.read_rows(0, seen), values[:seen])
            assert len(reader.steps) == seen
            assert reader.verify() == []
            looks += 1
    finally:
        thread.join()
    assert Store.open(path).recording().num_rows == ROWS


def test_an_old_reader_keeps_its_rows_when_their_shard_is_replaced(tmp_path):
    values = make_rows(20, COLUMNS)
    store = make_store(tmp_path / "t.zarr", COLUMNS)
    writer = store.create_recording(INFO, np.ones(COLUMNS, bool), max_rows=20, codec="exact", block_rows=8)
    append_rows(writer, values, 0, 10)
    writer.flush()
    old = store.recording()
    used = store.recording()
    used.read_rows(0, 10)
    append_rows(writer, values, 10)
    writer.finish()
    for reader in (old, used):
        assert reader.num_rows == 10
        assert np.array_equal(reader.read_columns(0, COLUMNS), values[:10])


def test_a_recording_that_was_rewound_under_a_reader(tmp_path):
    values = make_rows(20, COLUMNS)
    store = make_store(tmp_path / "t.zarr", COLUMNS)
    with store.create_recording(INFO, np.ones(COLUMNS, bool), max_rows=20, block_rows=8) as writer:
        append_rows(writer, values)
    reader = store.recording()
    store.resume_recording("000", rows=4).abort()
    with pytest.raises(MismatchError, match="20 rows, as when it was opened"):
        reader.read_columns(0, COLUMNS)


def test_an_announced_replacement_may_have_happened_or_not(tmp_path, monkeypatch):
    """A crash just before and just after the renaming of a fuller shard."""
    import causalprune.base.files as files

    values = make_rows(8, COLUMNS)
    for happened in (False, True):
        store = make_store(tmp_path / f"{happened}.zarr", COLUMNS)
        writer = store.create_recording(INFO, np.ones(COLUMNS, bool), max_rows=8, codec="exact", block_rows=8)
        append_rows(writer, values, 0, 5)
        writer.flush()
        real = files.Disk.replace

        def replace(source, target, happened=happened, real=real):
            if happened:
                real(source, target)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(files.Disk, "replace", staticmethod(replace))
            append_rows(writer, values, 5)
            with pytest.raises(KeyboardInterrupt):
                writer.flush()
        writer.abort()
        assert store.verify() == []
        reader = store.recording()
        assert np.array_equal(reader.read_rows(0, 5), values[:5])
        with store.resume_recording("000", rows=5) as again:
            append_rows(again, values, 5)
            again.finish()
        assert np.array_equal(store.recording().read_rows(0, 8), values)
        assert store.verify() == []
