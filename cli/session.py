"""One invocation of the command line: logging, running the stage, printing its result."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from causalprune.base.errors import ExitCode, InterruptedStage, UsageError
from causalprune.base.options import Options, option
from causalprune.base.progress import LogReporter, Reporter, TerminalReporter
from causalprune.base.runtime import connected, launched, processes
from causalprune.base.signals import stop_signals
from causalprune.commands.names import FUNCTIONS
from causalprune.config.shared import RuntimeOptions

from .logs import print_error, start_logging, with_flags


@dataclass(frozen=True, kw_only=True)
class Session(Options):
    """How the user wants to be talked to. Results go to stdout, everything else to stderr.

    Attributes:
        owns_process: Whether the process ends with the command.
    """

    owns_process: ClassVar[bool] = False

    config_file: Path | None = option(None, "TOML file with options.", flag="--config", metavar="FILE")
    json: bool = option(False, "Print one JSON object instead of a table.")
    verbose: bool = option(False, "Log more on stderr.", flag="--verbose,-v")
    quiet: bool = option(False, "No progress and no warnings.", flag="--quiet,-q")
    debug: bool = option(False, "Show the traceback of an error.")
    log_json: bool = option(False, "Log one JSON object a line; no bars.")

    def run(self, name: str, configure: Callable[[], Any], show: Callable[[Any], Any]) -> None:
        """Run a stage and print its result."""
        if self.debug:
            # Read by main, which turns errors into exit codes.
            os.environ["CAUSALPRUNE_DEBUG"] = "1"
        reporter = self._reporter()
        config: RuntimeOptions = configure()
        alone = name not in ("pretrain", "record", "fit-gamma", "posttrain")
        if alone and launched().count > 1:
            found = f"{launched().count}"
            raise UsageError(name, expected="one process", found=found, remedy="start it without torchrun or srun")
        with stop_signals(config.stop_signals, ends_process=Session.owns_process) as stop, ExitStack() as stack:
            if launched().count > 1:
                if name != "fit-gamma":
                    # One process must not leave the others: they stop together, after a step. A fit saves none.
                    stack.enter_context(stop.deferred())
                stack.enter_context(connected(getattr(config, "device", "cpu")))
            try:
                self._run(name, config, reporter, show)
            except Exception as error:
                if stop.raised and not isinstance(error, InterruptedStage):
                    raise stop.error("nothing half-written") from error
                raise

    def _run(self, name: str, config: RuntimeOptions, reporter: Reporter, show: Callable[[Any], Any]) -> None:
        result = FUNCTIONS.load(name)(config, reporter)
        if not processes().is_first:
            return
        if self.json:
            plain = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
            print(json.dumps(result.to_json(), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=plain))
            _leave(result)
            return
        from rich.console import Console

        console = Console(highlight=False, soft_wrap=False)
        if result.already_done and not self.quiet:
            # A sweep is never overwritten, because others may be at work in it.
            hint = "" if name == "sweep" else " (--overwrite makes it anew)"
            Console(stderr=True, highlight=False).print(
                f"{name}: nothing to do, the result of this configuration is there already{hint}", soft_wrap=True
            )
        console.print(show(result))
        _leave(result)

    def _reporter(self) -> Reporter:
        quiet = self.quiet or launched().rank > 0
        level = logging.ERROR if quiet else logging.DEBUG if self.verbose else logging.INFO
        start_logging(level, as_json=self.log_json)
        if quiet:
            return Reporter()
        if sys.stderr.isatty() and not self.log_json:
            from rich.console import Console

            return _TerminalReporter(Console(stderr=True, highlight=False))
        return LogReporter()


class _TerminalReporter(TerminalReporter):
    def warn(self, message: str) -> None:
        super().warn(with_flags(message))


def _leave(result: Any) -> None:
    """Exit with the code of a result that found something wrong."""
    code = getattr(result, "exit_code", ExitCode.DONE)
    if code:
        import typer

        raise typer.Exit(int(code))


def end(error: BaseException, code: ExitCode | int) -> int:
    """Print an error as one line on stderr, or its traceback with ``--debug``; returns the exit code."""
    if os.environ.get("CAUSALPRUNE_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    elif launched().is_first or code in (ExitCode.INTERNAL, ExitCode.STORAGE):
        # The others say what the first one says, but for what may be wrong on their host alone.
        print_error(f"{error}", int(code))
    return int(code)
