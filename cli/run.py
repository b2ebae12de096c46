"""The ``run`` command."""

from __future__ import annotations

from typing import Any

import typer
from causalprune_cli.builder import stage_command

from causalprune.config import RunConfig


def add(app: typer.Typer) -> None:
    """Add the command."""
    stage_command(app, "run", RunConfig, example="causalprune run --iterations 5 --sparsity 0.98", show=_show)


def _show(result: Any) -> Any:
    from causalprune_cli import show

    return show.run(result)
