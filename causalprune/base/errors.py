"""The errors that causalprune raises on purpose, each with the exit code of the command line.

An error names its subject, what was expected, what was found, and what to do, on one line. A parameter that is an
option of the command line is in backticks, with its value if it has one: `` `lr` ``, `` `momentum=0, stride=1` ``; the
command line prints its flag instead. Of other exceptions, :func:`translate` explains those that speak of the machine or
of an option, and :mod:`causalprune.base.foreign_errors` those of the user's own code; any other that escapes is an
internal error (exit code 1).
"""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path

_REMEDIES = {
    errno.ENOSPC: "free some space, then run the same command again",
    errno.EDQUOT: "free some of the quota, then run the same command again",
    errno.EACCES: "get permission for the directory, or choose another",
    errno.EPERM: "get permission for the directory, or choose another",
    errno.EROFS: "choose a directory on a writable file system",
    errno.ENOENT: "create the directory that holds it first",
    errno.ENOTDIR: "choose another path, because part of this one is a file",
    errno.EISDIR: "choose another path, because this one is a directory",
    errno.EEXIST: "choose another path, because a file has this name",
    errno.ELOOP: "put a file in the place of the symbolic link",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.EIO: "check the disk, then run the same command again",
    **dict.fromkeys(
        (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP),
        "choose a directory on another file system, or have this one mounted with locks (on Lustre: flock)",
    ),
}


_MEMORY = re.compile(
    r"out of memory|allocate memory|not enough memory|unable to allocate|_ALLOC_FAILED|bad_?\s?alloc", re.IGNORECASE
)
_AMOUNT = re.compile(r"(?:tried to allocate|unable to allocate) ([\d.]+ (?:bytes|[KMGT]iB))", re.IGNORECASE)
_DETERMINISM = re.compile(
    r"([\w:.]+) does not have a deterministic implementation|not deterministic because it uses CuBLAS"
)
_SINGLE = re.compile(r"Expected more than 1 value per channel when training, got input size torch\.Size\(\[([\d, ]+)")
_COMPILERS = ("torch._dynamo", "torch._inductor", "torch._functorch", "triton")
"""What the errors of Python, NumPy and PyTorch say."""


class ExitCode(IntEnum):
    """Exit codes of the command line; scripts may rely on them."""

    DONE = 0  # or nothing left to do
    INTERNAL = 1  # a defect in causalprune
    USAGE = 2  # an option, a value, or a variable of the environment
    DATA = 3  # bad data: missing, empty, not finite, too few rows; a network or other code of the user that raises
    CORRUPT = 4  # a file that is damaged or not trusted
    MISMATCH = 5  # another model, mask, recording or configuration
    STORAGE = 6  # input and output, or memory: no space, no permission
    LOCKED = 7  # another writer
    NUMERICAL = 8  # a solver that can't certify its result
    INTERRUPTED = 75  # by a signal, with work saved; the same command resumes it
    UNSAVED = 76  # by a signal, before anything was saved; the same command starts over
    KEYBOARD = 130  # by the keyboard, whether anything was saved or not


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""What moves a cursor, changes colors or ends a line on a terminal, and what turns the direction of writing."""

_USER = re.compile(r"(?<=://)(?:[^/\s]*|[^/\s:]*:(?!\d+/)\S*)@")
"""The user and the password in a URL. A password may hold a slash; a host with a port is none."""

_USER_IN_PATH = re.compile(r"(?<=\bhttp:/)(?!/)\S*@|(?<=\bhttps:/)(?!/)\S*@|(?<=\bs3:/)(?!/)\S*@")
"""The same in a URL that was taken for a path, which made one slash of two."""


def printable(text: str, keep: str = "") -> str:
    r"""Text with its control characters spelled as in JSON, such as ``\u001b``, except those to ``keep``."""
    return _CONTROL.sub(lambda match: match[0] if match[0] in keep else json.dumps(match[0])[1:-1], text)


def masked(text: str) -> str:
    """Text without the users and passwords in its URLs: ``https://***@host``."""
    return _USER_IN_PATH.sub("***@", _USER.sub("***@", text))


class _OneLine(BaseException):
    """``subject: expected …, found …; remedy`` on one line, without control characters or passwords.

    Args:
        subject: What the error is about: an option, a file, a tensor.
        expected: What would be valid.
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
        # What happened instead of nothing in particular: "cannot write x: no space left on device".
        details += [f"found {found}" if expected else found] if found else []
        line = subject + (": " + ", ".join(details) if details else "") + (f"; {remedy}" if remedy else "")
        # A path or a name in a file may hold a newline or an escape sequence; a message may not.
        super().__init__(printable(masked(line)))


class CausalpruneError(_OneLine, Exception):
    """Base of the errors; each is one line."""

    def reword(self, change: Callable[[str], str]) -> None:
        """Say the same in the words of a caller who knows more of the work."""
        subject, expected, found, remedy = map(change, (self.subject, self.expected, self.found, self.remedy))
        _OneLine.__init__(self, subject, expected=expected, found=found, remedy=remedy)


class UsageError(CausalpruneError):
    """An option or a value that can't be used."""

    exit_code = ExitCode.USAGE


def missing_extra(need: str, extra: str) -> UsageError:
    """The error where a package isn't installed that something needs: "plots need matplotlib: pip install '.[plots]'".

    Args:
        need: What needs which package.
        extra: The extra of the installation that has it.
    """
    return UsageError(f"{need}: pip install '.[{extra}]'")


class DataError(CausalpruneError):
    """Data that is missing, empty, not finite, too short or constant."""

    exit_code = ExitCode.DATA


class CorruptError(CausalpruneError):
    """A file that is damaged or can't be trusted."""

    exit_code = ExitCode.CORRUPT


class NewerFormatError(CorruptError):
    """A file of a newer causalprune, which this version can't check and must not replace."""


class MismatchError(CausalpruneError):
    """Artifacts that don't belong together: another model, mask, recording, configuration or format version."""

    exit_code = ExitCode.MISMATCH


class StorageError(CausalpruneError):
    """The file system or object storage refused, or memory is used up: no space, no permission."""

    exit_code = ExitCode.STORAGE


class LockedError(CausalpruneError):
    """Another process holds the lock of an artifact."""

    exit_code = ExitCode.LOCKED


class NumericalError(CausalpruneError):
    """A solver that can't certify its result within its limit."""

    exit_code = ExitCode.NUMERICAL


class InterruptedStage(_OneLine):
    """A signal stopped the stage.

    Like Python's KeyboardInterrupt it isn't an ``Exception``: whoever goes on after an error of one file, one network
    or one plug-in must not go on after a signal.

    Args:
        subject: What stopped it, and what is saved.
        saved: Whether this process has saved anything that the same command goes on from; else it starts over. A batch
            job that is queued again after each stop comes to its end only in the first case.
        keyboard: Whether it was the keyboard.
    """

    exit_code = ExitCode.INTERRUPTED

    def __init__(self, subject: str, *, saved: bool = True, keyboard: bool = False) -> None:
        remedy = "run the same command again to resume" if saved else "run the same command again to start over"
        super().__init__(subject, remedy=remedy)
        self.saved, self.keyboard = saved, keyboard
        if keyboard or not saved:
            self.exit_code = ExitCode.KEYBOARD if keyboard else ExitCode.UNSAVED

    def within(self, step: str) -> InterruptedStage:
        """The same, with the step of a larger work in which it happened."""
        return InterruptedStage(f"{self.subject} ({step})", saved=self.saved, keyboard=self.keyboard)


DAMAGE = (CorruptError, DataError, MismatchError)
"""What is wrong with files, where each of several is looked at; storage that doesn't give them says nothing of them."""


@contextmanager
def storage_errors(path: Path, action: str = "write") -> Iterator[None]:
    """Turn an ``OSError`` in the body into a :class:`StorageError` that names ``path`` and a remedy.

    Args:
        path: The file as the user knows it, not a temporary name.
        action: The attempted action, for the message ``cannot <action> <path>``.
    """
    try:
        yield
    except OSError as error:
        code = error.errno or 0
        reason = f"{(error.strerror or str(error)).lower()} ({errno.errorcode.get(code, type(error).__name__)})"
        remedy = _REMEDIES.get(code, "check the file system, then run the same command again")
        raise StorageError(f"cannot {action} {path}", found=reason, remedy=remedy) from error


def translate(error: BaseException) -> CausalpruneError | None:
    """What an exception means for the user in one line; None if it says nothing about the machine or an option.

    Memory that is used up, on the host or on a GPU, is a :class:`StorageError`. A kernel that isn't deterministic and
    a network that can't be compiled are a :class:`UsageError`, and so is a batch of one value for batch normalization.
    """
    text = " ".join(str(error).split())
    known: CausalpruneError | None = None
    if isinstance(error, CausalpruneError):
        return None
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _MEMORY.search(text)):
        amount = _AMOUNT.search(text)
        known = StorageError(
            "memory of the GPU" if re.search("CUDA|CUBLAS|CUDNN", text) else "memory",
            expected=f"{amount[1]} more" if amount else "more",
            found="too little" if amount else text[:120] or "too little",
            remedy="use a smaller `batch_size`, `memory` or network, or a machine with more",
        )
    elif isinstance(error, RuntimeError) and "can't start new thread" in text:
        known = StorageError("threads", expected="one more", found="no room", remedy="raise the limit (ulimit -u)")
    elif isinstance(error, RuntimeError) and (match := _DETERMINISM.search(text)):
        known = UsageError(
            "`deterministic`",
            expected="operations with a deterministic kernel",
            found=match[1] or "a CUBLAS_WORKSPACE_CONFIG that isn't",
            remedy="leave it out, or use another layer or `device=cpu`" if match[1] else "unset it",
        )
    elif isinstance(error, ValueError) and (match := _SINGLE.search(text)):
        known = UsageError(
            "`batch_size`",
            expected="more than one value per channel, to normalize by the batch",
            found=f"an input ({match[1]})",
            remedy="use a larger one",
        )
    elif type(error).__module__.startswith(_COMPILERS):
        missing = re.search(r"no working C\+\+ compiler|find C compiler|InvalidCxxCompiler", text, re.IGNORECASE)
        known = UsageError(
            "`compile`, or torch.compile in the network's own code",
            expected="a C++ compiler" if missing else "a network that torch.compile can compile",
            found="none" if missing else f"{type(error).__name__} {text}"[:150],
            remedy="leave it out" + (", or install one" if missing else ""),
        )
    if known is not None:
        known.__cause__ = error
    return known
