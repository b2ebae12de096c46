"""The ``export`` command."""

from __future__ import annotations

from typing import Any

import typer
from causalprune_cli.builder import stage_command

from causalprune.config import ExportConfig


def add(app: typer.Typer) -> None:
    """Add the command."""
    stage_command(app, "export", ExportConfig, example="causalprune export --format csr", show=_show)


def _show(result: Any) -> Any:
    from causalprune_cli import show

    return show.export(result)
