"""Signals that ask a stage to stop: they set a flag, the stage saves, and ends with exit code 75."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from causalprune.errors import InterruptedStage

DEFAULT_STOP_SIGNALS = "TERM,USR1,USR2"
"""What batch systems send before they kill; SIGINT stops a stage as well, always."""

POSSIBLE_STOP_SIGNALS = ("TERM", "USR1", "USR2", "HUP", "QUIT", "ALRM", "XCPU", "PWR")
"""Signals that may be chosen: those that nothing else in the process needs."""


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
    """Check for :func:`causalprune.options.option`: names of signals."""
    try:
        parse_signals(names)
    except ValueError:
        return "signals out of " + ", ".join(POSSIBLE_STOP_SIGNALS)
    return None


class StopRequest:
    """A flag that signals set. A loop that saves reads it after each step; elsewhere the first signal ends the stage.

    Only the first signal counts: a second one can't disturb the save that the first one asked for.
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
        """End here if a signal came, with nothing to save.

        Raises:
            InterruptedStage: It did.
        """
        if self:
            raise self.error("nothing half-written")

    @contextmanager
    def deferred(self) -> Iterator[StopRequest]:
        """While the body runs a signal does no more than set the flag."""
        self._deferrals += 1
        try:
            yield self
        finally:
            self._deferrals -= 1

    def _receive(self, number: int, _: FrameType | None) -> None:
        first = self.signal is None
        self.signal = self.signal or signal.Signals(number)
        if first and not self._deferrals:
            # Code written in C may put another error in the place of this one.
            self.raised = True
            self.check()


_listening: list[StopRequest] = []
"""The request that this process's handlers set, while there is one."""


@contextmanager
def stop_signals(names: str = DEFAULT_STOP_SIGNALS, *, ends_process: bool = False) -> Iterator[StopRequest]:
    """Turn signals into a :class:`StopRequest` while the body runs; inside another such body, into its request.

    Outside the main thread, where Python can't set handlers, the flag is never set.

    Args:
        names: The signals, such as ``TERM,USR1``; SIGINT is always one of them.
        ends_process: The process ends behind the body. The signals are then ignored rather than given back, or one
            that comes late would turn a finished stage into a killed one.
    """
    if _listening or threading.current_thread() is not threading.main_thread():
        yield _listening[0] if _listening else StopRequest()
        return
    request = StopRequest()
    hook = sys.unraisablehook

    def raise_again(unraisable: sys.UnraisableHookArgs) -> None:
        if isinstance(unraisable.exc_value, InterruptedStage) and request.signal is not None:
            # It came in a destructor, from which nothing can be raised: once more, a moment later.
            number, request.signal = request.signal, None
            threading.Timer(0.01, signal.pthread_kill, [threading.main_thread().ident, number]).start()
        else:
            hook(unraisable)

    sys.unraisablehook = raise_again
    previous = {number: signal.signal(number, request._receive) for number in parse_signals(names)}
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
    """:func:`stop_signals` for a body that asks for the flag after each step and saves."""
    with stop_signals(names) as request, request.deferred():
        yield request
