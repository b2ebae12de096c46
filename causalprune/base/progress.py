"""Progress for people: bars on a terminal, one log line per minute elsewhere, nothing when quiet; always on stderr."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

logger = logging.getLogger("causalprune")

LOG_EVERY_SECONDS = 60.0


class Bar:
    """The progress of one task; this base shows nothing."""

    def advance(self, count: int) -> None:
        """Count that many more steps as done."""

    def describe(self, text: str) -> None:
        """Show a short text on how the task is going."""


class Reporter:
    """Shows progress and messages; this base shows nothing, which is what the library does by default."""

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Bar]:  # noqa: ARG002 -- the subclasses use them
        """Show a task of ``total`` steps while the body runs."""
        yield Bar()

    def warn(self, message: str) -> None:
        """Report something that the user should know, although the stage continues."""
        logger.warning(message)


SILENT = Reporter()
"""What a command reports to unless it is told otherwise."""


class LabelledReporter(Reporter):
    """Puts a label, such as the iteration, before the reports of a stage."""

    def __init__(self, reporter: Reporter, label: str) -> None:
        self._reporter, self._label = reporter, label

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Bar]:
        """Show a task of ``total`` steps while the body runs."""
        with self._reporter.task(self._label + description, total) as bar:
            yield bar

    def warn(self, message: str) -> None:
        """Report something that the user should know, although the stage continues."""
        self._reporter.warn(self._label + message)


class LogReporter(Reporter):
    """For batch jobs: a line when a task starts and ends, and one per minute in between."""

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Bar]:
        """Log the progress of a task."""
        bar = _LogBar(description, total)
        bar.log("%s: %d steps", description, total)
        yield bar
        bar.log("%s: done %s", description, bar.text)


class _LogBar(Bar):
    def __init__(self, description: str, total: int) -> None:
        self._description, self._total = description, total
        self._done, self.text, self._last = 0, "", time.monotonic()

    def advance(self, count: int) -> None:
        self._done += count
        if time.monotonic() - self._last >= LOG_EVERY_SECONDS:
            self._last = time.monotonic()
            self.log("%s: %d/%d %s", self._description, self._done, self._total, self.text)

    def log(self, message: str, *arguments: object) -> None:
        """Log a line, with the numbers as fields for programs."""
        fields = {"task": self._description, "done": self._done, "total": self._total}
        logger.info(message, *arguments, extra={"fields": fields})

    def describe(self, text: str) -> None:
        self.text = text


class TerminalReporter(Reporter):
    """For terminals: a progress bar."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Bar]:
        """Draw a bar."""
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (
            TextColumn("{task.description:<14}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[text]}"),
        )
        with Progress(*columns, console=self._console) as progress:
            yield _TerminalBar(progress, progress.add_task(description, total=total, text=""))

    def warn(self, message: str) -> None:
        """Print a warning."""
        from rich.text import Text

        self._console.print(Text(f"warning: {message}", style="yellow"))


class _TerminalBar(Bar):
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress, self._task = progress, task

    def advance(self, count: int) -> None:
        self._progress.advance(self._task, count)

    def describe(self, text: str) -> None:
        self._progress.update(self._task, text=text)
