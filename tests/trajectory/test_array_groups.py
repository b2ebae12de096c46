import json

import numpy as np
import pytest
import zarr
from store_builders import INFO, STATISTICS, append_rows, make_recording, make_rows, make_store, tree

from causalprune.base.errors import CorruptError, DataError, NewerFormatError, UsageError
from causalprune.trajectory import Store
from causalprune.trajectory.zarr_files import attributes_checksum

ARRAYS = {
    "gamma": np.linspace(-1, 1, 50),
    "support": np.arange(50) % 3 == 0,
    "path": np.arange(12, dtype=np.float32).reshape(3, 4),
    "none": np.empty((0, 3), np.int64),
}


@pytest.fixture
def fits(tmp_path):
    return make_recording(tmp_path / "t.zarr")[0].fits()


def test_a_fit_is_read_as_it_was_written_also_by_zarr(fits, tmp_path):
    attributes = {"alpha": 1e-9, "nested": {"ümläut": [1, None, True]}}
    fits.write("default", ARRAYS, attributes)
    fit = fits.read("default")
    assert Store.open(tmp_path / "t.zarr").recording().fits == ("default",)
    assert fit.attributes == attributes
    assert sorted(fit.arrays) == sorted(ARRAYS)
    group = zarr.open_group(tmp_path / "t.zarr/recordings/000/fits/default", mode="r")
    for name, values in ARRAYS.items():
        for found in (fit.arrays[name], group[name][:]):
            assert found.dtype == values.dtype
            assert np.array_equal(found, values)


def test_a_fit_needs_an_unused_name_that_can_be_a_folder(fits, tmp_path):
    fits.write("a", {}, {})
    with pytest.raises(UsageError, match="unused name"):
        fits.write("a", {}, {})
    for name in ("", ".", "..", "a/b", ".hidden", "a b", "x" * 101):
        with pytest.raises(UsageError, match="letters"):
            fits.write(name, {}, {})
        with pytest.raises(DataError):
            fits.read(name)
    with pytest.raises(DataError, match="one of a"):
        fits.read("b")
    assert Store.open(tmp_path / "t.zarr").recording().fits == ("a",)


def test_overwriting_replaces_the_whole(fits):
    fits.write("a", ARRAYS, {"n": 1})
    first = fits.read("a").digest
    fits.write("a", {"gamma": np.zeros(3)}, {"n": 2}, overwrite=True)
    fit = fits.read("a")
    assert (list(fit.arrays), fit.attributes) == (["gamma"], {"n": 2})
    assert fit.digest != first


def test_a_fit_that_cannot_be_written_leaves_the_old_one(fits):
    fits.write("a", ARRAYS, {"n": 1})
    for arrays, attributes in (({"x": np.array(1.0)}, {}), ({"x": np.array(["s"])}, {}), ({}, {"n": float("nan")})):
        with pytest.raises(ValueError):  # noqa: PT011 - whatever says so, it is the caller's mistake
            fits.write("a", arrays, attributes, overwrite=True)
    assert fits.read("a").attributes == {"n": 1}


def test_a_manifest_with_an_absurd_shape_is_damage(fits, tmp_path):
    fits.write("a", ARRAYS, {})
    path = tmp_path / "t.zarr/recordings/000/fits/a/zarr.json"
    document = json.loads(path.read_text())
    ours = document["attributes"]["causalprune"]
    ours["arrays"]["gamma"]["shape"] = [10**18]
    ours["checksum"] = f"{attributes_checksum(ours):08x}"
    path.write_text(json.dumps(document))
    with pytest.raises(CorruptError, match="gamma"):
        fits.read("a").arrays["gamma"]


def test_what_was_measured_of_the_layers_is_read_as_it_was_written_also_by_zarr(tmp_path):
    store, _ = make_recording(tmp_path / "t.zarr", statistics=True)
    reader = store.recording()
    found = reader.read_layer_statistics()
    assert found.attributes == {"samples": 7}
    group = zarr.open_group(tmp_path / "t.zarr/recordings/000/layer_statistics", mode="r")
    for name, values in STATISTICS.items():
        assert np.array_equal(found.arrays[name], values)
        assert np.array_equal(group[name][:], values)
    chunks = (tmp_path / "t.zarr/recordings/000/layer_statistics").rglob("c.*")
    assert reader.layer_statistics_bytes == sum(path.stat().st_size for path in chunks)
    assert store.verify() == []


def test_a_recording_without_statistics_of_its_layers_says_so(tmp_path):
    reader = make_recording(tmp_path / "t.zarr")[0].recording()
    assert reader.read_layer_statistics() is None
    assert reader.layer_statistics_bytes == 0


def test_a_recording_that_is_continued_loses_what_was_measured_at_its_former_end(tmp_path):
    """And it ends with the bytes of one that was never interrupted."""
    values = make_rows(20, 50)
    for name, stops in (("straight", ()), ("continued", (20, 12))):
        store = make_store(tmp_path / name, 50)
        writer = store.create_recording(INFO, np.ones(50, bool), max_rows=20, block_rows=8)
        for stop in stops:
            append_rows(writer, values, writer.rows_appended, stop)
            writer.keep_layer_statistics(STATISTICS, {"samples": stop})
            writer.keep_layer_statistics({"means": np.zeros(stop)}, {"samples": stop})
            assert list(store.recording().read_layer_statistics().arrays) == ["means"]
            writer.close()
            writer = store.resume_recording("000", rows=9)
            assert store.recording().read_layer_statistics() is None
        append_rows(writer, values, writer.rows_appended)
        writer.keep_layer_statistics(STATISTICS, {"samples": 3})
        writer.finish()
    assert tree(tmp_path / "continued") == tree(tmp_path / "straight")


def test_statistics_of_layers_in_a_newer_format_are_refused_and_the_rows_are_read(tmp_path):
    store, _ = make_recording(tmp_path / "t.zarr", statistics=True)
    path = tmp_path / "t.zarr/recordings/000/layer_statistics/zarr.json"
    document = json.loads(path.read_text())
    ours = document["attributes"]["causalprune"]
    ours["format_version"] = 2
    ours["checksum"] = f"{attributes_checksum(ours):08x}"
    path.write_text(json.dumps(document))
    reader = store.recording()
    assert reader.read_rows(0, reader.num_rows).any()
    with pytest.raises(NewerFormatError, match="update causalprune"):
        reader.read_layer_statistics()
