import io
import logging
from types import SimpleNamespace

import pytest
from rich.console import Console

from causalprune.base import progress as reporting
from causalprune.base.progress import LabeledReporter, LogReporter, OnceReporter, Reporter, TerminalReporter
from causalprune.base.progress.schedule import PlannedStep, Schedule


@pytest.fixture
def lines(monkeypatch):
    """What is logged, by a clock on which each look takes seven seconds."""
    # A clock and a handler of its own: other threads look at the real clock, other tests leave handlers behind.
    clock = iter(range(0, 100_000, 7))
    monkeypatch.setattr(reporting, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append((record.getMessage(), record.fields))
    logger = logging.getLogger("causalprune")
    monkeypatch.setattr(logger, "handlers", [handler])
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "level", logging.INFO)
    logger.manager._clear_cache()
    yield lines
    logger.manager._clear_cache()


def test_a_batch_job_gets_one_line_per_minute(lines):
    with LogReporter().task("record", 100) as bar:
        for _ in range(100):
            bar.advance(1)
    (first, fields), *others, (last, _) = lines
    assert first.startswith("record · 1 %")
    assert first.endswith("(100 steps)")
    assert (fields["task"], fields["done"], fields["total"]) == ("record", 1, 100)
    # Seven seconds a step: every ninth is the first after a minute.
    assert [fields["done"] for _, fields in others] == list(range(10, 101, 9))
    assert last.startswith("record: done in ")


def test_at_the_end_nothing_is_counted_where_the_last_step_was_in_one_piece(lines):
    schedule = Schedule("run", {name: PlannedStep(name) for name in ("record", "evaluate")})
    with LogReporter().overall(schedule) as reporter:
        with schedule.step("record"), reporter.task("record", 2) as bar:
            bar.advance(2)
        with schedule.step("evaluate"):
            pass
    (_, first), (message, last) = lines
    assert (first["done"], first["total"]) == (2, 2)
    assert message.startswith("run: done in ")
    assert (last["task"], last["percent"]) == ("run", 100)
    # 0 of 0 would look like nothing done.
    assert last.keys() == {"task", "percent"}


def test_so_do_all_steps_of_a_pipeline_together(lines):
    """Not one for each stage: 4 stages of 30 steps of 7 s are 14 minutes."""
    schedule = Schedule("run", {str(n): PlannedStep(f"prune {n}/4 · record", "record") for n in range(1, 5)})
    with LogReporter().overall(schedule) as reporter:
        for n in range(1, 5):
            with schedule.step(str(n)), reporter.task("record", 30) as bar:
                for _ in range(30):
                    bar.advance(1)
    texts = [text for text, _ in lines]
    assert 13 <= len(texts) <= 16
    assert texts[0].startswith("prune 1/4 · record · ")
    assert all(" % " in f"{text} " for text in texts[:-1])
    assert texts[-1].startswith("run: done in ")


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
    outer = LabeledReporter(inner, "iteration 2: ")
    with outer.task("record", 3) as bar:
        bar.advance(3)
        bar.describe("fine")
    outer.warn("careful")
    assert inner.said == [("iteration 2: record", 3), "iteration 2: careful"]


@pytest.mark.parametrize(("width", "detail"), [(120, True), (40, False)])
def test_a_terminal_shows_the_share_and_the_step(width, detail):
    shown = io.StringIO()
    reporter = TerminalReporter(Console(file=shown, width=width))
    schedule = Schedule("run", {"a": PlannedStep("prune 1/2 · record"), "b": PlannedStep("prune 2/2 · record")})

    def work():
        with reporter.overall(schedule) as steps:
            with schedule.step("a"), steps.task("record", 8) as bar:
                bar.advance(8)
            with schedule.step("b"), steps.task("record", 8) as bar:
                bar.advance(4)
                bar.describe("loss 0.5 [not markup]")
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    text = shown.getvalue()
    (line,) = [line for line in text.splitlines() if "prune 2/2 · record · " in line]
    assert " % " in f"{line} "
    # How it is going is left out where it doesn't fit, and never cut.
    assert ("loss 0.5 [not markup]" in line) == detail
    assert "…" not in line


def test_a_task_of_its_own_ends_with_all_of_it():
    shown = io.StringIO()
    with TerminalReporter(Console(file=shown, width=100)).task("record", 8) as bar:
        bar.advance(8)
    assert "record · 100 % · " in shown.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_what_is_loaded_is_waited_for_on_a_terminal(terminal):
    shown = io.StringIO()
    reporter = TerminalReporter(Console(file=shown, width=80, force_terminal=True)) if terminal else Reporter()
    with reporter.starting():
        assert ("starting" in shown.getvalue()) == terminal
    # Erased: the cursor goes back to the start of the line, which is cleared.
    assert shown.getvalue().endswith("\x1b[2K") == terminal


def test_work_in_one_piece_has_no_share(lines):
    with LogReporter().task("report", 1) as bar:
        bar.advance(1)
    (first, _), (last, _) = lines
    assert first == "report"
    assert last.startswith("report: done in ")


def test_by_default_nothing_is_shown_but_warnings_are_logged(capsys, caplog):
    caplog.set_level(logging.WARNING, "causalprune")
    reporter = Reporter()
    with reporter.task("record", 8) as bar:
        bar.advance(8)
    assert capsys.readouterr() == ("", "")
    reporter.warn("careful")
    assert "careful" in caplog.messages


def test_what_was_decided_about_the_data_is_said_once_and_warnings_each_time():
    inner, noted = Recorded(), set()
    for label in ("[1/2] ", "[2/2] "):
        outer = OnceReporter(inner, label, noted)
        outer.note("standardized")
        outer.warn("careful")
    assert inner.said == ["[1/2] standardized", "[1/2] careful", "[2/2] careful"]
