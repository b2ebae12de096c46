"""Locks of the kernel's: one holder at a time, named, and gone with its process."""

import errno
import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace

import pytest
from faulty_disk import FaultyDisk

from causalprune.base import files, locks
from causalprune.base.errors import InterruptedStage, LockedError, StorageError
from causalprune.base.locks import FileLock, LockHolder, lock_holder

HOLD = """
import sys
from pathlib import Path
from causalprune.base.errors import LockedError
from causalprune.base.locks import FileLock
print("ready", flush=True)
sys.stdin.readline()
try:
    lock = FileLock(Path(sys.argv[1]))
    lock.acquire()
    print("held", flush=True)
except LockedError as error:
    print("refused", flush=True)
exec(sys.argv[2])
sys.stdin.readline()
lock.release()
print("free", flush=True)
"""


def start(path, then="pass", **environment):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path), then],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    assert process.stdout.readline() == "ready\n"
    return process


def go(process):
    process.stdin.write("\n")
    process.stdin.flush()


def say(process, word):
    go(process)
    assert process.stdout.readline() == f"{word}\n"


def end(process):
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


@pytest.fixture
def held(tmp_path):
    """A lock, and a process that holds it."""
    path = tmp_path / "lock"
    process = start(path, SLURM_JOB_ID="4711")
    say(process, "held")
    yield path, process
    end(process)


def plant(path, **changes):
    path.write_text(json.dumps(asdict(replace(LockHolder.current(), **changes))))


def test_only_one_holder_who_is_named(tmp_path):
    path = tmp_path / "lock"
    with FileLock(path):
        assert lock_holder(path).pid == os.getpid()
        with pytest.raises(LockedError, match=rf"process {os.getpid()} on .* since .*wait until it ends"):
            FileLock(path).acquire()
        # The refused one has taken nothing away.
        assert lock_holder(path).pid == os.getpid()
    assert list(tmp_path.iterdir()) == []
    with FileLock(path):
        pass


def test_an_object_that_holds_a_lock_does_not_get_it_twice(tmp_path):
    lock = FileLock(tmp_path / "lock")
    with lock:
        with pytest.raises(LockedError):
            lock.acquire()
        assert lock_holder(lock.path).pid == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_another_process_and_its_job_are_named(held):
    path, process = held
    with pytest.raises(LockedError, match=f"expected no other writer, found process {process.pid} on .*job 4711"):
        FileLock(path).acquire()
    say(process, "free")
    with FileLock(path):
        assert lock_holder(path).pid == os.getpid()


def test_a_killed_holder_is_not_waited_for(held):
    path, process = held
    assert not lock_holder(path).is_known_dead
    end(process)
    assert lock_holder(path).is_known_dead
    with FileLock(path):
        assert lock_holder(path).pid == os.getpid()
    assert list(path.parent.iterdir()) == []


WORK = """
import math, sys
from pathlib import Path
from causalprune.base.locks import FileLock
path = Path(sys.argv[1])
for _ in range(5):
    with FileLock(path, patience=math.inf):
        path.with_name("inside").touch(exist_ok=False)
        total = path.with_name("total")
        total.write_text(str(int(total.read_text()) + 1))
        path.with_name("inside").unlink()
"""


def test_of_twenty_processes_one_at_a_time_holds_it(tmp_path):
    """Each adds to a number that two at once would get wrong, and says who is inside."""
    (tmp_path / "total").write_text("0")
    command = [sys.executable, "-c", WORK, tmp_path / "lock"]
    processes = [subprocess.Popen(command) for _ in range(20)]
    assert [process.wait() for process in processes] == [0] * 20
    assert (tmp_path / "total").read_text() == "100"
    assert [p.name for p in tmp_path.iterdir()] == ["total"]


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b'{"pid": 1}', b"x" * 9999, None])
def test_whatever_was_left_in_a_file_that_nobody_holds_keeps_nobody_out(tmp_path, data):
    path = tmp_path / "lock"
    if data is None:
        plant(path, host="elsewhere")
    else:
        path.write_bytes(data)
        assert lock_holder(path) is None
    with FileLock(path):
        assert lock_holder(path).pid == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_holder_that_has_not_written_its_name_keeps_others_out(tmp_path):
    path = tmp_path / "lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(LockedError, match="found another process"):
            FileLock(path).acquire()


def test_a_holder_on_another_host_is_told_how_to_be_got_rid_of(tmp_path):
    path = tmp_path / "lock"
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        plant(path, host="elsewhere")
        with pytest.raises(LockedError, match=r"on elsewhere since .*known to be dead, delete lock"):
            FileLock(path).acquire()
        path.unlink()
        with FileLock(path):
            assert lock_holder(path).pid == os.getpid()


def test_a_file_that_was_deleted_while_it_was_waited_for_is_no_lock(tmp_path, monkeypatch):
    """Between the slow one's opening and its locking of the file the holder gives it back and a third one gets it."""
    path, real = tmp_path / "lock", fcntl.flock
    first, third = FileLock(path), FileLock(path)
    first.acquire()

    def flock(descriptor, operation):
        monkeypatch.undo()
        first.release()
        third.acquire()
        return real(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(LockedError):
        FileLock(path).acquire()
    assert lock_holder(path) == third._mine
    third.release()
    assert list(tmp_path.iterdir()) == []


def test_releasing_leaves_the_lock_of_whoever_took_it_after_it_was_deleted(tmp_path):
    path = tmp_path / "lock"
    first, second = FileLock(path), FileLock(path)
    first.acquire()
    path.unlink()
    second.acquire()
    first.release()
    assert lock_holder(path) == second._mine
    with pytest.raises(LockedError):
        first.acquire()
    second.release()


FORK = """
import os, time
if os.fork() == 0:
    lock.release()
    print(os.getpid(), flush=True)
    time.sleep(60)
"""


def test_a_forked_child_neither_releases_the_lock_nor_keeps_it(tmp_path):
    """A data loader's worker that outlives its killed parent for a moment doesn't keep the next start waiting."""
    path = tmp_path / "lock"
    process = start(path, FORK)
    say(process, "held")
    child = int(process.stdout.readline())
    try:
        with pytest.raises(LockedError, match=f"process {process.pid}"):
            FileLock(path).acquire()
        process.kill()
        process.wait()
        os.kill(child, 0)
        with FileLock(path):
            assert lock_holder(path).pid == os.getpid()
    finally:
        os.kill(child, signal.SIGKILL)
        end(process)


@pytest.mark.parametrize("code", [errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_refused_in_one_line(tmp_path, monkeypatch, code):
    def flock(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(StorageError, match=r"cannot lock .*choose a directory on another file system") as caught:
        FileLock(tmp_path / "lock").acquire()
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_directory_is_not_made(tmp_path):
    with pytest.raises(StorageError, match=r"cannot lock .*ENOENT.*create the directory that holds it first"):
        FileLock(tmp_path / "missing/lock").acquire()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [1, 2])
def test_what_cannot_be_signed_is_not_held_and_leaves_nothing(tmp_path, number):
    disk = FaultyDisk("ENOSPC", number)
    with files.use(disk), pytest.raises(StorageError, match=r"cannot lock .*ENOSPC"):
        FileLock(tmp_path / "lock").acquire()
    assert disk.changes[:number] == ["ftruncate", "write"][:number]
    assert list(tmp_path.iterdir()) == []
    with FileLock(tmp_path / "lock"):
        pass


@pytest.mark.parametrize("place", ["before it is open", "before it is locked", "before it is signed", "while signing"])
def test_a_process_killed_while_it_takes_the_lock_is_in_nobodys_way(tmp_path, place):
    patch = {
        "before it is open": "os.open = die",
        "before it is locked": "import fcntl; fcntl.flock = die",
        "before it is signed": "files.Disk.ftruncate = die",
        "while signing": "files.Disk.write = lambda self, fd, data: (os.write(fd, data[:9]), die())",
    }[place]
    path = tmp_path / "lock"
    lines = [
        "import os, signal, sys",
        "from causalprune.base import files",
        "from causalprune.base.locks import FileLock",
        "die = lambda *_: os.kill(os.getpid(), signal.SIGKILL)",
        patch,
        "FileLock(sys.argv[1]).acquire()",
    ]
    command = [sys.executable, "-c", "\n".join(lines), path]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert {p.name for p in tmp_path.iterdir()} <= {"lock"}
    with FileLock(path):
        assert lock_holder(path).pid == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_job_that_was_queued_again_waits_for_the_lock_and_says_so(held, monkeypatch, caplog):
    path, process = held
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    caplog.set_level(logging.INFO, "causalprune")
    threading.Timer(1.2, go, [process]).start()
    started = time.monotonic()
    with FileLock(path):
        assert time.monotonic() - started >= 1
        assert lock_holder(path).pid == os.getpid()
    assert caplog.messages == [
        line for line in caplog.messages if f"waiting for the lock of process {process.pid}" in line
    ]
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(("restarts", "seconds"), [("1", 600), ("0", 0), ("", 0), (None, 0)])
def test_only_a_job_that_was_queued_again_waits(tmp_path, monkeypatch, restarts, seconds):
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    if restarts is not None:
        monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    assert FileLock(tmp_path / "lock").patience == seconds


def test_patience_ends(held, monkeypatch):
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    monkeypatch.setattr(locks, "PATIENCE_OF_A_REQUEUED_JOB", 0.5)
    path, process = held
    with pytest.raises(LockedError, match=f"process {process.pid}"):
        FileLock(path).acquire()


def test_a_signal_ends_the_waiting(held):
    path, _ = held
    threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGTERM]).start()
    with pytest.raises(InterruptedStage, match="SIGTERM"):
        FileLock(path, patience=60).acquire()


def test_who_is_known_to_be_dead():
    here = LockHolder.current()
    assert not here.is_known_dead
    # A number that another process has now; a host that was restarted; and those of which nothing is known here.
    assert replace(here, start="1").is_known_dead
    assert replace(here, boot="another").is_known_dead
    assert not replace(here, host="elsewhere", start="1").is_known_dead
    assert not replace(here, namespace="pid:[1]", start="1").is_known_dead


def test_a_job_that_was_queued_again_knows_that_its_earlier_start_has_ended(monkeypatch):
    """Its node may have died, and another one never sees that process end."""
    monkeypatch.delenv("SLURM_RESTART_COUNT", raising=False)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    earlier = replace(LockHolder.current(), host="elsewhere")
    assert not earlier.is_known_dead
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert earlier.is_known_dead
    assert not replace(earlier, job="8").is_known_dead
    assert not replace(earlier, job="").is_known_dead
    monkeypatch.setenv("SLURM_JOB_ID", "")
    assert not replace(earlier, job="").is_known_dead


def test_a_record_of_a_lock_in_object_storage_survives_the_way_there():
    here = LockHolder.current()
    assert LockHolder.parse(here.encode()) == here
    for lacks in (("job",), ("job", "restarts"), ("restarts",)):
        earlier = {key: value for key, value in asdict(here).items() if key not in lacks}
        assert LockHolder.parse(json.dumps(earlier).encode()) == here
    assert LockHolder.parse(json.dumps({**asdict(here), "more": 1}).encode()) is None
    assert LockHolder.parse(json.dumps({**asdict(here), "pid": True}).encode()) is None
