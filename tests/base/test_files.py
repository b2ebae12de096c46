import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalprune import files
from causalprune.errors import CorruptError, DataError, StorageError


class FaultyOs:
    """``os``, whose ``fail_at``-th disk operation fails; counts and names them all."""

    MUTATING = ("open", "write", "pwrite", "fsync", "replace", "rename", "unlink", "ftruncate", "makedirs")

    def __init__(self, fail_at=None, code=errno.ENOSPC):
        self.fail_at, self.code = fail_at, code
        self.calls = []

    def __getattr__(self, name):
        real = getattr(os, name)
        if name not in self.MUTATING:
            return real

        def call(*args, **kwargs):
            self.calls.append(name)
            if self.fail_at is not None and len(self.calls) == self.fail_at:
                raise OSError(self.code, os.strerror(self.code))
            return real(*args, **kwargs)

        return call


def test_write_atomic_syncs_the_data_before_the_name_and_the_name_after(tmp_path, monkeypatch):
    disk = FaultyOs()
    monkeypatch.setattr(files, "os", disk)
    files.write_atomic(tmp_path / "a", b"data")
    assert (tmp_path / "a").read_bytes() == b"data"
    assert disk.calls == ["open", "write", "fsync", "replace", "open", "fsync"]


def test_write_atomic_leaves_old_or_new_when_any_operation_fails(tmp_path, monkeypatch):
    path = tmp_path / "a"
    for number in range(1, 7):
        path.write_bytes(b"old")
        with monkeypatch.context() as patch:
            patch.setattr(files, "os", FaultyOs(number))
            with pytest.raises(StorageError, match="no space left on device") as caught:
                files.write_atomic(path, b"new")
        assert str(path) in str(caught.value)
        assert "free some space" in str(caught.value)
        assert path.read_bytes() == (b"old" if number < 5 else b"new")
        assert list(tmp_path.iterdir()) == [path]


def test_atomic_file_removes_what_a_failing_body_wrote(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(TypeError), files.atomic_file(path) as file:
        assert file.write(b"half") + file.write(None)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_file_takes_numpy_and_short_writes(tmp_path, monkeypatch):
    class ShortWrites(FaultyOs):
        def __getattr__(self, name):
            return (lambda fd, data: os.write(fd, data[:7])) if name == "write" else super().__getattr__(name)

    monkeypatch.setattr(files, "os", ShortWrites())
    values = np.arange(100.0)
    with files.atomic_file(tmp_path / "a.npy") as file:
        np.save(file, values)
    assert np.array_equal(np.load(tmp_path / "a.npy"), values)


def test_errors_name_the_file_and_a_remedy(tmp_path):
    with pytest.raises(StorageError, match=r"cannot write .*missing/a.*create the directory"):
        files.write_atomic(tmp_path / "missing" / "a", b"")
    for code, remedy in ((errno.EACCES, "permission"), (errno.EROFS, "writable"), (errno.EDQUOT, "quota")):
        with pytest.raises(StorageError, match=remedy), files.storage_errors(tmp_path):
            raise OSError(code, os.strerror(code))


def test_append_line_cuts_off_what_a_crash_left_and_undoes_its_own_failure(tmp_path, monkeypatch):
    path = tmp_path / "log"
    files.append_line(path, "one")
    path.write_bytes(path.read_bytes() + b"x" * 10_000)
    files.append_line(path, "two")
    assert path.read_bytes() == b"one\ntwo\n"
    disk = FaultyOs()
    with monkeypatch.context() as patch:
        patch.setattr(files, "os", disk)
        files.append_line(path, "three")
    before = path.read_bytes()
    for number in range(1, len(disk.calls) + 1):
        with monkeypatch.context() as patch:
            patch.setattr(files, "os", FaultyOs(number))
            with pytest.raises(StorageError):
                files.append_line(path, "four")
        assert path.read_bytes() == before


def test_append_line_of_a_torn_file_without_any_newline(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"torn")
    files.append_line(path, "one")
    assert path.read_bytes() == b"one\n"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(JSON)
def test_json_round_trips(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("json") / "a.json"
    try:
        files.write_json(path, value)
    except UnicodeEncodeError:
        assert any("\ud800" <= c <= "\udfff" for c in json.dumps(value, ensure_ascii=False))
        return
    assert files.read_json(path) == value
    assert path.read_bytes().endswith(b"\n")


@pytest.mark.parametrize(
    ("data", "error"),
    [(b"{", CorruptError), (b"NaN", CorruptError), (b"\xff", CorruptError), (b"[" * 100_000, CorruptError)],
)
def test_read_json_refuses_what_is_not_json(tmp_path, data, error):
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(error, match="JSON"):
        files.read_json(tmp_path / "a")


def test_read_json_of_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, found in ((tmp_path, "a directory"), (tmp_path / "no", "nothing"), (tmp_path / "pipe", "special file")):
        with pytest.raises(DataError, match=found):
            files.read_json(path)
    (tmp_path / "large").write_bytes(b"1" * 11)
    with pytest.raises(CorruptError, match="at most 10 bytes"):
        files.read_json(tmp_path / "large", 10)


def test_write_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a", float("nan"))
    assert list(tmp_path.iterdir()) == []


def test_sha256_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    # The first test vector of FIPS 180-2.
    assert files.sha256_file(tmp_path / "a").startswith(
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    with pytest.raises(DataError):
        files.sha256_file(tmp_path)


def test_names_may_be_hostile(tmp_path):
    for name in ("a b", "quote'\"", "new\nline", "ümläut", "%s{}"):
        files.write_atomic(tmp_path / name, b"x")
        assert (tmp_path / name).read_bytes() == b"x"


def test_remove_partials_leaves_finished_files(tmp_path):
    files.write_atomic(tmp_path / "kept", b"")
    files.temporary_beside(tmp_path / "kept").write_bytes(b"")
    files.temporary_beside(tmp_path / "directory").mkdir()
    (tmp_path / "a.partial-of-the-user").write_bytes(b"")
    files.remove_partials(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.partial-of-the-user", "kept"]


def test_make_directory_and_remove_tree(tmp_path):
    path: Path = tmp_path / "a" / "b"
    files.make_directory(path)
    files.make_directory(path)
    (path / "file").write_bytes(b"")
    files.remove_tree(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []
