"""Where the process begins: a keyboard interrupt ends it in one line even while modules are still being imported."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType


def main() -> int:
    """Run the command line of this process and return its exit code."""
    # Until the command listens to signals itself; where the parent ignores interrupts, they stay ignored.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    from .main import main

    return main()


def _leave(_: int, __: FrameType | None) -> None:
    """End at once, because an exception within an import may be swallowed or leave half a module."""
    os.write(sys.__stderr__.fileno(), _SAID) if sys.__stderr__ else None
    os._exit(130)


_SAID = b"causalprune: stopped by SIGINT with nothing saved since the start; run the same command again to start over\n"
