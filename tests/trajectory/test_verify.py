import os
import signal

import pytest
from store_builders import make_recording

from causalprune.base.errors import InterruptedStage, StorageError
from causalprune.base.signals import stop_signals
from causalprune.trajectory import Store, verify
from causalprune.trajectory.commits import CommitLog


def test_the_log_is_read_as_often_for_many_shards_as_for_few(tmp_path, monkeypatch):
    real, reads = CommitLog.read.__func__, []

    def read(cls, *arguments):
        reads.append(1)
        return real(cls, *arguments)

    monkeypatch.setattr(CommitLog, "read", classmethod(read))
    counts = []
    for rows in (2, 40):
        store, _ = make_recording(tmp_path / f"{rows}", rows=rows, block_rows=1)
        reads.clear()
        assert store.verify() == []
        counts.append(len(reads))
    # When the recording is opened, and once to compare its shards with it.
    assert counts == [2, 2]


def test_a_signal_stops_it(tmp_path, monkeypatch):
    store, _ = make_recording(tmp_path / "t.zarr", rows=12, block_rows=2)
    real, seen = verify.identify_file, []

    def identify_file(location, shape):
        seen.append(location.name)
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(location, shape)

    monkeypatch.setattr(verify, "identify_file", identify_file)
    with pytest.raises(InterruptedStage, match="SIGTERM"), stop_signals():
        store.verify()
    assert seen == ["c.0.0", "c.1.0"]


def test_a_disk_that_refuses_says_nothing_about_the_files(tmp_path, monkeypatch):
    make_recording(tmp_path / "t.zarr", rows=4)

    def identify_file(location, shape):
        raise StorageError(f"cannot read {location}", found="input/output error (EIO)")

    monkeypatch.setattr(verify, "identify_file", identify_file)
    with pytest.raises(StorageError, match=r"c\.0\.0"):
        Store.open(tmp_path / "t.zarr").verify()
