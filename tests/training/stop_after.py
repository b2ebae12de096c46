"""Stops a training after so many steps."""

import signal
from contextlib import contextmanager

from causalprune.base.progress import Bar, Reporter


class StopAfter(Reporter):
    """Sets the stop flag once so many steps are done, as a signal would."""

    def __init__(self, stop, steps):
        self.stop, self.left = stop, steps

    @contextmanager
    def task(self, description, total):
        bar = Bar()
        bar.advance = self.advance
        yield bar

    def advance(self, count):
        self.left -= count
        if self.left == 0:
            self.stop.signal = signal.SIGTERM
