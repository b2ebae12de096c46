import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalprune.base.errors import CorruptError, DataError
from causalprune.base.json_files import read_json, sha256_file, write_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(JSON)
def test_json_round_trips(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("json") / "a.json"
    write_json(path, value)
    assert read_json(path) == value
    assert path.read_bytes().endswith(b"\n")


@pytest.mark.parametrize(
    ("data", "error"),
    [(b"{", CorruptError), (b"NaN", CorruptError), (b"\xff", CorruptError), (b"[" * 100_000, CorruptError)],
)
def test_read_json_refuses_what_is_not_json(tmp_path, data, error):
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(error, match="JSON"):
        read_json(tmp_path / "a")


def test_read_json_of_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, found in ((tmp_path, "a directory"), (tmp_path / "no", "nothing"), (tmp_path / "pipe", "special file")):
        with pytest.raises(DataError, match=found):
            read_json(path)
    (tmp_path / "large").write_bytes(b"1" * 11)
    with pytest.raises(CorruptError, match="at most 10 bytes"):
        read_json(tmp_path / "large", 10)


def test_write_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a", float("nan"))
    assert list(tmp_path.iterdir()) == []


def test_sha256_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    # The first test vector of FIPS 180-2.
    assert sha256_file(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    with pytest.raises(DataError):
        sha256_file(tmp_path)
