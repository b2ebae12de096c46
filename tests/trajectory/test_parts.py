"""Several writers of one recording: the bytes of a single one, and one fate for all, whoever fails."""

import threading
from itertools import pairwise

import google_crc32c
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_builders import INFO, append_rows, make_rows, make_store, tree

from causalprune.base import files
from causalprune.base.compute.runtime import PeerFailure
from causalprune.base.errors import DataError, StorageError, UsageError
from causalprune.base.paths import parse_place
from causalprune.trajectory import Store
from causalprune.trajectory.columns.parts import combined_checksum, own_columns
from causalprune.trajectory.schema import BlockShape

COLUMNS = 20_500
"""Three chunks, the last one with padding."""


def test_each_keeps_as_many_blocks_back(tmp_path):
    store = make_store(tmp_path / "t.zarr", COLUMNS)
    first, *others = partners(5)
    writer = store.create_recording(INFO, np.ones(COLUMNS, bool), partners=first, queue_bytes=2**25)
    writers = [writer, *(store.join_recording("000", partner, queue_bytes=2**25) for partner in others)]
    assert {writer.columns.stop - writer.columns.start for writer in writers} >= {0, 8192}
    assert len({writer._capacity for writer in writers}) == 1
    for writer in writers:
        writer.abort()


class Thread:
    """One of several partners that are threads."""

    def __init__(self, rank, barrier, values):
        self.rank, self.count = rank, barrier.parties
        self._barrier, self._values = barrier, values

    def gather(self, value):
        self._values[self.rank] = value
        self._barrier.wait(30)
        found = list(self._values)
        self._barrier.wait(30)
        return found

    def close(self):
        pass


def partners(count):
    barrier, values = threading.Barrier(count), [None] * count
    return [Thread(rank, barrier, values) for rank in range(count)]


def together(store, count, write, *, rows=None, **options):
    """Let ``count`` threads write; returns what each has raised."""
    errors, ready = [None] * count, threading.Barrier(count)

    def run(partner):
        try:
            if partner.rank == 0 and rows is None:
                writer = store.create_recording(INFO, np.ones(COLUMNS, bool), partners=partner, **options)
            elif partner.rank == 0:
                writer = store.resume_recording("000", rows=rows, partners=partner)
            ready.wait(30)
            if partner.rank:
                writer = Store.open(store.path).join_recording("000", partner)
            with writer:
                write(writer)
        except BaseException as error:
            errors[partner.rank] = error

    threads = [threading.Thread(target=run, args=[partner]) for partner in partners(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def part_of(values, writer):
    return values[:, writer.columns]


def counted(writer, row, values):
    """Note, as a recorder does, how many columns of a row are 0."""
    noted = writer.noted.get("vanished", {})
    zeros = [int((values[row] == 0).sum()), values.shape[1]]
    writer.noted = {**writer.noted, "vanished": {**noted, str(row): zeros}}


@pytest.fixture
def alone(tmp_path):
    """A recording by one writer, with a flush in between, and its rows."""
    values = make_rows(150, COLUMNS)
    store = make_store(tmp_path / "alone", COLUMNS)
    with store.create_recording(INFO, np.ones(COLUMNS, bool), max_rows=150) as writer:
        write(writer, values)
        writer.finish()
    return store.path, values


def write(writer, values, start=0, stop=150):
    for row in range(start, stop):
        if row in (0, 1, 128):
            counted(writer, row, part_of(values, writer))
        append_rows(writer, part_of(values, writer), row, row + 1)
        if row == 70:
            writer.flush()
    writer.flush()


@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_store_is_that_of_one_writer_byte_for_byte(tmp_path, alone, count):
    """With five writers of three chunks some have no columns."""
    path, values = alone

    def record(writer):
        write(writer, values)
        writer.finish()

    store = make_store(tmp_path / "shared", COLUMNS)
    assert together(store, count, record, max_rows=150) == [None] * count
    assert tree(store.path) == tree(path)


def test_any_number_of_writers_continues_a_recording(tmp_path, alone):
    path, values = alone
    store = make_store(tmp_path / "shared", COLUMNS)
    assert together(store, 2, lambda writer: write(writer, values, 0, 100), max_rows=150) == [None, None]
    assert together(store, 3, lambda writer: write(writer, values, 90, 130), rows=90) == [None] * 3

    with store.resume_recording("000", rows=130) as writer:
        write(writer, values, 130)
        writer.finish()
    assert tree(store.path) == tree(path)


@pytest.mark.parametrize("bad", [0, 1])
def test_a_value_that_is_not_finite_stops_all_and_leaves_the_last_commit(tmp_path, alone, bad):
    _, values = alone
    values[100, [5, -5][bad]] = np.nan
    store = make_store(tmp_path / "shared", COLUMNS)
    errors = together(store, 2, lambda writer: write(writer, values), max_rows=150)
    assert isinstance(errors[bad], DataError)
    assert isinstance(errors[1 - bad], PeerFailure)
    column = [5, COLUMNS - 5][bad]
    for error in errors:
        assert f"delta of row 100, layer0.weight[{column}]: expected a finite number" in str(error)
        assert error.exit_code == DataError.exit_code
    reader = store.recording()
    assert (reader.num_rows, reader.finished, reader.verify()) == (71, False, [])
    assert not [name for name in tree(store.path) if "partial" in name]


def test_a_disk_that_refuses_one_stops_all(tmp_path, alone):
    _, values = alone
    store = make_store(tmp_path / "shared", COLUMNS)

    class Full(files.Disk):
        @staticmethod
        def write(descriptor, data):
            # Commits are shorter, chunks longer.
            if len(data) > 100_000:
                raise OSError(28, "No space left on device")
            return files.Disk.write(descriptor, data)

    assert together(store, 2, lambda writer: write(writer, values, 0, 64), max_rows=150) == [None, None]
    with files.use(Full()):
        errors = together(store, 2, lambda writer: write(writer, values, 64), rows=64)
    assert {type(error) for error in errors} <= {StorageError, PeerFailure}
    assert all("no space left" in str(error).lower() for error in errors)
    reader = store.recording()
    assert (reader.num_rows, reader.verify()) == (64, [])
    assert not [name for name in tree(store.path) if "partial" in name]


def test_closing_without_the_others_keeps_what_is_committed(tmp_path, alone):
    _, values = alone
    store = make_store(tmp_path / "shared", COLUMNS)

    def leave(writer):
        append_rows(writer, part_of(values, writer), 0, 50)
        writer.flush()
        append_rows(writer, part_of(values, writer), 50, 60)

    assert together(store, 2, leave, max_rows=150) == [None, None]
    assert store.recording().num_rows == 50


def test_object_storage_has_one_writer(tmp_path):
    store = make_store(tmp_path / "shared", COLUMNS)
    store.path = parse_place("s3://bucket/t.zarr")
    with pytest.raises(UsageError, match="a store on a disk that all processes see, found s3://bucket/"):
        store.create_recording(INFO, np.ones(COLUMNS, bool), partners=partners(2)[0])


@given(st.integers(1, 400_000), st.integers(1, 64), st.integers(1, 9))
def test_each_column_has_one_writer_and_no_chunk_two(columns, rows, count):
    shape = BlockShape.choose(columns, rows)
    parts = [own_columns(shape, rank, count) for rank in range(count)]
    assert (parts[0].start, parts[-1].stop) == (0, columns)
    assert all(before.stop == after.start for before, after in pairwise(parts))
    assert all(part.start % shape.width == 0 for part in parts if part.start < columns)
    chunks = [-(-(part.stop - part.start) // shape.width) for part in parts]
    assert max(chunks) - min(chunks) <= 1


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_checksums_of_pieces_are_combined(first, second):
    expected = google_crc32c.value(first + second)
    assert combined_checksum(google_crc32c.value(first), google_crc32c.value(second), len(second)) == expected
