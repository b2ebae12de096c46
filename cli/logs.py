"""What the command says on stderr beside bars: lines for people, or with ``--log-json`` one JSON object a line."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime

from causalprune.base.options import flag_of
from causalprune.commands.names import load_configs

logger = logging.getLogger("causalprune")


class _JsonLines(logging.Formatter):
    """``time`` (UTC), ``level`` and ``message``; of progress also ``task``, ``done`` and ``total``."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        return json.dumps(line, ensure_ascii=False)


def start_logging(level: int, *, as_json: bool) -> None:
    """Log on stderr from now on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines() if as_json else logging.Formatter("%(asctime)s %(message)s", datefmt="%H:%M:%S"))
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(level)


def print_error(message: str, code: int) -> None:
    """Say on one line why the command failed; a parameter, which the library names `so`, is a flag here."""
    message = re.sub(r"`([a-z_]+)`", _flag, message)
    if any(isinstance(handler.formatter, _JsonLines) for handler in logger.handlers):
        logger.error(message, extra={"fields": {"exit_code": code}})
    else:
        print(f"causalprune: {message}", file=sys.stderr)


def _flag(parameter: re.Match[str]) -> str:
    known = {name: flag_of(f) for config in load_configs().values() for name, f in config.option_fields().items()}
    # Of a switch such as --nesterov/--no-nesterov the first.
    return known.get(parameter[1], parameter[0]).partition("/")[0]
