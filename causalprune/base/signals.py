"""Signals that ask a stage to stop: they set a flag; the stage saves its state, if it has any, and ends."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from causalprune.base.errors import InterruptedStage
from causalprune.base.units import check_parsed

DEFAULT_STOP_SIGNALS = "TERM,USR1,USR2"
"""The signals that batch systems send before they kill; SIGINT always stops a stage as well."""

POSSIBLE_STOP_SIGNALS = ("TERM", "USR1", "USR2", "HUP", "QUIT", "ALRM", "XCPU", "PWR")
"""Signals that users may choose: nothing else in the process needs them."""

RESEND_SECONDS = 0.05
"""Delay before a signal is sent again that arrived where no exception can be raised."""


def parse_signals(names: str) -> tuple[signal.Signals, ...]:
    """Read ``TERM,USR1`` or ``SIGTERM, SIGUSR1``; SIGINT is added.

    Raises:
        ValueError: Another name.
    """
    chosen = [name.strip().upper().removeprefix("SIG") for name in names.split(",") if name.strip()]
    if not set(chosen) <= set(POSSIBLE_STOP_SIGNALS):
        raise ValueError(names)
    return (*(signal.Signals[f"SIG{name}"] for name in chosen), signal.SIGINT)


check_signals = check_parsed(parse_signals, "signals out of " + ", ".join(POSSIBLE_STOP_SIGNALS))


class StopRequest:
    """A flag set by signals. Loops that save their state read it after each step; elsewhere the signal ends the stage.

    Only the first signal counts, so that a second one can't disturb the save that the first one requested.

    Attributes:
        signal: The first signal; None while none has come.
        raised: Whether it has ended the stage.
        saved: Whether this process has saved anything from which the same command goes on, see :func:`note_saved`.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self.raised = False
        self.saved = False
        self._deferrals = 0

    def __bool__(self) -> bool:
        return self.signal is not None

    def error(self, saved: str) -> InterruptedStage:
        """The error that ends the stage once ``saved`` is on the disk."""
        return self._error(f", {saved}", saved=True)

    def error_unsaved(self) -> InterruptedStage:
        """The error that ends the stage where its work so far is lost; what was noted as saved before isn't."""
        text = ", what was done before is saved" if self.saved else " with nothing saved since the start"
        return self._error(text, saved=self.saved)

    def _error(self, text: str, *, saved: bool) -> InterruptedStage:
        name = self.signal.name if self.signal else "a stop request"
        return InterruptedStage(f"stopped by {name}{text}", saved=saved, keyboard=self.signal == signal.SIGINT)

    def check(self) -> None:
        """End the stage here if a signal has arrived; there is nothing to save.

        Raises:
            InterruptedStage: A signal has arrived.
        """
        if self:
            raise self.error_unsaved()

    @contextmanager
    def deferred(self) -> Iterator[StopRequest]:
        """While the body runs, a signal only sets the flag; the body decides what to do."""
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
        """End the stage here because of the signal that just arrived, unless signals are deferred."""
        if not self._deferrals:
            # C code may replace this error by another one.
            self.raised = True
            self.check()


_listening: list[StopRequest] = []
"""The request that this process's signal handlers set, if there is one."""


def note_saved() -> None:
    """Note that this process has saved something from which the same command goes on: a state, a result."""
    for request in _listening:
        request.saved = True


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let the body finish before a signal that arrives meanwhile ends the stage."""
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
    """Turn signals into a :class:`StopRequest` while the body runs. Nested bodies share the outermost request.

    Outside the main thread, where Python can't set handlers, the flag is never set.

    Args:
        names: The signals, such as ``TERM,USR1``; SIGINT is always included.
        ends_process: Whether the process ends after the body. Signals are then ignored rather than restored, because
            a late one would turn a finished stage into a killed one.
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
        # The signal arrived in a destructor, where nothing can be raised. Send it again a moment later, because
        # nothing can be raised from this function either.
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
