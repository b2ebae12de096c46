"""One invocation of the command line: it runs a stage, prints its result on stdout, and logs on stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from causalprune.base.compute.runtime import connected, launched, processes
from causalprune.base.errors import ExitCode, UsageError, masked, printable
from causalprune.base.files import empty_directories_removed
from causalprune.base.json_files import json_text
from causalprune.base.options import COMMON, Options, option
from causalprune.base.progress import LogReporter, Reporter, TerminalReporter
from causalprune.base.signals import stop_signals
from causalprune.commands import names
from causalprune.config.shared import RuntimeOptions

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions
    from rich.segment import Segment

logger = logging.getLogger("causalprune")


@dataclass(frozen=True, kw_only=True)
class Session(Options):
    """What a command prints. Results go to stdout, everything else to stderr."""

    panel = COMMON

    config_file: Path | None = option(None, "TOML file with options.", flag="--config", metavar="FILE")
    json: bool = option(False, "Print one JSON object instead of a table.")
    verbose: bool = option(False, "Log more on stderr.", flag="--verbose,-v")
    quiet: bool = option(False, "No progress and no warnings.", flag="--quiet,-q")
    debug: bool = option(False, "Show the traceback of an error.")
    log_json: bool = option(False, "Log one JSON object a line; no bars.")

    def run(
        self, name: str, configure: Callable[[], Any], show: Callable[[Any], Any], *, owns_process: bool = False
    ) -> None:
        """Run a stage and print its result.

        Args:
            name: The command.
            configure: Makes its options.
            show: Makes something printable of its result.
            owns_process: Whether the process ends with the command.
        """
        if self.debug:
            # Read by main, which turns errors into exit codes.
            os.environ["CAUSALPRUNE_DEBUG"] = "1"
        reporter = self._reporter()
        with redirect_stdout(sys.stderr):
            config: RuntimeOptions = configure()
        alone = name not in ("pretrain", "record", "fit-gamma", "posttrain")
        if alone and launched().count > 1:
            found = f"{launched().count}"
            raise UsageError(name, expected="one process", found=found, remedy="start it without torchrun or srun")
        with stop_signals(config.stop_signals, ends_process=owns_process) as stop, ExitStack() as stack:
            if launched().count > 1:
                if name != "fit-gamma":
                    # The processes stop together, after a step. A fit has no state to save.
                    stack.enter_context(stop.deferred())
                stack.enter_context(connected(getattr(config, "device", "cpu")))
            try:
                self._run(name, config, reporter, show)
            except Exception as error:
                if stop.raised:
                    raise stop.error_unsaved() from error
                raise

    def _run(self, name: str, config: RuntimeOptions, reporter: Reporter, show: Callable[[Any], Any]) -> None:
        # A factory, a network or a task of the user may print, and --json is to be one object.
        with redirect_stdout(sys.stderr):
            with reporter.starting():
                function = names.FUNCTIONS.load(name)
            with empty_directories_removed():
                result = function(config, reporter)
        if not processes().is_first:
            return
        if self.json:
            plain = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
            print(printable(json_text(result.to_json(), plain=plain), keep="\n"))
        else:
            from rich.console import Console

            if result.already_done and not self.quiet:
                # A sweep is never overwritten, because other processes may be working in it.
                hint = "" if name == "sweep" else " (--overwrite makes it anew)"
                # The stages of a run took a while to find that out.
                again = "there was nothing to do" if name in ("run", "sweep") else "nothing to do"
                Console(stderr=True, highlight=False).print(
                    f"{name}: {again}, the result of this configuration is there already{hint}", soft_wrap=True
                )
            Console(highlight=False, markup=False, emoji=False).print(_Printable(show(result)))
        if code := getattr(result, "exit_code", ExitCode.DONE):
            import typer

            raise typer.Exit(int(code))

    def _reporter(self) -> Reporter:
        quiet = self.quiet or launched().rank > 0
        level = logging.ERROR if quiet else logging.DEBUG if self.verbose else logging.INFO
        console: Console | None = None
        if sys.stderr.isatty() and not (quiet or self.log_json):
            from rich.console import Console

            console = Console(stderr=True, highlight=False)
        start_logging(level, as_json=self.log_json, console=console)
        if quiet:
            return Reporter()
        return LogReporter() if console is None else TerminalReporter(console)


@dataclass(frozen=True)
class _Printable:
    """Something for rich, without the control characters of names that come from files."""

    content: Any

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self.content, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text, keep="\n"))


def end(error: BaseException, code: ExitCode | int, *, common: bool = True) -> int:
    """Print an error as one line on stderr, or its traceback with ``--debug``; returns the exit code.

    Args:
        error: What ended the command.
        code: The exit code.
        common: Whether the other processes, if there are any, end with the same error.
    """
    if os.environ.get("CAUSALPRUNE_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    elif _speaks_for_all() or not common or code in (ExitCode.INTERNAL, ExitCode.STORAGE):
        # Other processes repeat what the first one says, except errors that may concern only their host.
        print_error(f"{error}", int(code))
    return int(code)


def _speaks_for_all() -> bool:
    """Whether this is the first process, or one that the launcher's variables don't tell from the others."""
    try:
        return launched().is_first
    except UsageError:
        return True


class _JsonLines(logging.Formatter):
    """``time`` (UTC), ``level`` and ``message``; for progress also the fields of the reporter, such as ``percent``."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": _said(record),
            **getattr(record, "fields", {}),
        }
        return printable(json.dumps(line, ensure_ascii=False))


class _Lines(logging.Formatter):
    """Local time and message."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{self.formatTime(record, '%H:%M:%S')} {_said(record)}"


def _said(record: logging.LogRecord) -> str:
    """The message as users may see it; the record stays as it is for other handlers."""
    return printable(masked(with_flags(record.getMessage())))


class _ErrorStream(logging.StreamHandler[TextIO]):
    """Writes to stderr as it is at the moment: while a bar is drawn, lines go above it."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        """Where to write."""
        return sys.stderr


class _Terminal(_ErrorStream):
    """Shows warnings in a color."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, above the bar if one is drawn."""
        if record.levelno < logging.WARNING:
            super().emit(record)
            return
        from rich.text import Text

        self._console.print(Text(f"warning: {_said(record)}", style="yellow"))


def start_logging(level: int, *, as_json: bool, console: Console | None = None) -> None:
    """Log on stderr from now on.

    Args:
        level: The least that is logged.
        as_json: Whether each line is an object.
        console: A terminal, if stderr is one.
    """
    handler = _ErrorStream() if console is None else _Terminal(console)
    handler.setFormatter(_JsonLines() if as_json else _Lines())
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(level)


def print_error(message: str, code: int) -> None:
    """Print on one line why the command failed."""
    if any(isinstance(handler.formatter, _JsonLines) for handler in logger.handlers):
        logger.error(message, extra={"fields": {"exit_code": code}})
    else:
        print(f"causalprune: {with_flags(message)}", file=sys.stderr)


def with_flags(message: str) -> str:
    """Name options as users type them, including the command line's own."""
    return names.with_flags(message, Session)
