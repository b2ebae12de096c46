"""What the command says on stderr besides bars: lines for people, or with ``--log-json`` one JSON object per line."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from causalprune.commands import names

logger = logging.getLogger("causalprune")


class _JsonLines(logging.Formatter):
    """``time`` (UTC), ``level`` and ``message``; for progress also ``task``, ``done`` and ``total``."""

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
    handler.addFilter(_name_flags)
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
    """Name options, those of the command line's own as well, as users type them."""
    from .session import Session

    return names.with_flags(message, Session)


def _name_flags(record: logging.LogRecord) -> bool:
    record.msg, record.args = with_flags(record.getMessage()), ()
    return True
