"""The ``diagnose`` command."""

from __future__ import annotations

from typing import Any

import typer
from causalprune_cli.builder import stage_command

from causalprune.config import DiagnoseConfig


def add(app: typer.Typer) -> None:
    """Add the command."""
    stage_command(app, "diagnose", DiagnoseConfig, example="causalprune diagnose --placebo 39", show=_show)


def _show(result: Any) -> Any:
    from causalprune_cli.show_diagnosis import diagnosis

    return diagnosis(result)
