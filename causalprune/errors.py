"""Every error that causalprune raises on purpose, each with the exit code that the command line ends with.

An error says what was looked at, what was expected there, what was found, and what to do, on one line.
Anything that escapes as another exception type is an internal error (exit code 1).
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the command line; scripts may rely on them."""

    DONE = 0
    INTERNAL = 1
    USAGE = 2
    DATA = 3
    CORRUPT = 4
    MISMATCH = 5
    STORAGE = 6
    LOCKED = 7
    NUMERICAL = 8
    INTERRUPTED = 75
    KEYBOARD = 130


class CausalpruneError(Exception):
    """Base of the family: ``subject: expected …, found …; remedy`` on one line.

    Args:
        subject: What was looked at: an option, a file, a tensor.
        expected: What would have been right.
        found: What was there instead.
        remedy: What the user can do about it.
    """

    exit_code: ExitCode = ExitCode.INTERNAL

    def __init__(self, subject: str, *, expected: str = "", found: str = "", remedy: str = "") -> None:
        self.subject = subject
        self.expected = expected
        self.found = found
        self.remedy = remedy
        details = [f"expected {expected}"] if expected else []
        details += [f"found {found}"] if found else []
        line = subject + (": " + ", ".join(details) if details else "") + (f"; {remedy}" if remedy else "")
        # A path may hold a newline; a message may not.
        super().__init__(line.replace("\n", "\\n").replace("\r", "\\r"))


class UsageError(CausalpruneError):
    """An option or a value that can't be used."""

    exit_code = ExitCode.USAGE


class DataError(CausalpruneError):
    """Data that is missing, empty, not finite, too short or constant."""

    exit_code = ExitCode.DATA


class CorruptError(CausalpruneError):
    """A file that is damaged, or that can't be trusted."""

    exit_code = ExitCode.CORRUPT


class NewerFormatError(CorruptError):
    """A file of a newer causalprune, which this one can't judge and must not replace."""


class MismatchError(CausalpruneError):
    """Artefacts that don't belong together: another model, mask, recording, configuration or format version."""

    exit_code = ExitCode.MISMATCH


class StorageError(CausalpruneError):
    """The file system refused: no space, no permission."""

    exit_code = ExitCode.STORAGE


class LockedError(CausalpruneError):
    """Another process is writing the same artefact."""

    exit_code = ExitCode.LOCKED


class NumericalError(CausalpruneError):
    """A solver that can't certify its result within its limit."""

    exit_code = ExitCode.NUMERICAL


class InterruptedStage(CausalpruneError):
    """A stage that a signal stopped after it saved its state: the same command resumes it."""

    exit_code = ExitCode.INTERRUPTED

    def __init__(self, subject: str, *, keyboard: bool = False) -> None:
        super().__init__(subject, remedy="run the same command again to resume")
        if keyboard:
            self.exit_code = ExitCode.KEYBOARD
