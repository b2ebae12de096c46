"""The ``fit-gamma`` command."""

from __future__ import annotations

from typing import Any

import typer
from causalprune_cli.builder import stage_command

from causalprune.config import FitGammaConfig


def add(app: typer.Typer) -> None:
    """Add the command."""
    stage_command(app, "fit-gamma", FitGammaConfig, example="causalprune fit-gamma --alpha-ratio 0.1", show=_show)


def _show(result: Any) -> Any:
    from causalprune_cli import show

    return show.fit_gamma(result)
