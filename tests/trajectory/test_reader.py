import json
import shutil
import subprocess
import sys
import threading

import google_crc32c
import numpy as np
import pytest
from store_builders import INFO, append_rows, make_recording, make_rows, make_store

from causalprune.base.errors import CorruptError, DataError, MismatchError
from causalprune.trajectory import Store
from causalprune.trajectory.storage import locate
from causalprune.trajectory.zarr_files import attributes_checksum, canonical_bytes, read_attributes, write_array

ROWS, COLUMNS, BLOCK_ROWS = 37, 40_000, 16


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Three chunks of 16384 columns, two full shards and a part of one, exact."""
    path = tmp_path_factory.mktemp("reader") / "t.zarr"
    return make_recording(path, ROWS, COLUMNS, BLOCK_ROWS, "exact", max_rows=60)


@pytest.mark.parametrize("prefetch", [0, 1, 3])
@pytest.mark.parametrize("width", [None, 7001, 16384, 32768, 10**6])
def test_column_blocks(recorded, width, prefetch):
    store, values = recorded
    reader = store.recording()
    used = width or reader.block_width
    stop = 0
    for start, block in reader.column_blocks(width, prefetch=prefetch):
        assert start == stop
        stop = min(start + used, COLUMNS)
        assert np.array_equal(block, values[:, start:stop])
    assert stop == COLUMNS


@pytest.mark.parametrize("count", [1, 50, 5000, COLUMNS])
def test_column_blocks_of_chosen_columns(recorded, count):
    store, values = recorded
    chosen = np.sort(np.random.default_rng(count).choice(COLUMNS, count, replace=False))
    parts = list(store.recording().column_blocks(9000, columns=chosen))
    assert [start for start, _ in parts] == list(np.cumsum([0] + [p.shape[1] for _, p in parts[:-1]]))
    assert np.array_equal(np.concatenate([p for _, p in parts], axis=1), values[:, chosen])


def test_chosen_columns_read_only_their_chunks(recorded):
    reader = recorded[0].recording()
    list(reader.column_blocks(columns=np.array([20_000])))
    one = reader.bytes_read
    assert 0 < one < 0.45 * reader.stored_bytes
    list(reader.column_blocks())
    assert 0.9 * reader.stored_bytes < reader.bytes_read - one <= reader.stored_bytes


@pytest.mark.parametrize("prefetch", [0, 2])
@pytest.mark.parametrize("height", [None, 1, 5, 16, 24, 32, 33, 1000])
def test_row_blocks(recorded, height, prefetch):
    store, values = recorded
    used = height or BLOCK_ROWS
    starts = []
    for start, block in store.recording().row_blocks(height, prefetch):
        starts.append(start)
        assert np.array_equal(block, values[start : start + used])
    assert starts == list(range(0, ROWS, used))


def test_reading_into_a_buffer_with_a_kernel(recorded):
    store, values = recorded
    reader = store.recording()
    for columns in (slice(5, 20_000), slice(0, 16384)):
        out = np.full((ROWS, columns.stop - columns.start), np.nan, np.float32)
        result = reader.read_columns(
            columns.start, columns.stop, out, lambda values, out: np.multiply(values, values, out=out)
        )
        assert result is out
        assert np.array_equal(out, values[:, columns] ** 2)
    rows = np.empty((3, COLUMNS), np.float32)
    assert reader.read_rows(30, 33, rows) is rows
    assert np.array_equal(rows, values[30:33])
    for bad in (np.empty((ROWS, 3)), np.empty((ROWS, 2), np.float32)):
        with pytest.raises(ValueError, match="out is"):
            reader.read_columns(0, 3, bad)
    with pytest.raises(IndexError):
        reader.read_columns(0, COLUMNS + 1)
    with pytest.raises(IndexError):
        reader.read_rows(3, 2)


def test_blocks_that_the_caller_keeps_keep_their_values(recorded):
    store, values = recorded
    kept = [(start, block[:, 3]) for start, block in store.recording().column_blocks(1000)]
    for start, column in kept:
        assert np.array_equal(column, values[:, start + 3])


def test_a_value_that_is_not_finite_is_named_whenever_it_is_read(tmp_path, monkeypatch):
    store, values = make_store(tmp_path / "t.zarr", COLUMNS), make_rows(ROWS, COLUMNS)
    values[5, 17_000] = np.nan
    with monkeypatch.context() as patch:
        # The writer refuses it; what else wrote the file may not have.
        patch.setattr("causalprune.trajectory.shard._require_finite", lambda *_: None)
        with store.create_recording(
            INFO, np.ones(COLUMNS, bool), max_rows=ROWS, codec="exact", block_rows=BLOCK_ROWS
        ) as writer:
            append_rows(writer, values)
            writer.finish()
    reader = store.recording()
    # Parts of its chunk, and other chunks, are finite.
    assert np.array_equal(reader.read_rows(6, ROWS), values[6:])
    assert np.array_equal(reader.read_columns(0, 16_384), values[:, :16_384])
    for _ in range(2):
        with pytest.raises(DataError, match=r"delta of row 5, layer0\.weight\[17000\].*finite"):
            reader.read_columns(0, COLUMNS)
        with pytest.raises(DataError, match=r"delta of row 5, layer0\.weight\[17000\].*finite"):
            reader.read_rows(5, 6)


def test_whole_chunks_are_looked_at_once(recorded, monkeypatch):
    store, values = recorded
    looked = []
    monkeypatch.setattr(np, "isfinite", lambda array, real=np.isfinite: looked.append(array.shape) or real(array))
    reader = store.recording()
    assert np.array_equal(reader.read_columns(0, COLUMNS), values)
    whole = looked.count((BLOCK_ROWS, reader.schema.shape.width))
    assert whole > 0
    looked.clear()
    assert np.array_equal(reader.read_columns(0, COLUMNS), values)
    assert looked.count((BLOCK_ROWS, reader.schema.shape.width)) == 0
    # The last rows, and the last columns, are parts of chunks.
    assert looked


def test_many_threads_share_a_reader(recorded):
    store, values = recorded
    reader = store.recording()
    wrong = []

    def read(seed):
        starts = np.random.default_rng(seed).integers(0, COLUMNS - 500, 10)
        wrong.extend(s for s in starts if not np.array_equal(reader.read_columns(s, s + 500), values[:, s : s + 500]))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_columns_are_named_by_parameter_and_element(tmp_path):
    store = make_store(tmp_path / "t.zarr", 3, 4)
    active = np.array([1, 0, 1, 0, 0, 1, 1], bool)
    with store.create_recording(INFO, active, max_rows=2) as writer:
        append_rows(writer, make_rows(2, 4))
    reader = store.recording()
    names = [reader.describe_column(column) for column in range(4)]
    assert names == ["layer0.weight[0]", "layer0.weight[2]", "layer1.weight[2]", "layer1.weight[3]"]


def test_a_recording_by_name(tmp_path):
    store = make_store(tmp_path / "t.zarr", 5)
    with pytest.raises(DataError, match="run record first"):
        store.recording()
    for count in (2, 3):
        with store.create_recording(INFO, np.ones(5, bool), max_rows=3) as writer:
            append_rows(writer, make_rows(count, 5))
    assert store.recordings == ("000", "001")
    assert store.recording().name == "001"
    assert store.recording("000").num_rows == 2
    with pytest.raises(DataError, match="000, 001"):
        store.recording("002")
    with pytest.raises(MismatchError, match="use the model that was recorded"):
        store.require_index(make_store(tmp_path / "other", 6).index)
    store.require_index(Store.open(store.path).index)


def test_an_empty_recording_can_be_read(tmp_path):
    store = make_store(tmp_path / "t.zarr", 5)
    store.create_recording(INFO, np.ones(5, bool), max_rows=3).close()
    reader = store.recording()
    assert reader.num_rows == 0
    assert reader.read_columns(0, 5).shape == (0, 5)
    assert [block.shape for _, block in reader.column_blocks()] == [(0, 5)]
    assert list(reader.row_blocks()) == list(reader.row_blocks(3)) == []
    assert reader.loss_change.shape == (0,)


def test_digest_tells_recordings_apart_and_not_how_they_came_about(tmp_path):
    first, values = make_recording(tmp_path / "a", max_rows=30)
    again, _ = make_recording(tmp_path / "b", max_rows=30)
    other, _ = make_recording(tmp_path / "c", max_rows=30, codec="small")
    digests = [store.recording().digest for store in (first, again, other)]
    assert digests[0] == digests[1] != digests[2]
    with again.resume_recording("000", rows=3) as writer:
        append_rows(writer, values, 3, 20)
        assert again.recording().digest != digests[0]
        append_rows(writer, values, 20)
        writer.finish()
    assert again.recording().digest == digests[0]


def test_metadata_need_neither_zarr_nor_torch(recorded):
    code = (
        "import sys; from pathlib import Path; from causalprune.trajectory import Store;"
        f"r = Store.open(Path({str(recorded[0].path)!r})).recording();"
        f"assert (r.num_rows, r.loss_change.size, len(r.digest)) == ({ROWS}, {ROWS}, 64);"
        "assert not {'zarr', 'torch', 'numcodecs'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_quick_reader_has_the_same_scalars_and_digest(recorded):
    store, _ = recorded
    quick, reader = store.recording(quick=True), store.recording()
    assert quick.steps.to_matrix().tobytes() == reader.steps.to_matrix().tobytes()
    assert [quick.steps[name].dtype for name in quick.steps.names] == [
        reader.steps[name].dtype for name in reader.steps.names
    ]
    assert quick.digest == reader.digest


@pytest.mark.parametrize("how", ["others", "cut", "gone"])
def test_a_quick_reader_without_its_array_reads_the_log(tmp_path, how):
    store, _ = make_recording(tmp_path / "t.zarr", rows=11, columns=40, block_rows=4)
    expected = store.recording().steps.to_matrix()
    array = tmp_path / "t.zarr/recordings/000/steps"
    if how == "others":
        other, _ = make_recording(tmp_path / "other.zarr", rows=11, columns=40, block_rows=4)
        stored = other.path / "recordings/000/steps"
        shutil.rmtree(stored)
        write_array(locate(stored), expected + 1, ("quantity", "row"))
        shutil.rmtree(array)
        shutil.copytree(stored, array)
    elif how == "cut":
        (array / "c.0.0").write_bytes((array / "c.0.0").read_bytes()[:-1])
    else:
        shutil.rmtree(array)
    assert np.array_equal(store.recording(quick=True).steps.to_matrix(), expected)
    assert len(store.verify()) == 1


def test_a_line_whose_scalars_are_others_is_named_when_they_are_read(tmp_path):
    store, _ = make_recording(tmp_path / "t.zarr", rows=11, columns=40, block_rows=4)
    log = tmp_path / "t.zarr/recordings/000/delta/commits.log"
    attributes = read_attributes(store.layout.recording("000").metadata, "recording")
    chain, lines = attributes_checksum(attributes), []
    for number, line in enumerate(log.read_text().splitlines()):
        record = json.loads(line[9:])
        if number == 1:
            del record["steps"]["lr"]
        text = canonical_bytes(record)
        chain = google_crc32c.extend(chain, text)
        lines.append(f"{chain:08x} {text.decode()}\n")
    log.write_text("".join(lines))
    reader = store.recording()
    assert reader.num_rows == 11
    with pytest.raises(CorruptError, match=r"commits.log line 2: expected a valid commit, found steps without"):
        _ = reader.steps
    assert "line 2" in store.verify()[0]
