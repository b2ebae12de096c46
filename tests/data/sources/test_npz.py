"""What doesn't make a data set is refused by the headers, before its arrays are read."""

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from causalprune.base.errors import CorruptError, DataError, StorageError
from causalprune.base.specs import DataSpec
from causalprune.data.datasets import load_data
from causalprune.data.sources import npz

X, Y = np.arange(80.0).reshape(40, 2), np.arange(40) % 2
LARGE = 2**24
"""Bytes of an array of zeros, of which deflate leaves a thousandth."""


def large(dtype="u1", *, rows=1):
    return np.zeros((rows, LARGE // rows // np.dtype(dtype).itemsize), dtype)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": large(), "y": Y}, ("one length", "1 and 40")),
        ({"x": large()[0], "y": Y}, ("shape",)),
        ({"x": X, "y": large()[0]}, ("one length",)),
        ({"x": large()}, ("y_train",)),
        ({"x": large("M8[s]", rows=40), "y": Y}, ("datetime64",)),
        ({"x": large(rows=40), "y": np.zeros((40, 0))}, ("at least one sample",)),
        ({"x": large(rows=40), "y": Y.reshape(40, 1, 1)}, ("shape (40, 1, 1)",)),
        ({"x_train": X, "y_train": Y, "x_test": large(rows=40), "y_test": Y}, ("x_test like x_train",)),
        ({"x_train": large(rows=40), "y_train": Y, "x_test": X, "y_test": Y}, ("x_test like x_train",)),
        ({"x": X, "y": Y, "class_names": np.zeros(2, "U4000000")}, ("bytes of names",)),
    ],
)
def test_nothing_large_is_read_to_be_refused(tmp_path, arrays, words):
    np.savez_compressed(tmp_path / "d.npz", **arrays)
    assert (tmp_path / "d.npz").stat().st_size < 2**18
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as caught:
            load_data(DataSpec(name="npz:d.npz", root=str(tmp_path)))
        assert tracemalloc.get_traced_memory()[1] < LARGE / 4
    finally:
        tracemalloc.stop()
    assert all(word in str(caught.value) for word in words)


def test_what_does_not_fit_in_memory_is_not_begun(tmp_path, monkeypatch):
    np.savez_compressed(tmp_path / "d.npz", x=large(rows=40), y=Y)
    monkeypatch.setattr(npz.os, "sysconf", lambda name: {"SC_PAGE_SIZE": 4096}.get(name, 1000))
    with pytest.raises(StorageError, match="fit in 4096000 bytes of memory"):
        load_data(DataSpec(name="npz:d.npz", root=str(tmp_path)))


def test_an_array_that_nobody_asks_for_is_not_looked_at(tmp_path):
    np.savez(tmp_path / "d.npz", x=X, y=Y, ids=np.arange(40).astype(object))
    assert len(load_data(DataSpec(name="npz:d.npz", root=str(tmp_path))).class_names) == 2


def test_strings_are_read_without_a_pickle(tmp_path):
    np.savez(tmp_path / "d.npz", x=X, y=np.array(["no", "yes"])[Y])
    assert load_data(DataSpec(name="npz:d.npz", root=str(tmp_path))).class_names == ("no", "yes")
    np.savez(tmp_path / "d.npz", x=X, y=np.array(["no", "yes"], object)[Y])
    with pytest.raises(CorruptError, match=r"y in .*pickle.*astype\(str\)"):
        load_data(DataSpec(name="npz:d.npz", root=str(tmp_path)))


def test_a_member_longer_than_its_header_says(tmp_path):
    buffer = io.BytesIO()
    np.save(buffer, X)
    with zipfile.ZipFile(tmp_path / "d.npz", "w") as archive:
        archive.writestr("x.npy", buffer.getvalue() + b"more")
        archive.writestr("y.npy", buffer.getvalue())
    with pytest.raises(CorruptError, match="x in"):
        load_data(DataSpec(name="npz:d.npz", root=str(tmp_path)))
