"""A process of a sweep knows whether another one works there, also on another host, and also if that one has died."""

import os
import socket
import time

from causalprune.base.leases import DEAD_AFTER_SECONDS
from causalprune.commands.sweep.presence import Presence


def elsewhere(folder, seconds):
    """The file of a process on another host that gave its last sign of life some seconds ago."""
    with Presence(folder) as other:
        text = other.path.read_text()
    file = folder / ".elsewhere.lock"
    file.write_text(text.replace(f"host={socket.gethostname()}", "host=node17"))
    then = time.time() - seconds
    os.utime(file, (then, then))
    return file


def test_a_process_is_alone(tmp_path):
    with Presence(tmp_path) as presence:
        assert presence.others() == ""
    assert list(tmp_path.iterdir()) == []


def test_another_process_of_this_host_is_seen_until_it_ends(tmp_path):
    with Presence(tmp_path) as presence:
        with Presence(tmp_path):
            assert presence.others() == f"process {os.getpid()} on {socket.gethostname()}"
        assert presence.others() == ""


def test_a_process_of_another_host_is_named(tmp_path):
    file = elsewhere(tmp_path, 10)
    with Presence(tmp_path) as presence:
        assert "on node17, last sign of life " in presence.others()
    assert file.exists()
    with Presence(tmp_path, break_lock=True) as presence:
        assert presence.others() == ""


def test_a_process_of_another_host_that_gave_no_sign_of_life_is_dead(tmp_path):
    """At once: whoever corrects a sweep hasn't watched the file before."""
    file = elsewhere(tmp_path, DEAD_AFTER_SECONDS + 5)
    with Presence(tmp_path) as presence:
        assert presence.others() == ""
    assert not file.exists()
