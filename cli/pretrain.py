"""The ``pretrain`` command."""

from __future__ import annotations

from typing import Any

import typer
from causalprune_cli.builder import stage_command

from causalprune.config import PretrainConfig


def add(app: typer.Typer) -> None:
    """Add the command."""
    stage_command(
        app, "pretrain", PretrainConfig, example="causalprune pretrain --dataset digits --epochs 30", show=_show
    )


def _show(result: Any) -> Any:
    from causalprune_cli import show

    return show.pretrain(result)
