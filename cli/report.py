"""The ``report`` command."""

from __future__ import annotations

from typing import Any

import typer
from causalprune_cli.builder import stage_command

from causalprune.config import ReportConfig


def add(app: typer.Typer) -> None:
    """Add the command."""
    stage_command(app, "report", ReportConfig, example="causalprune report --run run", show=_show)


def _show(result: Any) -> Any:
    from causalprune_cli import show

    return show.report(result)
