import json

import numpy as np
import pytest
import zarr
from store_builders import make_recording

from causalprune.base.errors import CorruptError, DataError, UsageError
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
