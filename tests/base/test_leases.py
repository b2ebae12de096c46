"""Leases: one holder at a time, also over hosts; of a dead host they are taken over when the heartbeat is missed."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest

from causalprune.base import leases
from causalprune.base.errors import LockedError
from causalprune.base.leases import Lease

HOLD = """
import sys
from pathlib import Path
from causalprune.base.leases import Lease
lease = Lease(Path(sys.argv[1]))
lease.acquire()
print("held", flush=True)
sys.stdin.readline()
"""


UNSIGNED = """
import os, signal, sys
from pathlib import Path
from causalprune.base.leases import Lease
write = os.write

def at_the_signature(*given):
    os.write = write
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    print("created", flush=True)
    sys.stdin.readline()
    return write(*given)

lease = Lease(Path(sys.argv[1]))
os.write = at_the_signature
try:
    lease.acquire()
except Exception as error:
    print(f"{type(error).__name__}: {error}", flush=True)
else:
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(autouse=True)
def nothing_watched(monkeypatch):
    monkeypatch.setattr(leases, "_watched", {})


def foreign(path):
    """The lease of a process on another host, as it would be if that had taken it, and been silent since."""
    with Lease(path):
        record = path.read_text()
    path.write_text(record.replace(f"host={socket.gethostname()}", "host=elsewhere"))
    assert "host=elsewhere" in path.read_text()


def test_a_lease_is_held_by_one(tmp_path):
    path = tmp_path / "new folder/.cell.lock"
    with Lease(path), pytest.raises(LockedError, match=f"found process {os.getpid()} on"), Lease(path):
        pass
    assert list(path.parent.iterdir()) == []


def test_a_patient_one_waits(tmp_path):
    path = tmp_path / ".table.lock"
    order = []

    def second():
        with Lease(path, patience=float("inf")):
            order.append("second")

    with Lease(path):
        other = threading.Thread(target=second)
        other.start()
        time.sleep(0.2)
        order.append("first")
    other.join(10)
    assert order == ["first", "second"]


@pytest.mark.parametrize("break_lock", [False, True])
def test_a_living_process_of_this_host_keeps_it_and_a_killed_one_loses_it_at_once(tmp_path, break_lock):
    path = tmp_path / ".step.lock"
    command = [sys.executable, "-c", HOLD, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match=f"process {process.pid}"):
            Lease(path, break_lock=break_lock).acquire()
        process.kill()
    assert process.returncode == -signal.SIGKILL
    with Lease(path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_another_hosts_is_taken_over_when_it_was_seen_unchanged_for_long_enough(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "DEAD_AFTER_SECONDS", 1.0)
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.2)
    path = tmp_path / ".step.lock"
    foreign(path)
    # However old it looks: clocks of hosts differ.
    os.utime(path, (0, 0))
    with pytest.raises(LockedError, match="on elsewhere"):
        Lease(path).acquire()
    # Each sign of life counts anew.
    for _ in range(4):
        time.sleep(0.4)
        os.utime(path)
        with pytest.raises(LockedError):
            Lease(path).acquire()
    time.sleep(1.1)
    with Lease(path):
        assert "elsewhere" not in path.read_text()
    assert list(tmp_path.iterdir()) == []


def test_another_hosts_is_broken_on_demand(tmp_path):
    path = tmp_path / ".step.lock"
    foreign(path)
    with Lease(path, break_lock=True):
        assert "elsewhere" not in path.read_text()
    assert list(tmp_path.iterdir()) == []


def test_a_long_step_keeps_its_heartbeat(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.05)
    path = tmp_path / ".step.lock"
    with Lease(path):
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime < 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert path.stat().st_mtime > time.time() - 60


def test_one_that_was_taken_over_meanwhile_is_left_to_its_new_holder(tmp_path):
    path = tmp_path / ".step.lock"
    lost = Lease(path)
    lost.acquire()
    path.unlink()
    with Lease(path):
        lost.release()
        assert path.exists()
    assert list(tmp_path.iterdir()) == []


class OfEachThread(threading.local):
    """A dict for each thread, as if it were another process."""

    def __init__(self):
        self.pop = vars(self).pop

    def __setitem__(self, path, lease):
        vars(self)[path] = lease


def test_of_many_one_takes_a_silent_one_over(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "DEAD_AFTER_SECONDS", 0.3)
    monkeypatch.setattr(leases, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(leases, "_watched", OfEachThread())
    path = tmp_path / ".step.lock"
    inside, most, guard, taken = 0, 0, threading.Lock(), []

    def contend(name):
        nonlocal inside, most
        with Lease(path, patience=20):
            with guard:
                inside += 1
                most = max(most, inside)
            taken.append(name)
            time.sleep(0.02)
            with guard:
                inside -= 1

    foreign(path)
    threads = [threading.Thread(target=contend, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (most, sorted(taken)) == (1, list(range(6)))
    assert list(tmp_path.iterdir()) == []


def unsigned(path, fate):
    """A process that has created the lease, and not signed it."""
    command = [sys.executable, "-c", UNSIGNED, str(path), fate]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@contextmanager
def taken_within(path, seconds):
    """Hold the lease, once it can be taken."""
    lease, ends = Lease(path), time.monotonic() + seconds
    while True:
        try:
            lease.acquire()
            break
        except LockedError:
            assert time.monotonic() < ends, path.read_bytes()
            time.sleep(0.05)
    try:
        yield
    finally:
        lease.release()


def test_one_that_was_killed_before_it_signed_loses_it_within_seconds(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "UNSIGNED_AFTER_SECONDS", 0.3)
    path = tmp_path / ".table.lock"
    with unsigned(path, "killed") as process:
        assert process.stdout.read() == ""
    assert process.returncode == -signal.SIGKILL
    assert path.read_bytes() == b""
    # One that is about to sign isn't disturbed.
    with pytest.raises(LockedError, match="found another process"):
        Lease(path).acquire()
    assert path.read_bytes() == b""
    with taken_within(path, 30):
        assert path.read_bytes().startswith(b"filelock")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("late", ["before it is taken over", "after it is taken over"])
def test_one_that_signs_late_holds_it_or_knows_that_it_does_not(tmp_path, monkeypatch, late):
    monkeypatch.setattr(leases, "UNSIGNED_AFTER_SECONDS", 0.1)
    path = tmp_path / ".table.lock"
    with unsigned(path, "late") as process:
        assert process.stdout.readline() == "created\n"
        if late.startswith("after"):
            with taken_within(path, 30):
                print(file=process.stdin, flush=True)
                assert process.stdout.readline().startswith("LockedError: lock")
            return
        lease = Lease(path)
        while not path.read_bytes():
            with pytest.raises(LockedError):
                lease.acquire()
            time.sleep(0.05)
        print(file=process.stdin, flush=True)
        assert process.stdout.readline() == "held\n"
        with pytest.raises(LockedError, match=f"found process {process.pid}"):
            lease.acquire()
        print(file=process.stdin, flush=True)
    with lease:
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_is_added_to_an_empty_one_does_not_hide_a_signature_before_it(tmp_path):
    """As if its process had signed between the last look and the addition."""
    path = tmp_path / ".table.lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        with path.open("ab") as file:
            file.write(leases._UNSIGNED)
        for _ in range(2):
            with pytest.raises(LockedError, match=f"found process {process.pid}"):
                Lease(path).acquire()
            time.sleep(2.1)
        print(file=process.stdin, flush=True)
