import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from store_builders import INFO, append_rows, make_recording, make_rows, make_store

from causalprune.base.errors import DataError, StorageError, UsageError
from causalprune.trajectory.export import Slice, export_recording
from causalprune.trajectory.steps import STEP_FIELDS


def load_zarr(path):
    """By zarr alone; nothing but the arrays may be in the group."""
    group = zarr.open_group(path, mode="r")
    assert group.metadata.zarr_format == 3
    return {name: array[...] for name, array in group.arrays()}


LOADERS = {".npz": np.load, ".safetensors": load_file, ".zarr": load_zarr}


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
    with pytest.raises(UsageError, match=r"ending in \.npz, \.safetensors or \.zarr"):
        export_recording(reader, tmp_path / "x.csv")
    assert list(tmp_path.iterdir()) == []


def files_of(path):
    return {p.relative_to(path): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def test_equal_recordings_give_equal_files(tmp_path):
    for name in ("a", "b"):
        store, _ = make_recording(tmp_path / name)
        export_recording(store.recording(), tmp_path / f"{name}.npz")
        export_recording(store.recording(), tmp_path / f"{name}.zarr")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert files_of(tmp_path / "a.zarr") == files_of(tmp_path / "b.zarr")


def test_the_attributes_of_a_zarr_group_say_what_its_columns_are(tmp_path, recorded):
    reader, values, active = recorded
    export_recording(reader, tmp_path / "x.zarr", rows=slice(2, 9), parameters=["layer2.weight", "layer0.weight"])
    group = zarr.open_group(tmp_path / "x.zarr", mode="r")
    ours = group.attrs["causalprune"]
    assert (ours["recording"], ours["rows"], ours["digest"]) == ("000", [2, 9], reader.digest)
    assert [(p["name"], p["shape"], p["offset"]) for p in ours["parameters"]] == [
        ("layer2.weight", [15], 25),
        ("layer0.weight", [10], 0),
    ]
    columns = np.cumsum(active) - 1
    for parameter in ours["parameters"]:
        start, stop = parameter["columns"]
        inside = np.arange(parameter["offset"], parameter["offset"] + parameter["shape"][0])
        expected = values[2:9, columns[inside[active[inside]]]]
        assert np.array_equal(group["delta"][:, start:stop], expected)


def test_steps_of_zero_are_written_to_zarr(tmp_path):
    """A chunk that is lost reads as NaN, so one of zeros must be there."""
    store = make_store(tmp_path / "t.zarr", 6)
    with store.create_recording(INFO, np.ones(6, bool), max_rows=4, codec="exact", block_rows=2) as writer:
        append_rows(writer, np.zeros((4, 6), np.float32))
        writer.finish()
    export_recording(store.recording(), tmp_path / "x.zarr")
    assert not zarr.open_group(tmp_path / "x.zarr", mode="r")["delta"][...].any()
    (tmp_path / "x.zarr/delta/c/1/0").unlink()
    assert np.isnan(zarr.open_group(tmp_path / "x.zarr", mode="r")["delta"][2:]).all()


def test_a_zarr_export_appears_as_a_whole(tmp_path, recorded, monkeypatch):
    """Also where an earlier one is replaced: a failure in the middle leaves that one, and nothing else."""
    reader, values, _ = recorded
    path = tmp_path / "x.zarr"
    for before in ({}, None):
        monkeypatch.setattr(Slice, "blocks", fails_after_a_block(Slice.blocks))
        with pytest.raises(StorageError, match=r"cannot write .*x\.zarr"):
            export_recording(reader, path, rows=slice(0, 9))
        monkeypatch.undo()
        if before is None:
            assert np.array_equal(load_zarr(path)["delta"], values)
        else:
            assert list(tmp_path.iterdir()) == []
        export_recording(reader, path)
    assert [p.name for p in tmp_path.iterdir()] == ["x.zarr"]


def fails_after_a_block(blocks):
    def failing(self):
        yield next(iter(blocks(self)))
        raise OSError(28, "No space left on device")

    return failing


@pytest.mark.parametrize("codec", ["exact", "balanced", "small"])
def test_the_store_as_a_zarr_group_has_the_reader_s_rows(tmp_path, codec):
    store, _ = make_recording(tmp_path / "t.zarr", codec=codec)
    reader, group = store.recording(), store.zarr()
    recording = group["recordings/000"]
    assert np.array_equal(recording["delta"][...], reader.read_rows(0, reader.num_rows))
    assert np.array_equal(recording["steps"][...], reader.steps.to_matrix())
    assert np.array_equal(recording["active"][...], reader.active)
    with pytest.raises(ValueError, match="read-only"):
        group.create_group("mine")


def test_rows_that_are_not_committed_read_as_nan_through_zarr(tmp_path):
    store = make_store(tmp_path / "t.zarr", 6)
    values = make_rows(5, 6)
    with store.create_recording(INFO, np.ones(6, bool), max_rows=8, codec="exact", block_rows=2) as writer:
        append_rows(writer, values[:4])
        writer.flush()
        delta = store.zarr()["recordings/000/delta"][...]
        assert np.array_equal(delta[:4], values[:4])
        assert np.isnan(delta[4:]).all()
