import contextlib
import errno
import fcntl
import json
import os
import signal
import socket
import stat
from pathlib import Path

import numpy as np
import pytest
from faulty_disk import STOPS, FaultyDisk
from hypothesis import assume, given
from hypothesis import strategies as st

from causalprune.base import files
from causalprune.base.errors import DataError, InterruptedStage, StorageError
from causalprune.base.signals import stop_requests, stop_signals


def test_write_atomic_syncs_the_data_before_the_name_and_the_name_after(tmp_path):
    disk = FaultyDisk()
    with files.use(disk):
        files.write_atomic(tmp_path / "a", b"data")
    assert (tmp_path / "a").read_bytes() == b"data"
    assert disk.changes == ["open", "write", "fsync", "replace", "fsync"]


def test_write_atomic_leaves_old_or_new_when_any_operation_fails(tmp_path):
    path = tmp_path / "a"
    for number in range(1, 6):
        path.write_bytes(b"old")
        error = pytest.raises(StorageError, match="no space left on device")
        with files.use(FaultyDisk("ENOSPC", number)), error as caught:
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


def test_atomic_file_takes_numpy_and_short_writes(tmp_path):
    class ShortWrites(files.Disk):
        def write(self, descriptor, data):
            return os.write(descriptor, data[:7])

    values = np.arange(100.0)
    with files.use(ShortWrites()), files.atomic_file(tmp_path / "a.npy") as file:
        np.save(file, values)
    assert np.array_equal(np.load(tmp_path / "a.npy"), values)


def special_files(folder):
    os.mkfifo(folder / "pipe")
    (folder / "here").symlink_to("there")
    (folder / "there").symlink_to("here")
    with socket.socket(socket.AF_UNIX) as unix, contextlib.chdir(folder):
        unix.bind("socket")
    names = {"pipe": "special file", "here": "circle", "socket": "special file", "missing": "nothing", ".": "directory"}
    return {folder / name: found for name, found in names.items()} | {Path("/dev/zero"): "special file"}


def test_only_regular_files_are_read(tmp_path):
    for path, found in special_files(tmp_path).items():
        with pytest.raises(DataError, match=rf"expected weights, found .*{found}.*; save them") as caught:
            files.require_file(path, expected="weights", remedy="save them")
        assert str(path) in str(caught.value)
    (tmp_path / "file").write_bytes(b"abc")
    (tmp_path / "link").symlink_to("file")
    assert files.require_file(tmp_path / "link").st_size == 3


def test_a_pipe_is_never_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageError, match="special file"):
        files.write_atomic(tmp_path / "pipe", b"new")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert len(list(tmp_path.iterdir())) == 1


def test_errors_name_the_file_and_a_remedy(tmp_path):
    with pytest.raises(StorageError, match=r"cannot write .*missing/a.*create the directory"):
        files.write_atomic(tmp_path / "missing" / "a", b"")
    for code, remedy in ((errno.EACCES, "permission"), (errno.EROFS, "writable"), (errno.EDQUOT, "quota")):
        with pytest.raises(StorageError, match=remedy), files.storage_errors(tmp_path):
            raise OSError(code, os.strerror(code))


def test_append_line_cuts_off_what_a_crash_left_and_undoes_its_own_failure(tmp_path):
    path = tmp_path / "log"
    files.append_line(path, "one")
    path.write_bytes(path.read_bytes() + b"x" * 10_000)
    files.append_line(path, "two")
    assert path.read_bytes() == b"one\ntwo\n"
    disk = FaultyDisk()
    with files.use(disk):
        files.append_line(path, "three")
    before = path.read_bytes()
    assert disk.changes == ["open", "write", "fsync"]
    for number in range(1, 4):
        with files.use(FaultyDisk("ENOSPC", number)), pytest.raises(StorageError):
            files.append_line(path, "four")
        assert path.read_bytes() == before


def test_append_line_of_a_torn_file_without_any_newline(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"torn")
    files.append_line(path, "one")
    assert path.read_bytes() == b"one\n"


def test_lines_of_several_processes_are_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(files.Disk, "fsync", staticmethod(lambda descriptor: None))
    path, processes, lines = tmp_path / "log.jsonl", 4, 200
    path.write_bytes(b"torn")

    def line(process, number):
        # Some are longer than a page.
        return json.dumps([process, number, "x" * (37 * number)])

    def write(process):
        for number in range(lines):
            files.log_line(path, line(process, number))

    children = []
    for process in range(processes):
        child = os.fork()
        if child == 0:
            try:
                write(process)
            finally:
                os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)
    written = path.read_text()
    assert written.startswith("torn\n")
    assert written.endswith("\n")
    assert sorted(written.splitlines()[1:]) == sorted(line(p, n) for p in range(processes) for n in range(lines))


def test_a_log_is_one_write_a_line_and_is_never_cut(tmp_path):
    path, disk = tmp_path / "log.jsonl", FaultyDisk()
    with files.use(disk):
        files.log_line(path, "one")
        files.log_line(path, "two")
    assert disk.changes == ["open", "write", "fsync", "fsync", "open", "write", "fsync"]
    for number, left in ((1, b""), (2, b"thr"), (3, b"\nthree\n")):
        before = path.read_bytes()
        with files.use(FaultyDisk("ENOSPC", number)), pytest.raises(StorageError):
            files.log_line(path, "three")
        assert path.read_bytes() == before + left
    files.log_line(path, "four")
    assert path.read_bytes() == b"one\ntwo\nthr\nthree\nfour\n"


def test_a_log_that_another_program_locks_is_written_nevertheless(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "LOG_PATIENCE", 0.01)
    path = tmp_path / "log.jsonl"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        files.log_line(path, "one")
    assert path.read_bytes() == b"one\n"


def test_a_log_is_a_file_of_its_own(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"kept")
    (tmp_path / "link").symlink_to(secret)
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    for name, found in (("link", "symbolic link"), ("fifo", "not a regular file"), ("folder", "is a directory")):
        with pytest.raises(StorageError, match=found):
            files.log_line(tmp_path / name, "line")
    with pytest.raises(StorageError, match="not a regular file"):
        files.log_line(Path("/dev/null"), "line")
    assert secret.read_bytes() == b"kept"


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


def in_a_process(action):
    """Run it in a fork; the signal that killed that, or 0."""
    process = os.fork()
    if process == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    assert code <= 0
    return -code


def write_through_a_temporary_file(folder):
    """As one builds a file aside to put it in place at the end."""
    temporary = files.temporary_beside(folder / "a")
    files.write_atomic(temporary, b"new")
    files.rename(temporary, folder / "a")


CHANGES = {
    "write": lambda folder: files.write_atomic(folder / "a", b"new"),
    "keep": lambda folder: files.write_atomic(folder / "a", b"new", previous=folder / "b"),
    "aside": write_through_a_temporary_file,
    "append": lambda folder: files.append_line(folder / "log", "two"),
    "delete": lambda folder: files.remove_tree(folder / "tree"),
}


def prepared(folder):
    (folder / "tree" / "branch").mkdir(parents=True)
    (folder / "tree" / "branch" / "leaf").write_bytes(b"x")
    (folder / "a").write_bytes(b"old")
    (folder / "log").write_bytes(b"one\n")
    return folder


def changes_of(folder, action):
    disk = FaultyDisk()
    with files.use(disk):
        action(prepared(folder))
    return len(disk.changes)


@pytest.mark.parametrize("name", list(CHANGES))
def test_a_kill_at_any_change_leaves_nothing_that_the_next_writer_does_not_remove(tmp_path, name):
    action = CHANGES[name]
    for number in range(1, changes_of(tmp_path / "0", action) + 1):
        folder = prepared(tmp_path / f"{number}")
        with files.use(FaultyDisk("SIGKILL", number)):
            assert in_a_process(lambda folder=folder: action(folder)) == signal.SIGKILL
        found = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file() and not p.name.startswith(".")}
        assert found.get("a", found.get("b")) in (b"old", b"new")
        assert found["log"].startswith(b"one\n")
        files.remove_partials(folder, "a", "tree")
        assert {p.name for p in folder.iterdir()} <= {"a", "b", "log", "tree"}
        assert not (folder / "tree").exists() or (folder / "tree" / "branch" / "leaf").exists()


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("name", ["write", "keep", "append"])
def test_a_signal_at_any_change_ends_the_stage_with_the_file_written_and_nothing_beside_it(tmp_path, name, stop):
    action = CHANGES[name]
    for number in range(1, changes_of(tmp_path / "0", action) + 1):
        folder = prepared(tmp_path / f"{number}")
        with stop_signals(), files.use(FaultyDisk(stop, number)), pytest.raises(InterruptedStage):
            action(folder)
        assert {p.name for p in folder.iterdir()} <= {"a", "b", "log", "tree"}
        assert (folder / "log").read_bytes() in (b"one\n", b"one\ntwo\n")
        if name != "append":
            assert (folder / "a").read_bytes() == b"new"


def test_a_signal_at_any_change_of_a_stream_leaves_the_old_file_or_the_new_one(tmp_path):
    path = tmp_path / "a"

    def stream():
        with files.atomic_file(path) as file:
            file.write(b"n")
            file.write(b"ew")

    for number in range(1, 7):
        path.write_bytes(b"old")
        with stop_signals(), files.use(FaultyDisk("SIGTERM", number)), pytest.raises(InterruptedStage):
            stream()
        assert path.read_bytes() == (b"old" if number < 5 else b"new")
        assert list(tmp_path.iterdir()) == [path]


def test_a_signal_while_signals_are_deferred_ends_nothing_that_is_written(tmp_path):
    with stop_requests() as stop, files.use(FaultyDisk("SIGTERM", 1)):
        files.write_atomic(tmp_path / "a", b"new")
        files.write_atomic(tmp_path / "a", b"newer")
        assert stop
    with stop_signals(), stop_requests(), files.use(FaultyDisk("SIGTERM", 1)):
        files.write_atomic(tmp_path / "b", b"new")


def test_a_signal_that_came_before_ends_no_later_write(tmp_path):
    with stop_signals() as stop:
        with stop.deferred(), files.use(FaultyDisk("SIGTERM", 1)):
            files.write_atomic(tmp_path / "a", b"new")
        files.write_atomic(tmp_path / "a", b"newer")


@given(st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1))
def test_temporary_names_lead_to_the_final_name_however_often_they_are_made(name):
    assume(name not in (".", "..") and not (name.startswith(".") and files.PARTIAL in name))
    path = Path("folder") / name
    names = [path]
    for _ in range(3):
        names.append(files.temporary_beside(names[-1]))
    assert len(set(names)) == 4
    for temporary in names[1:]:
        assert temporary.parent == path.parent
        assert temporary.name.startswith(f".{name}{files.PARTIAL}")
        assert temporary.name.removeprefix(f".{name}").count(files.PARTIAL) == 1


def test_make_directory_and_remove_tree(tmp_path):
    path: Path = tmp_path / "a" / "b"
    files.make_directory(path)
    files.make_directory(path)
    (path / "file").write_bytes(b"")
    files.remove_tree(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_a_tree_that_a_library_wrote_is_synced_file_by_file(tmp_path):
    (tmp_path / "branch").mkdir()
    (tmp_path / "branch" / "leaf").write_bytes(b"x")
    disk = FaultyDisk()
    with files.use(disk):
        files.sync_tree(tmp_path)
    assert disk.changes == ["fsync"] * 3
    with files.use(FaultyDisk("ENOSPC", 1)), pytest.raises(StorageError, match="no space left on device"):
        files.sync_tree(tmp_path)


def test_rewrite_replaces_all_of_a_file_however_little_each_write_takes(tmp_path):
    class ShortWrites(files.Disk):
        def write(self, descriptor, data):
            return os.write(descriptor, data[:2])

    with (tmp_path / "a").open("w+b") as file, files.use(ShortWrites()):
        file.write(b"something longer")
        file.flush()
        files.rewrite(file.fileno(), b"short")
    assert (tmp_path / "a").read_bytes() == b"short"
