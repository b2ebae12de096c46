"""Rows recorded once more: the stored ones pass whatever the codec, and any other is found."""

import numpy as np
import pytest
from store_builders import append_rows, make_recording, make_rows, scalars

from causalprune.errors import MismatchError
from causalprune.store.comparing import ComparingWriter


@pytest.fixture(params=["exact", "balanced", "small"])
def recorded(request, tmp_path):
    """A store of 21 rows in shards of 8, its exact deltas and its codec."""
    make_recording(tmp_path / "s.zarr", codec=request.param)
    from causalprune.store import TrajectoryStore

    return TrajectoryStore.open(tmp_path / "s.zarr"), make_rows(21, 50), request.param


@pytest.mark.parametrize("done", [0, 5, 16])
def test_the_same_rows_pass_from_wherever_they_go_on(recorded, done):
    store, values, codec = recorded
    writer = ComparingWriter(store.recording(), codec, done)
    append_rows(writer, values, start=done)
    assert writer.flush() == 21
    writer.finish()


@pytest.mark.parametrize("row", [0, 7, 8, 20])
def test_another_row_is_found(recorded, row):
    store, values, codec = recorded
    bits = values[row].view(np.uint32)
    bits[3] ^= np.uint32(1 << (23 - {"exact": 23, "balanced": 10, "small": 7}[codec]))
    writer = ComparingWriter(store.recording(), codec)
    append_rows(writer, values, stop=row)
    with pytest.raises(MismatchError, match=f"another row {row}; .*--overwrite"):
        writer.append(values[row], **scalars(row))


@pytest.mark.parametrize("name", list(scalars(0)))
def test_another_scalar_is_found(recorded, name):
    store, values, codec = recorded
    changed = {**scalars(0), name: np.nextafter(float(scalars(0)[name]), 9)}
    with pytest.raises(MismatchError, match="another row 0"):
        ComparingWriter(store.recording(), codec).append(values[0], **changed)


def test_a_row_less_or_more_is_found(recorded):
    store, values, codec = recorded
    writer = ComparingWriter(store.recording(), codec)
    append_rows(writer, values, stop=20)
    with pytest.raises(MismatchError, match="20 of 21 rows"):
        writer.finish()
    append_rows(writer, values, start=20)
    with pytest.raises(MismatchError, match="another row 21"):
        writer.append(values[20], **scalars(21))


def test_what_was_compacted_since_is_rounded_as_it_was(tmp_path):
    make_recording(tmp_path / "s.zarr", codec="balanced")
    from causalprune.store import TrajectoryStore

    store = TrajectoryStore.open(tmp_path / "s.zarr")
    store.recode_recording("000", "small")
    writer = ComparingWriter(store.recording(), "balanced")
    append_rows(writer, make_rows(21, 50))
    writer.finish()
