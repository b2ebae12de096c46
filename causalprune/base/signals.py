"""Signals that ask a stage to stop: they set a flag, the stage saves, and ends with exit code 75."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from causalprune.base.errors import InterruptedStage

DEFAULT_STOP_SIGNALS = "TERM,USR1,USR2"
"""The signals that batch systems send before they kill; SIGINT always stops a stage as well."""

POSSIBLE_STOP_SIGNALS = ("TERM", "USR1", "USR2", "HUP", "QUIT", "ALRM", "XCPU", "PWR")
"""Signals that may be chosen: those that nothing else in the process needs."""

RESEND_SECONDS = 0.05
"""After which a signal is sent again that came where it can't end anything."""


def parse_signals(names: str) -> tuple[signal.Signals, ...]:
    """Read ``TERM,USR1`` or ``SIGTERM, SIGUSR1``; SIGINT is added.

    Raises:
        ValueError: Another name.
    """
    chosen = [name.strip().upper().removeprefix("SIG") for name in names.split(",") if name.strip()]
    if not set(chosen) <= set(POSSIBLE_STOP_SIGNALS):
        raise ValueError(names)
    return (*(signal.Signals[f"SIG{name}"] for name in chosen), signal.SIGINT)


def check_signals(names: str) -> str | None:
    """Check for :func:`causalprune.base.options.option`: names of signals."""
    try:
        parse_signals(names)
    except ValueError:
        return "signals out of " + ", ".join(POSSIBLE_STOP_SIGNALS)
    return None


class StopRequest:
    """A flag that signals set. A loop that saves reads it after each step; elsewhere the first signal ends the stage.

    Only the first signal counts: a second one can't disturb the save that the first one asked for.

    Attributes:
        signal: The first signal; None while none has come.
        raised: Whether it has ended the stage.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.raised = False
        self._deferrals = 0

    def __bool__(self) -> bool:
        return self.signal is not None

    def error(self, saved: str) -> InterruptedStage:
        """The error that ends the stage once ``saved`` is on disk."""
        name = self.signal.name if self.signal else "a stop request"
        return InterruptedStage(f"stopped by {name}, {saved}", keyboard=self.signal == signal.SIGINT)

    def check(self) -> None:
        """End the stage here if a signal came, with nothing to save.

        Raises:
            InterruptedStage: A signal came.
        """
        if self:
            raise self.error("nothing half-written")

    @contextmanager
    def deferred(self) -> Iterator[StopRequest]:
        """While the body runs, a signal only sets the flag; the body decides what follows from it."""
        self._deferrals += 1
        try:
            yield self
        finally:
            self._deferrals -= 1

    def receive(self, number: int, _: FrameType | None = None) -> None:
        """Handle a signal."""
        if self.signal is None:
            self.signal = signal.Signals(number)
            self.raise_unless_deferred()

    def raise_unless_deferred(self) -> None:
        """End the stage here because of the signal that just came, unless signals are deferred."""
        if not self._deferrals:
            # Code written in C may put another error in the place of this one.
            self.raised = True
            self.check()


_listening: list[StopRequest] = []
"""The request that this process's handlers set, while there is one."""


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let the body finish before a signal that comes meanwhile ends the stage."""
    if not _listening or threading.current_thread() is not threading.main_thread():
        yield
        return
    request = _listening[0]
    before = request.signal
    try:
        with request.deferred():
            yield
    finally:
        if request.signal != before:
            request.raise_unless_deferred()


@contextmanager
def stop_signals(names: str = DEFAULT_STOP_SIGNALS, *, ends_process: bool = False) -> Iterator[StopRequest]:
    """Turn signals into a :class:`StopRequest` while the body runs; inside another such body, into its request.

    Outside the main thread, where Python can't set handlers, the flag is never set.

    Args:
        names: The signals, such as ``TERM,USR1``; SIGINT is always one of them.
        ends_process: The process ends after the body. The signals are then ignored rather than given back, or one
            that comes late would turn a finished stage into a killed one.
    """
    if _listening or threading.current_thread() is not threading.main_thread():
        yield _listening[0] if _listening else StopRequest()
        return
    request = StopRequest()
    hook = sys.unraisablehook

    def raise_again(unraisable: sys.UnraisableHookArgs) -> None:
        if not isinstance(unraisable.exc_value, InterruptedStage):
            hook(unraisable)
            return
        # It came in a destructor, from which nothing can be raised: send it again a moment later, after this function,
        # from which nothing can be raised either.
        while request.signal is not None:
            number, request.signal = request.signal, None
            with request.deferred():
                threading.Timer(RESEND_SECONDS, signal.pthread_kill, [threading.main_thread().ident, number]).start()

    sys.unraisablehook = raise_again
    previous = {number: signal.signal(number, request.receive) for number in parse_signals(names)}
    _listening.append(request)
    try:
        yield request
    finally:
        _listening.clear()
        sys.unraisablehook = hook
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_IGN if ends_process else handler)


@contextmanager
def stop_requests(names: str = DEFAULT_STOP_SIGNALS) -> Iterator[StopRequest]:
    """:func:`stop_signals` for a body that reads the flag after each step and saves."""
    with stop_signals(names) as request, request.deferred():
        yield request
