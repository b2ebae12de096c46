"""The ``info`` command."""

from __future__ import annotations

from typing import Any

import typer
from causalprune_cli.builder import stage_command

from causalprune.config import InfoConfig


def add(app: typer.Typer) -> None:
    """Add the command."""
    stage_command(app, "info", InfoConfig, example="causalprune info run", show=_show)


def _show(result: Any) -> Any:
    from causalprune_cli import show

    return show.info(result)
