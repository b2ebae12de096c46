"""The ``store`` commands."""

from __future__ import annotations

from typing import Any

import typer
from causalprune_cli.builder import stage_command

from causalprune.config import StoreCompactConfig, StoreExportConfig, StoreMergeConfig, StoreVerifyConfig

_COMMANDS = {
    "verify": (StoreVerifyConfig, "causalprune store verify run/trajectory.zarr"),
    "export": (StoreExportConfig, "causalprune store export --rows 0:8 --output delta.npz"),
    "compact": (StoreCompactConfig, "causalprune store compact run/trajectory.zarr --codec small"),
    "merge": (StoreMergeConfig, "causalprune store merge a.zarr b.zarr --output merged.zarr"),
}


def add(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(
        name="store",
        help="Verify, export, compact or merge trajectory stores.",
        epilog="Example: causalprune store verify run/trajectory.zarr",
        no_args_is_help=False,
    )
    for name, (config, example) in _COMMANDS.items():
        stage_command(group, name, config, stage=f"store {name}", example=example, show=_shower(name))
    app.add_typer(group)


def _shower(name: str) -> Any:
    def show(result: Any) -> Any:
        from causalprune_cli import show_store

        return getattr(show_store, name)(result)

    return show
