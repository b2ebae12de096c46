"""Progress for people: a bar on a terminal, one log line per minute elsewhere, nothing when quiet; always on stderr."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from causalprune.base.progress.schedule import PlannedStep, Schedule
from causalprune.base.units import format_seconds

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

logger = logging.getLogger("causalprune")

LOG_EVERY_SECONDS = 60.0

_WIDE, _BAR, _SHORT_BAR = 100, 24, 12
"""From this width of the terminal on, the bar has its full length."""


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

    @contextmanager
    def overall(self, schedule: Schedule) -> Iterator[Reporter]:  # noqa: ARG002
        """Show the steps of a schedule as one, while the body runs.

        Yields:
            What the stages report to: their tasks count within the step that runs.
        """
        yield self

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Show that something goes on while the body runs, which loads what a command needs."""
        yield

    def warn(self, message: str) -> None:
        """Report something that the user should know, although the stage continues."""
        logger.warning(message)

    def note(self, message: str) -> None:
        """Report what was decided about the data, which isn't a fault; what repeats a stage may report it once."""
        self.warn(message)


@contextmanager
def warnings_rewritten(rewrite: Callable[[str], str]) -> Iterator[None]:
    """Change what is logged as a warning while the body runs, which doesn't know what it is a part of."""

    def change(record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING:
            record.msg, record.args = rewrite(record.getMessage()), None
        return True

    logger.addFilter(change)
    try:
        yield
    finally:
        logger.removeFilter(change)


SILENT = Reporter()
"""What a command reports to unless it is told otherwise."""


class LabeledReporter(Reporter):
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

    def note(self, message: str) -> None:
        """Report what was decided about the data."""
        self._reporter.note(self._label + message)


class OnceReporter(LabeledReporter):
    """Says what was decided about the data only once, whichever stage says it.

    Args:
        reporter: What to pass reports on to.
        label: As of :class:`LabeledReporter`.
        noted: What was said, without a label; several of these may share it.
    """

    def __init__(self, reporter: Reporter, label: str, noted: set[str]) -> None:
        super().__init__(reporter, label)
        self._noted = noted

    def note(self, message: str) -> None:
        """Report what was decided about the data, the first time."""
        if message not in self._noted:
            self._noted.add(message)
            super().note(message)


class _Shown(Reporter):
    """Shows a schedule as a whole; a task of its own is a schedule of one step."""

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Bar]:
        """Show a task of ``total`` steps while the body runs."""
        schedule = Schedule(description, {description: PlannedStep(description)})
        with (
            self.overall(schedule) as reporter,
            schedule.step(description),
            reporter.task(description, total) as bar,
        ):
            yield bar


class _OfSteps(Reporter):
    """Counts the tasks of stages within the step of a schedule that runs."""

    def __init__(self, schedule: Schedule, outer: Reporter) -> None:
        self._schedule, self._warn, self._note = schedule, outer.warn, outer.note

    @contextmanager
    def task(self, description: str, total: int) -> Iterator[Bar]:  # noqa: ARG002 -- the step has a name
        """Count a task of ``total`` steps while the body runs."""
        self._schedule.begin_task(total)
        yield _StepBar(self._schedule)

    def warn(self, message: str) -> None:
        """Report something that the user should know, although the stage continues."""
        self._warn(message)

    def note(self, message: str) -> None:
        """Report what was decided about the data."""
        self._note(message)


class _StepBar(Bar):
    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule

    def advance(self, count: int) -> None:
        self._schedule.advance(count)

    def describe(self, text: str) -> None:
        self._schedule.detail = text


class LogReporter(_Shown):
    """For batch jobs: a line when the work begins, one per minute, and one when it is done."""

    @contextmanager
    def overall(self, schedule: Schedule) -> Iterator[Reporter]:
        """Log the progress of a schedule."""
        last: float | None = None

        def watch() -> None:
            nonlocal last
            if last is None and not schedule.is_counting:
                return
            now = time.monotonic()
            if last is None or now - last >= LOG_EVERY_SECONDS:
                first, last = last is None, now
                _log(
                    schedule,
                    _with_detail(schedule)
                    + (f" ({schedule.counted[1]:,} steps)" if first and schedule.counted[1] > 1 else ""),
                )

        schedule.watch = watch
        yield _OfSteps(schedule, self)
        schedule.watch = lambda: None
        schedule.finished = True
        _log(schedule, f"{schedule.name}: done in {format_seconds(schedule.seconds)}")


def _with_detail(schedule: Schedule) -> str:
    return f"{schedule.line} · {schedule.detail}" if schedule.detail else schedule.line


def _log(schedule: Schedule, message: str) -> None:
    """Log a line, with the numbers as fields for programs."""
    fields: dict[str, Any] = {"task": schedule.label}
    done, total = schedule.counted
    if total or not schedule.finished:
        # A last step in one piece counts nothing, which would look like nothing done.
        fields |= {"done": done, "total": total}
    fields["percent"] = int(100 * schedule.share)
    if rest := schedule.remaining:
        fields["eta_seconds"] = round(rest[0])
    logger.info("%s", message, extra={"fields": fields})


class TerminalReporter(_Shown):
    """For terminals: a bar and one line beside it."""

    def __init__(self, console: Console) -> None:
        self._console = console

    @contextmanager
    def overall(self, schedule: Schedule) -> Iterator[Reporter]:
        """Draw one bar."""
        from rich.live import Live

        with Live(console=self._console, get_renderable=lambda: _drawn(schedule, self._console.width)):
            yield _OfSteps(schedule, self)
            schedule.finished = True

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Show a line that goes away: PyTorch takes seconds to load."""
        from rich.live import Live
        from rich.text import Text

        with Live(Text("starting"), console=self._console, transient=True, auto_refresh=False):
            yield


def _drawn(schedule: Schedule, width: int) -> Table:
    """The bar, then the line, with how the step is going if that fits."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    bar, line, more = _BAR if width >= _WIDE else _SHORT_BAR, schedule.line, _with_detail(schedule)
    text = Text(more if len(more) + bar + 1 < width else line, no_wrap=True, overflow="ellipsis")
    made = Table.grid(padding=(0, 1))
    made.add_column(width=bar)
    made.add_column(no_wrap=True)
    made.add_row(ProgressBar(total=1.0, completed=schedule.share, width=bar), text)
    return made
