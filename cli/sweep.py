"""The ``sweep`` command."""

from __future__ import annotations

from typing import Any

import typer
from causalprune_cli.builder import stage_command

from causalprune.config import SweepConfig


def add(app: typer.Typer) -> None:
    """Add the command."""
    example = "causalprune sweep --sparsity 0.8,0.9 --criterion effect,magnitude"
    stage_command(app, "sweep", SweepConfig, example=example, show=_show, file_argument=True)


def _show(result: Any) -> Any:
    from causalprune_cli import show

    return show.sweep(result)
