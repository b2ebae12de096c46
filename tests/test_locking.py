import json
import os
import subprocess
import sys
from dataclasses import asdict, replace

import pytest

from causalprune.errors import LockedError
from causalprune.locking import FileLock, LockHolder, lock_holder

HOLD = """
import sys
from pathlib import Path
from causalprune.errors import LockedError
from causalprune.locking import FileLock
print("ready", flush=True)
sys.stdin.readline()
try:
    lock = FileLock(Path(sys.argv[1]))
    lock.acquire()
    print("held", flush=True)
except LockedError as error:
    print("refused", flush=True)
sys.stdin.readline()
"""


def start(path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    return process


def go(process):
    process.stdin.write("\n")
    process.stdin.flush()


def end(process):
    process.kill()
    process.wait()
    process.stdin.close()
    process.stdout.close()


@pytest.fixture
def dead(tmp_path):
    """The record of a process on this host that was killed while it held the lock."""
    path = tmp_path / "of-the-dead"
    process = start(path)
    go(process)
    assert process.stdout.readline() == "held\n"
    assert not lock_holder(path).is_known_dead
    end(process)
    holder = lock_holder(path)
    assert holder.pid == process.pid
    assert holder.is_known_dead
    return holder


def plant(path, holder):
    path.write_text(json.dumps(asdict(holder)))


def test_only_one_holder_who_is_named(tmp_path):
    path = tmp_path / "lock"
    with FileLock(path):
        assert lock_holder(path).pid == os.getpid()
        with pytest.raises(LockedError, match=rf"process {os.getpid()} on .*wait until it ends"), FileLock(path):
            pass
        # Not even by force: the process is known to be alive.
        with pytest.raises(LockedError), FileLock(path, break_lock=True):
            pass
    assert list(tmp_path.iterdir()) == []
    with FileLock(path):
        pass


def test_lock_of_a_living_process(tmp_path):
    path = tmp_path / "lock"
    process = start(path)
    go(process)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(LockedError, match=f"process {process.pid} "), FileLock(path):
        pass
    end(process)
    with FileLock(path):
        assert lock_holder(path).pid == os.getpid()


def test_a_reused_process_number_is_not_the_holder(tmp_path):
    path = tmp_path / "lock"
    plant(path, replace(LockHolder.current(), start="1"))
    with FileLock(path):
        assert lock_holder(path) == replace(
            LockHolder.current(), **{k: getattr(lock_holder(path), k) for k in ("since", "token")}
        )


def test_a_restarted_host_holds_no_lock(tmp_path):
    path = tmp_path / "lock"
    plant(path, replace(LockHolder.current(), boot="another"))
    with FileLock(path):
        pass


@pytest.mark.parametrize("elsewhere", [{"host": "elsewhere"}, {"namespace": "pid:[1]"}])
def test_lock_of_another_host_needs_force(tmp_path, elsewhere, dead):
    path = tmp_path / "lock"
    plant(path, replace(dead, **elsewhere))
    with pytest.raises(LockedError, match="--break-lock"), FileLock(path):
        pass
    with FileLock(path, break_lock=True):
        assert lock_holder(path).pid == os.getpid()
    assert not path.exists()


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b"[]", b'{"pid": "x"}'])
def test_an_unreadable_lock_needs_force(tmp_path, data):
    path = tmp_path / "lock"
    path.write_bytes(data)
    with pytest.raises(LockedError, match="--break-lock"), FileLock(path):
        pass
    with FileLock(path, break_lock=True):
        pass


def test_exactly_one_of_many_takes_over(tmp_path, dead):
    path = tmp_path / "lock"
    plant(path, dead)
    processes = [start(path) for _ in range(4)]
    for process in processes:
        go(process)
    answers = [process.stdout.readline() for process in processes]
    assert sorted(answers) == ["held\n"] + ["refused\n"] * 3
    assert lock_holder(path).pid == processes[answers.index("held\n")].pid
    for process in processes:
        end(process)
    assert [p for p in tmp_path.iterdir() if "claim" in p.name or "partial" in p.name] == []


def test_a_claim_whose_owner_died_is_taken_over(tmp_path, dead):
    path = tmp_path / "lock"
    plant(path, dead)
    plant(tmp_path / f"lock.claim-{dead.token}", replace(dead, token="second"))
    with FileLock(path):
        assert lock_holder(path).pid == os.getpid()
    assert [p for p in tmp_path.iterdir() if p.name.startswith("lock")] == []


def test_a_claim_of_the_living_is_respected(tmp_path, dead):
    path = tmp_path / "lock"
    plant(path, dead)
    plant(tmp_path / f"lock.claim-{dead.token}", LockHolder.current())
    with pytest.raises(LockedError), FileLock(path):
        pass


def test_a_claim_on_a_lock_that_changed_is_dropped(tmp_path, dead, monkeypatch):
    """The slow contender: between its look and its claim another one took the lock over."""
    path = tmp_path / "lock"
    plant(path, dead)
    slow, fast = FileLock(path), FileLock(path)
    look = slow._abandoned

    def look_then_lose(where):
        token = look(where)
        if fast._mine is None:
            fast.acquire()
        return token

    monkeypatch.setattr(slow, "_abandoned", look_then_lose)
    with pytest.raises(LockedError):
        slow.acquire()
    assert lock_holder(path) == fast._mine
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith("lock")] == ["lock"]
    fast.release()


def test_releasing_a_lock_that_was_broken_leaves_the_new_one(tmp_path):
    path = tmp_path / "lock"
    lock = FileLock(path)
    lock.acquire()
    other = replace(LockHolder.current(), host="elsewhere")
    plant(path, other)
    lock.release()
    assert lock_holder(path) == other


def test_a_forked_child_does_not_release(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    lock = FileLock(path)
    lock.acquire()
    with monkeypatch.context() as patch:
        patch.setattr(os, "getpid", lambda: 1)
        lock.release()
    assert path.exists()
