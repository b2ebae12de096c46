import shutil

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_builders import INFO, append_rows, make_recording, make_rows, make_store, tree

from causalprune.base.errors import CorruptError, DataError, MismatchError
from causalprune.trajectory import Store


def begin(store, max_rows=30, codec="balanced"):
    return store.create_recording(INFO, np.ones(50, bool), max_rows=max_rows, codec=codec, block_rows=8)


@settings(max_examples=25, deadline=None)
@given(
    codec=st.sampled_from(["exact", "balanced", "small"]),
    cuts=st.lists(st.tuples(st.integers(0, 21), st.integers(0, 21)), max_size=4),
)
def test_resumed_at_any_row_any_number_of_times_the_store_is_the_same_bytes(tmp_path_factory, codec, cuts):
    root = tmp_path_factory.mktemp("resume")
    _, values = make_recording(root / "straight", codec=codec, max_rows=30)
    store = make_store(root / "cut", 50)
    writer = begin(store, codec=codec)
    for committed, kept in cuts:
        append_rows(writer, values, writer.rows_appended, max(committed, writer.rows_appended))
        writer.flush()
        writer.abort()
        committed = store.recording().num_rows
        writer = store.resume_recording("000", rows=min(kept, committed))
        assert writer.rows_appended == store.recording().num_rows == min(kept, committed)
        assert store.verify() == []
    append_rows(writer, values, writer.rows_appended)
    writer.finish()
    assert tree(root / "cut") == tree(root / "straight")


@pytest.mark.parametrize("rows", [0, 5, 16, 21])
def test_a_finished_recording_can_be_taken_up_again(tmp_path, rows):
    _, values = make_recording(tmp_path / "straight", max_rows=30)
    shutil.copytree(tmp_path / "straight", tmp_path / "again")
    store = Store.open(tmp_path / "again")
    writer = store.resume_recording("000", rows=rows)
    reader = store.recording()
    assert (reader.num_rows, reader.finished) == (rows, False)
    append_rows(writer, values, rows)
    writer.finish()
    assert tree(tmp_path / "again") == tree(tmp_path / "straight")


def test_a_row_that_comes_out_different_after_a_resume_is_the_one_that_counts(tmp_path):
    store = make_store(tmp_path / "t.zarr", 50)
    first, second = make_rows(12, 50, 1), make_rows(12, 50, 2)
    writer = begin(store, codec="exact")
    append_rows(writer, first)
    writer.close()
    writer = store.resume_recording("000", rows=5)
    append_rows(writer, second, 5)
    writer.finish()
    assert np.array_equal(store.recording().read_rows(0, 12), np.concatenate([first[:5], second[5:]]))


def test_a_checkpoint_ahead_of_the_recording(tmp_path):
    store = make_store(tmp_path / "t.zarr", 50)
    writer = begin(store)
    append_rows(writer, make_rows(3, 50))
    writer.close()
    with pytest.raises(MismatchError, match="at least 4 rows"):
        store.resume_recording("000", rows=4)
    with pytest.raises(DataError, match="recording '001'"):
        store.resume_recording("001", rows=0)
    assert store.writer is None


def test_leftovers_of_a_crash_are_removed(tmp_path):
    store = make_store(tmp_path / "t.zarr", 50)
    writer = begin(store)
    append_rows(writer, make_rows(8, 50))
    writer.close()
    recording = store.path / "recordings/000"
    (recording / "delta/.c.1.0.partial-77-0").write_bytes(b"half")
    (recording / ".steps.partial-77-1").mkdir()
    (store.path / "recordings/.001.partial-77-2").mkdir()
    # The crash came between the renaming of a shard and its commit.
    shutil.copy(recording / "delta/c.0.0", recording / "delta/c.1.0")
    assert store.verify() == []
    store.resume_recording("000", rows=8).abort()
    names = [name for name in tree(store.path) if "partial" in name or "c.1.0" in name]
    assert names == []
    assert list((store.path / "recordings").glob(".*")) == []


@pytest.mark.parametrize("number", [0, 1])
def test_a_damaged_shard_is_found_before_anything_is_dropped(tmp_path, number):
    store = make_store(tmp_path / "t.zarr", 50)
    writer = begin(store)
    append_rows(writer, make_rows(14, 50))
    writer.close()
    path = store.path / f"recordings/000/delta/c.{number}.0"
    path.write_bytes(path.read_bytes()[:-1])
    before = tree(store.path)
    with pytest.raises(CorruptError, match=f"c.{number}.0"):
        store.resume_recording("000", rows=14)
    assert tree(store.path) == before
