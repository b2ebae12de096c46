"""One invocation of the command line: logging, running the stage, printing its result."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from causalprune.errors import ExitCode
from causalprune.options import Options
from causalprune.reporting import LogReporter, Reporter, TerminalReporter
from causalprune.stages import stage_function


@dataclass(frozen=True)
class Session:
    """How the user wants to be talked to. Results go to stdout, everything else to stderr."""

    json: bool
    verbose: bool
    quiet: bool
    debug: bool

    def run(self, name: str, configure: Callable[[], Options], show: Callable[[Any], Any]) -> None:
        """Run a stage and print its result."""
        if self.debug:
            # Read by main, which turns errors into exit codes.
            os.environ["CAUSALPRUNE_DEBUG"] = "1"
        config = configure()
        reporter = self._reporter()
        result = stage_function(name.replace("-", "_").replace(" ", "_"))(config, reporter)
        if self.json:
            print(json.dumps(result.to_json(), indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False))
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

    def _reporter(self) -> Reporter:
        level = logging.ERROR if self.quiet else logging.DEBUG if self.verbose else logging.INFO
        logger = logging.getLogger("causalprune")
        if not logger.handlers:
            handler = logging.StreamHandler(sys.stderr)
            handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
            logger.addHandler(handler)
            logger.propagate = False
        logger.setLevel(level)
        if self.quiet:
            return Reporter()
        if sys.stderr.isatty():
            from rich.console import Console

            return TerminalReporter(Console(stderr=True, highlight=False))
        return LogReporter()


def end(error: BaseException, code: ExitCode | int) -> int:
    """Print an error as one line on stderr, or its traceback with ``--debug``; returns the exit code."""
    if os.environ.get("CAUSALPRUNE_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    else:
        print(f"causalprune: {error}", file=sys.stderr)
    return int(code)
