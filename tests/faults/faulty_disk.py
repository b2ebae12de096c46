"""A disk that fails at its N-th change, in every way a disk can: it stands in for ``os`` where causalprune writes."""

import errno
import os
import shutil
import signal

from causalprune import files, locking

CHANGES = ("open", "write", "pwrite", "fsync", "replace", "rename", "link", "unlink", "ftruncate", "makedirs")
WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

FAULTS = ("SIGKILL", "ENOSPC", "EIO")


class FaultyDisk:
    """``os`` and ``shutil``, counting what changes the disk.

    Args:
        fault: What happens at change ``fail_at``: ``SIGKILL`` of this process, or the name of an error number. A write
            is torn: half of its bytes get there.
        fail_at: Number of that change, from 1; 0 for none.
    """

    def __init__(self, fault="", fail_at=0):
        self.fault, self.fail_at = fault, fail_at
        self.changes = []

    def install(self):
        files.os = locking.os = files.shutil = self

    def __getattr__(self, name):
        if name == "rmtree":
            return self._rmtree
        real = getattr(os, name)
        return self._counted(name, real) if name in CHANGES else real

    def _counted(self, name, real):
        def call(*args, **kwargs):
            if name == "open" and not args[1] & WRITE_FLAGS:
                return real(*args, **kwargs)
            self.changes.append(name)
            if len(self.changes) == self.fail_at:
                if name in ("write", "pwrite"):
                    descriptor, data, *position = args
                    real(descriptor, data[: len(data) // 2], *position)
                self._fail()
            return real(*args, **kwargs)

        return call

    def _rmtree(self, path):
        self.changes.append("rmtree")
        if len(self.changes) == self.fail_at:
            everything = sorted(path.rglob("*"), key=lambda p: (-len(p.parts), p))
            for entry in everything[: len(everything) // 2]:
                entry.rmdir() if entry.is_dir() else entry.unlink()
            self._fail()
        shutil.rmtree(path)

    def _fail(self):
        if self.fault == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        code = getattr(errno, self.fault)
        raise OSError(code, os.strerror(code))
