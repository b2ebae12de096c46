"""A disk that fails on demand."""

import errno
import os


class FaultyOs:
    """``os``, whose ``fail_at``-th writing operation and, as on a full disk, every later write fails."""

    WRITING = ("write", "pwrite", "fsync", "replace", "rename", "makedirs")

    def __init__(self, fail_at=None, *, forever=False):
        self.fail_at = fail_at
        self.forever = forever
        self.count = 0

    def __getattr__(self, name):
        real = getattr(os, name)
        if name not in self.WRITING:
            return real

        def call(*args, **kwargs):
            self.count += 1
            if self.fail_at is not None and (
                self.count == self.fail_at or (self.forever and self.count > self.fail_at and "write" in name)
            ):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*args, **kwargs)

        return call
