import json
import os
import threading
import time

import pytest

from causalprune.errors import LockedError
from causalprune.sweep import claims
from causalprune.sweep.claims import claim, patient_claim


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
