"""Object storage that fails at its N-th change, in every way a network can."""

import os
import signal
from contextlib import suppress

from causalprune.base.errors import StorageError
from causalprune.trajectory.storage import object_fence
from causalprune.trajectory.storage.object_client import ConflictError, NoAnswerError, ObjectClient

STORAGE_FAULTS = ("refused", "lost", "cut off before", "cut off behind", "SIGKILL before", "SIGKILL behind")
"""One request is refused; one is made, but its answer is lost; none is answered from one on, which is made or isn't."""


class FaultyStorage:
    """Counts the requests that change something.

    Args:
        fault: One of :data:`STORAGE_FAULTS`: what happens at change ``fail_at``.
        fail_at: Number of that change, from 1; 0 for none.
    """

    def __init__(self, fault="", fail_at=0):
        self.fault, self.fail_at = fault, fail_at
        self.changes = []
        self.is_cut_off = False

    def install(self):
        real = ObjectClient._request
        object_fence._WAIT_SECONDS = 0

        def request(client, action, key, call):
            if self.is_cut_off:
                raise self._no_answer()
            if action not in ("write", "delete"):
                return real(client, action, key, call)
            self.changes.append(f"{action} {key}")
            if len(self.changes) != self.fail_at:
                return real(client, action, key, call)
            self.is_cut_off = self.fault.startswith("cut off")
            if self.fault == "refused":
                raise StorageError("cannot do it", found="access denied", remedy="run the same command again")
            if self.fault.endswith("before"):
                raise self._ending()
            with suppress(ConflictError):
                real(client, action, key, call)
            raise self._ending()

        ObjectClient._request = request

    def _ending(self):
        if self.fault.startswith("SIGKILL"):
            os.kill(os.getpid(), signal.SIGKILL)
        return self._no_answer()

    @staticmethod
    def _no_answer():
        return NoAnswerError("cannot do it", found="no answer", remedy="run the same command again")
