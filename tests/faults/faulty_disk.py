"""A disk that fails at its N-th change, in every way a disk can: it stands in for ``os`` where causalprune writes."""

import errno
import os
import shutil
import signal
import sys
import threading
from pathlib import Path

from causalprune import files

CHANGES = ("open", "write", "pwrite", "fsync", "replace", "rename", "link", "unlink", "ftruncate", "makedirs")
WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate")
"""Audit events of changes to the disk; an ``open`` is one if it is for writing."""

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
        self.past_it = []
        self._here = threading.local()

    def install(self):
        files.os = files.shutil = self

    def watch(self, directory):
        """Note in ``past_it`` every change below a directory that doesn't come by here, but for lock files."""

        def hook(event, arguments):
            if event in EVENTS and not getattr(self._here, "inside", False):
                writes = event != "open" or (isinstance(arguments[2], int) and arguments[2] & WRITE_FLAGS)
                if event == "os.mkdir" and Path(arguments[0]).is_dir():
                    return
                if writes and str(arguments[0]).startswith(directory) and "lock" not in Path(arguments[0]).name:
                    self.past_it.append(f"{event} {arguments[0]}")

        sys.addaudithook(hook)

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
            self._here.inside = True
            try:
                return real(*args, **kwargs)
            finally:
                self._here.inside = False

        return call

    def _rmtree(self, path):
        self.changes.append("rmtree")
        if len(self.changes) == self.fail_at:
            everything = sorted(path.rglob("*"), key=lambda p: (-len(p.parts), p))
            for entry in everything[: len(everything) // 2]:
                entry.rmdir() if entry.is_dir() else entry.unlink()
            self._fail()
        self._here.inside = True
        try:
            shutil.rmtree(path)
        finally:
            self._here.inside = False

    def _fail(self):
        if self.fault == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        code = getattr(errno, self.fault)
        raise OSError(code, os.strerror(code))
