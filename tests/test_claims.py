import json
import os
import socket
import threading
import time

import pytest

from causalprune import claims
from causalprune.claims import claim, patient_claim
from causalprune.errors import LockedError
from causalprune.locking import lock_holder


def foreign(path, age):
    """Make a lock look as if a process on another host had taken it, and given its last sign of life ``age`` s ago."""
    with claim(path):
        record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "host": "elsewhere"}))
    os.utime(path, (time.time() - age,) * 2)


def test_a_claim_is_held_by_one(tmp_path):
    path = tmp_path / "new folder/.cell.lock"
    with claim(path), pytest.raises(LockedError), claim(path):
        pass
    assert not path.exists()


def test_a_patient_claim_waits(tmp_path):
    path = tmp_path / ".table.lock"
    order = []

    def second():
        with patient_claim(path):
            order.append("second")

    with claim(path):
        other = threading.Thread(target=second)
        other.start()
        time.sleep(0.2)
        order.append("first")
    other.join(10)
    assert order == ["first", "second"]


def test_only_a_silent_claim_of_another_host_is_taken_over(tmp_path):
    path = tmp_path / ".step.lock"
    foreign(path, age=claims.DEAD_AFTER_SECONDS - 60)
    with pytest.raises(LockedError), claim(path):
        pass
    os.utime(path, (time.time() - claims.DEAD_AFTER_SECONDS - 60,) * 2)
    with claim(path):
        assert json.loads(path.read_text())["host"] != "elsewhere"


def test_a_long_step_keeps_its_pulse(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "BEAT_SECONDS", 0.05)
    path = tmp_path / ".step.lock"
    with claim(path):
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 10
        while path.stat().st_mtime < 1 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert path.stat().st_mtime > time.time() - 60


class Hosts:
    """Every thread may be on a host of its own."""

    def __init__(self, monkeypatch):
        self.local = threading.local()
        here = socket.gethostname()
        monkeypatch.setattr(socket, "gethostname", lambda: getattr(self.local, "name", here))


def test_a_lock_that_another_host_took_over_meanwhile_is_left_to_it(tmp_path, monkeypatch):
    """B judges A's predecessor dead, A takes the lock over with a fresh pulse, and only then B comes to take it."""
    path = tmp_path / ".step.lock"
    foreign(path, age=claims.DEAD_AFTER_SECONDS + 60)
    hosts, take = Hosts(monkeypatch), claims.FileLock

    def after_a(*args, **options):
        hosts.local.name = "a"
        take(path, break_lock=True).acquire()
        hosts.local.name = "b"
        return take(*args, **options)

    monkeypatch.setattr(claims, "FileLock", after_a)
    with pytest.raises(LockedError), claim(path):
        pass
    assert lock_holder(path).host == "a"


def test_of_many_hosts_one_takes_a_silent_lock_over(tmp_path, monkeypatch):
    hosts, path = Hosts(monkeypatch), tmp_path / ".step.lock"
    inside, most, lock = 0, 0, threading.Lock()
    taken = []

    def contend(name, start):
        nonlocal inside, most
        hosts.local.name = name
        start.wait()
        try:
            with claim(path):
                with lock:
                    inside += 1
                    most = max(most, inside)
                taken.append(name)
                time.sleep(0.03)
                with lock:
                    inside -= 1
        except LockedError:
            pass

    for number in range(15):
        foreign(path, age=claims.DEAD_AFTER_SECONDS + 60)
        start = threading.Barrier(6)
        threads = [threading.Thread(target=contend, args=(f"host{i}", start)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (most, len(taken) > number) == (1, True)
        assert not list(tmp_path.iterdir())


def test_a_successor_that_died_on_another_host_is_succeeded(tmp_path):
    path = tmp_path / ".step.lock"
    foreign(path, age=claims.DEAD_AFTER_SECONDS + 60)
    successor = tmp_path / f".step.lock.claim-{lock_holder(path).token}"
    foreign(successor, age=0)
    with pytest.raises(LockedError), claim(path):
        pass
    os.utime(successor, (time.time() - claims.DEAD_AFTER_SECONDS - 60,) * 2)
    with claim(path):
        assert lock_holder(path).host == socket.gethostname()
    assert not list(tmp_path.iterdir())
