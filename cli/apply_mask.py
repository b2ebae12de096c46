"""The ``apply-mask`` command."""

from __future__ import annotations

from typing import Any

import typer
from causalprune_cli.builder import stage_command

from causalprune.config import ApplyMaskConfig


def add(app: typer.Typer) -> None:
    """Add the command."""
    stage_command(app, "apply-mask", ApplyMaskConfig, example="causalprune apply-mask --sparsity 0.9", show=_show)


def _show(result: Any) -> Any:
    from causalprune_cli import show

    return show.apply_mask(result)
