import io
import logging
from types import SimpleNamespace

from rich.console import Console

from causalprune.base import progress as reporting
from causalprune.base.progress import LabelledReporter, LogReporter, Reporter, TerminalReporter


def test_a_batch_job_gets_one_line_per_minute(monkeypatch):
    # A clock and a handler of its own: other threads look at the real clock, other tests leave handlers behind.
    clock = iter(range(0, 100_000, 7))
    monkeypatch.setattr(reporting, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = logging.getLogger("causalprune")
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "level", logging.INFO)
    logger.manager._clear_cache()
    with LogReporter().task("record", 100) as bar:
        for _ in range(100):
            bar.advance(1)
    logger.manager._clear_cache()
    assert lines[0] == "record: 100 steps"
    # Seven seconds a step: every ninth is the first after a minute.
    assert lines[1].startswith("record: 9/100")
    assert len(lines) == 2 + 100 // 9


class Recorded(Reporter):
    def __init__(self):
        self.said = []

    def task(self, description, total):
        self.said.append((description, total))
        return super().task(description, total)

    def warn(self, message):
        self.said.append(message)


def test_a_label_stands_before_tasks_and_warnings():
    inner = Recorded()
    outer = LabelledReporter(inner, "iteration 2: ")
    with outer.task("record", 3) as bar:
        bar.advance(3)
        bar.describe("fine")
    outer.warn("careful")
    assert inner.said == [("iteration 2: record", 3), "iteration 2: careful"]


def test_a_terminal_shows_the_count_the_description_and_warnings():
    shown = io.StringIO()
    reporter = TerminalReporter(Console(file=shown, width=100))
    with reporter.task("record", 8) as bar:
        bar.advance(5)
        bar.describe("loss 0.5 [not markup]")
    reporter.warn("[slow] disk")
    assert "record" in shown.getvalue()
    assert "5/8" in shown.getvalue()
    assert "loss 0.5" in shown.getvalue()
    assert "warning: [slow] disk" in shown.getvalue()


def test_by_default_nothing_is_shown_but_warnings_are_logged(capsys, caplog):
    caplog.set_level(logging.WARNING, "causalprune")
    reporter = Reporter()
    with reporter.task("record", 8) as bar:
        bar.advance(8)
    assert capsys.readouterr() == ("", "")
    reporter.warn("careful")
    assert "careful" in caplog.messages
