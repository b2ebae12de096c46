"""A lock with a pulse, so that the work of a process that died on another host is taken up.

A :class:`causalprune.locking.FileLock` whose holder ran on this host is known to be dead or alive. Of another host only
the pulse tells: whoever holds a claim touches the lock's file every :data:`BEAT_SECONDS`, and a claim of another host
that hasn't been touched for :data:`DEAD_AFTER_SECONDS`, on the file system's own clock, is taken over. Only the very
holder whose pulse was missed loses it: whoever took the claim over meanwhile keeps it.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from causalprune.errors import LockedError
from causalprune.files import make_directory, storage_errors, temporary_beside, write_atomic
from causalprune.locking import FileLock, holder_token
from causalprune.reporting import LOG_EVERY_SECONDS, logger

BEAT_SECONDS = 15.0
DEAD_AFTER_SECONDS = 300.0


@contextmanager
def claim(path: Path, *, break_lock: bool = False) -> Iterator[None]:
    """Be the only one with this claim while the body runs.

    Args:
        path: The lock file; its directory is made.
        break_lock: Take it from a process on another host although its pulse may still beat.

    Raises:
        LockedError: Another process has it.
        StorageError: The file system refused.
    """
    make_directory(path.parent)
    lock = FileLock(path, break_lock=break_lock, ended=_silent(path))
    stop = threading.Event()

    def beat() -> None:
        while not stop.wait(BEAT_SECONDS):
            with suppress(OSError):
                os.utime(path)

    with lock:
        pulse = threading.Thread(target=beat, name="claim", daemon=True)
        pulse.start()
        try:
            yield
        finally:
            stop.set()
            pulse.join()


@contextmanager
def patient_claim(path: Path, *, break_lock: bool = False) -> Iterator[None]:
    """Like :func:`claim`, but wait for whoever has it, for work that takes no more than a moment."""
    said = time.monotonic()
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(claim(path, break_lock=break_lock))
                break
            except LockedError as error:
                if time.monotonic() - said > LOG_EVERY_SECONDS:
                    logger.info("waiting for %s", error)
                    said = time.monotonic()
                time.sleep(0.05)
        yield


def _silent(path: Path) -> frozenset[str]:
    """Tokens of the holder, and of those who died about to take over from it, if their pulse is missed.

    Each token is read before its file's pulse is looked at: a file that changes hands in between is a fresh one.
    """
    holder = holder_token(path)
    if holder is None or not _has_no_pulse(path):
        return frozenset()
    with storage_errors(path, "lock"):
        successors = [p for p in path.parent.iterdir() if p.name.startswith(f"{path.name}.claim-")]
    found = {token for p in successors if (token := holder_token(p)) is not None and _has_no_pulse(p)}
    return frozenset({holder, *found})


def _has_no_pulse(path: Path) -> bool:
    with storage_errors(path, "lock"):
        try:
            touched = path.stat().st_mtime
        except FileNotFoundError:
            return False
        if abs(time.time() - touched) < DEAD_AFTER_SECONDS / 2:
            # Certainly alive if the clocks agree; if they don't, the next look decides.
            return False
        probe = temporary_beside(path)
        write_atomic(probe, b"")
        now = probe.stat().st_mtime
        probe.unlink()
    return now - touched > DEAD_AFTER_SECONDS
