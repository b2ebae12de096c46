import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from store_builders import INFO, append_rows, make_recording, make_rows, make_store

from causalprune.errors import DataError, UsageError
from causalprune.store.export import export_recording
from causalprune.store.steps import STEP_FIELDS

LOADERS = {".npz": np.load, ".safetensors": load_file}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Three parameters, the middle one pruned away, and some of the others."""
    active = np.random.default_rng(0).random(40) < 0.7
    active[10:25] = False
    values = make_rows(23, int(active.sum()))
    store = make_store(tmp_path_factory.mktemp("export") / "t.zarr", 10, 15, 15)
    with store.create_recording(INFO, active, max_rows=23, codec="exact", block_rows=4) as writer:
        append_rows(writer, values)
        writer.finish()
    return store.recording(), values, active


@settings(max_examples=40, deadline=None)
@given(
    start=st.integers(0, 22),
    count=st.integers(1, 23),
    layers=st.lists(st.sampled_from([0, 2]), max_size=2, unique=True),
    suffix=st.sampled_from(sorted(LOADERS)),
)
def test_other_libraries_read_the_slice(tmp_path_factory, recorded, start, count, layers, suffix):
    reader, values, active = recorded
    stop = min(start + count, 23)
    path = tmp_path_factory.mktemp("slice") / f"slice{suffix}"
    names = [f"layer{layer}.weight" for layer in layers]
    positions = np.flatnonzero(active)
    bounds = {0: (0, 10), 2: (25, 40)}
    chosen = [np.flatnonzero((positions >= bounds[n][0]) & (positions < bounds[n][1])) for n in layers]
    columns = np.concatenate(chosen) if chosen else np.arange(len(positions))
    assert export_recording(reader, path, rows=slice(start, stop), parameters=names) == (stop - start, len(columns))
    loaded = LOADERS[suffix](path)
    assert sorted(loaded) == sorted(["column", "delta", *STEP_FIELDS])
    assert loaded["delta"].dtype == np.float32
    assert loaded["delta"].tobytes() == np.ascontiguousarray(values[start:stop, columns]).tobytes()
    assert np.array_equal(loaded["column"], positions[columns])
    for name in STEP_FIELDS:
        assert np.array_equal(loaded[name], reader.steps[name][start:stop])
        assert loaded[name].dtype == reader.steps[name].dtype


def test_slices_that_do_not_exist(tmp_path, recorded):
    reader, _, _ = recorded
    for options, error, match in (
        ({"rows": slice(5, 24)}, DataError, "within 0:23"),
        ({"rows": slice(5, 5)}, DataError, "within 0:23"),
        ({"parameters": ["layer1.weight"]}, DataError, "a column to export"),
        ({"parameters": ["layer7.weight"]}, UsageError, "layer"),
    ):
        with pytest.raises(error, match=match):
            export_recording(reader, tmp_path / "x.npz", **options)
    with pytest.raises(UsageError, match=r"\.npz or \.safetensors"):
        export_recording(reader, tmp_path / "x.csv")
    assert list(tmp_path.iterdir()) == []


def test_equal_recordings_give_equal_files(tmp_path):
    for name in ("a", "b"):
        store, _ = make_recording(tmp_path / name)
        export_recording(store.recording(), tmp_path / f"{name}.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
