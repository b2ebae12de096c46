"""Decisions that processes take together, without an exchange at every step."""

from __future__ import annotations

import time

from causalprune.base.compute.runtime import Processes

PERIOD = 0.5
"""Seconds between two exchanges. A signal to one of several processes waits as long, and at most one step longer."""

MOST_STEPS = 1000


class Agreement:
    """Asks all processes a few times a second, whatever the length of a step.

    How many steps pass until the next exchange is part of each exchange: as many as the slowest process takes in
    :data:`PERIOD`. So all of them count the same steps. A single process decides at every step.

    Args:
        group: The processes.
    """

    def __init__(self, group: Processes) -> None:
        self._group = group
        self._steps = self._left = 1
        self._last = time.monotonic()

    def any(self, *flags: bool) -> list[bool]:
        """For each flag, whether any process has set it; all must call this at every step, and keep a flag set.

        Returns:
            All False where there is no exchange at this step.
        """
        if self._group.count == 1:
            return list(flags)
        self._left -= 1
        if self._left:
            return [False] * len(flags)
        now = time.monotonic()
        # In microseconds, at least one, because the largest of whole numbers is agreed on.
        step = max(1, int((now - self._last) / self._steps * 1e6))
        *agreed, slowest = self._group.largest(*(int(flag) for flag in flags), step)
        self._steps = self._left = min(MOST_STEPS, max(1, int(PERIOD * 1e6 / slowest)))
        self._last = now
        return [bool(flag) for flag in agreed]
