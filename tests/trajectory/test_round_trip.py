import json

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from store_builders import INFO, append_rows, make_recording, make_rows, make_store, scalars, tree

from causalprune.trajectory import Store

MANTISSA_BITS = {"exact": 23, "balanced": 10, "small": 7}


def nearest(values, bits):
    """The nearest float with that many explicit mantissa bits, ties away from zero: in float64, by its definition."""
    fraction, exponent = np.frexp(values.astype(np.float64))
    scaled = np.ldexp(fraction, bits + 1)
    rounded = np.copysign(np.floor(np.abs(scaled) + 0.5), scaled)
    return np.ldexp(rounded, exponent - bits - 1).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 40),
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    block_rows=st.one_of(st.none(), st.integers(1, 17)),
    codec=st.sampled_from(sorted(MANTISSA_BITS)),
    seed=st.integers(0, 2**32 - 1),
    flushes=st.sets(st.integers(0, 40), max_size=4),
    spare=st.integers(0, 20),
)
def test_what_is_recorded_is_read_by_us_and_by_zarr(
    tmp_path_factory, rows, sizes, block_rows, codec, seed, flushes, spare
):
    path = tmp_path_factory.mktemp("store") / "t.zarr"
    active = np.random.default_rng(seed).random(sum(sizes)) < 0.7
    active[seed % len(active)] = True
    values = make_rows(rows, int(active.sum()), seed)
    store = make_store(path, *sizes)
    with store.create_recording(INFO, active, max_rows=rows + spare, codec=codec, block_rows=block_rows) as writer:
        for row in range(rows):
            writer.append(values[row], **scalars(row))
            if row in flushes:
                assert writer.flush() == row + 1
        writer.finish()
    expected = nearest(values, MANTISSA_BITS[codec])

    reader = Store.open(path).recording()
    assert reader.verify() == []
    assert (reader.num_rows, reader.num_columns, reader.finished) == (rows, len(values[0]), True)
    assert reader.info == INFO
    assert np.array_equal(reader.active, active)
    assert np.array_equal(reader.column_index, np.flatnonzero(active))
    assert reader.read_columns(0, reader.num_columns).tobytes() == expected.tobytes()
    assert reader.read_rows(0, rows).tobytes() == expected.tobytes()
    for name in scalars(0):
        assert reader.steps[name].tolist() == [scalars(row)[name] for row in range(rows)]
    assert reader.loss_change.tolist() == [
        scalars(row)["loss_after"] - scalars(row)["loss_before"] for row in range(rows)
    ]

    group = zarr.open_group(path, mode="r")["recordings/000"]
    assert sorted(name for name, _ in group.members()) == ["active", "delta", "fits", "steps"]
    assert group["delta"][:].tobytes() == expected.tobytes()
    assert np.array_equal(group["active"][:], active)
    assert group["steps"][:].tolist() == [[scalars(row)[name] for row in range(rows)] for name in scalars(0)]


def test_several_chunks_in_a_shard_and_the_last_one_padded(tmp_path):
    columns = 2 * 16384 + 77
    _, values = make_recording(tmp_path / "t.zarr", rows=40, columns=columns, block_rows=16, codec="exact")
    reader = Store.open(tmp_path / "t.zarr").recording()
    assert reader.block_width == 16384
    delta = zarr.open_array(tmp_path / "t.zarr/recordings/000/delta", mode="r")
    assert delta.shards == (16, 3 * 16384)
    assert delta.chunks == (16, 16384)
    assert np.array_equal(delta[:], values)
    assert np.array_equal(delta[:, 16383:16385], values[:, 16383:16385])
    for start, stop in ((0, columns), (16383, 32769), (32768, columns), (5, 5), (100, 101)):
        assert np.array_equal(reader.read_columns(start, stop), values[:, start:stop])
    for start, stop in ((0, 40), (15, 17), (32, 40), (16, 32), (7, 7)):
        assert np.array_equal(reader.read_rows(start, stop), values[start:stop])


@pytest.mark.parametrize("codec", sorted(MANTISSA_BITS))
def test_tensorstore_reads_every_codec(tmp_path, codec):
    tensorstore = pytest.importorskip("tensorstore")
    columns = 16384 + 3
    _, values = make_recording(tmp_path / "t.zarr", rows=20, columns=columns, block_rows=16, codec=codec)
    for name in ("delta", "active", "steps"):
        path = f"{tmp_path}/t.zarr/recordings/000/{name}/"
        array = tensorstore.open({"driver": "zarr3", "kvstore": {"driver": "file", "path": path}}, read=True).result()
        assert np.array_equal(array.read().result(), zarr.open_array(path, mode="r")[:])
        if name == "delta":
            assert np.array_equal(array.read().result(), nearest(values, MANTISSA_BITS[codec]))


def test_rows_not_recorded_yet_are_nan_to_other_readers_and_absent_to_ours(tmp_path):
    store = make_store(tmp_path / "t.zarr", 10)
    values = make_rows(20, 10)
    writer = store.create_recording(INFO, np.ones(10, bool), max_rows=30, codec="exact", block_rows=8)
    append_rows(writer, values, 0, 11)
    writer.flush()
    delta = zarr.open_array(tmp_path / "t.zarr/recordings/000/delta", mode="r")[:]
    assert delta.shape == (30, 10)
    assert np.array_equal(delta[:11], values[:11])
    assert np.isnan(delta[11:]).all()
    reader = store.recording()
    assert (reader.num_rows, reader.finished) == (11, False)
    assert np.array_equal(reader.read_columns(0, 10), values[:11])
    writer.abort()


def test_the_same_rows_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        make_recording(tmp_path / name)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_one_file_a_shard_and_ten_more(tmp_path):
    make_recording(tmp_path / "t.zarr", rows=80, block_rows=8)
    assert len(tree(tmp_path / "t.zarr")) <= 80 // 8 + 10


def test_store_metadata_round_trip(tmp_path):
    store = make_store(tmp_path / "t.zarr", 3, 4)
    opened = Store.open(tmp_path / "t.zarr")
    assert opened.index == store.index
    assert opened.model == {"name": "toy"}
    assert opened.start_sha256 == "cd" * 32
    assert opened.recordings == ()
    assert json.loads((tmp_path / "t.zarr/zarr.json").read_text())["zarr_format"] == 3


def test_a_foreign_attribute_is_no_damage(tmp_path):
    make_recording(tmp_path / "t.zarr")
    for name in ("", "recordings/000", "recordings/000/delta"):
        path = tmp_path / "t.zarr" / name / "zarr.json"
        document = json.loads(path.read_text())
        document["attributes"]["note"] = "by the user"
        path.write_text(json.dumps(document))
    assert Store.open(tmp_path / "t.zarr").verify() == []
