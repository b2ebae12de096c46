"""A disk that fails at its N-th change, in every way a disk can."""

import errno
import os
import re
import signal
import sys
import threading
from functools import partialmethod
from pathlib import Path

from causalprune.base.files import Disk

CHANGES = tuple(name for name in vars(Disk) if not name.startswith("_"))

FREEING = ("unlink", "rmtree", "ftruncate")
"""Changes that succeed on a full disk, too."""

EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate")
"""Audit events of changes to the disk; an ``open`` is one if it is for writing."""

WRITE_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

FAULTS = ("SIGKILL", "ENOSPC", "EIO")

STOPS = ("SIGTERM", "SIGUSR1", "SIGINT")
"""Faults that ask for an end: the change is made, and the signal is there before the next line of Python."""


class FaultyDisk(Disk):
    """A disk that counts its changes.

    Args:
        fault: What happens at change ``fail_at``: ``SIGKILL`` of this process, the name of an error number, or one of
            :data:`STOPS`. A write is torn: half of its bytes get there.
        fail_at: Number of that change, from 1; 0 for none.
        full: Every later write fails, too.
    """

    def __init__(self, fault="", fail_at=0, *, full=False):
        self.fault, self.fail_at, self.full = fault, fail_at, full
        self.changes = []
        self.past_it = []
        self._here = threading.local()

    def watch(self, directory):
        """Note in ``past_it`` every change below a directory that doesn't come by here, but for lock files."""

        def hook(event, arguments):
            if event not in EVENTS or getattr(self._here, "inside", False):
                return
            writes = event != "open" or (isinstance(arguments[2], int) and arguments[2] & WRITE_FLAGS)
            path = str(arguments[0])
            if writes and path.startswith(directory) and not _is_made_by_filelock(path):
                self.past_it.append(f"{event} {path}")

        sys.addaudithook(hook)

    def _change(self, name, *args, **kwargs):
        self.changes.append(name)
        number = len(self.changes)
        self._here.inside = True
        try:
            fails = number == self.fail_at or (self.full and name == "write" and 0 < self.fail_at < number)
            if fails and self.fault not in STOPS:
                self._fail(name, *args)
            result = getattr(Disk, name)(*args, **kwargs)
            if fails:
                os.kill(os.getpid(), signal.Signals[self.fault])
            return result
        finally:
            self._here.inside = False

    def _fail(self, name, *args):
        if name == "write":
            descriptor, data = args
            os.write(descriptor, data[: len(data) // 2])
        if name == "rmtree":
            everything = sorted(args[0].rglob("*"), key=lambda p: (-len(p.parts), p))
            for entry in everything[: len(everything) // 2]:
                entry.rmdir() if entry.is_dir() else entry.unlink()
        if self.fault == "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        code = getattr(errno, self.fault)
        raise OSError(code, os.strerror(code))


for _name in CHANGES:
    setattr(FaultyDisk, _name, partialmethod(FaultyDisk._change, _name))


def _is_made_by_filelock(path):
    """Whether the library for locks, which knows no disk of ours, is at work on a lock or in a folder that exists."""
    frame = sys._getframe(2)
    while (package := frame.f_globals["__name__"].partition(".")[0]) in ("os", "pathlib"):
        frame = frame.f_back
    return package == "filelock" and (re.search(r"lock(\.[\w.]+)?$", path) is not None or Path(path).is_dir())
