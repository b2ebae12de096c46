"""The commands: one a stage, in the order of ``--help``, each with an example that works as it stands."""

from __future__ import annotations

from functools import partial

import typer
from causalprune_cli.builder import stage_command
from causalprune_cli.show import show

from causalprune.config import STAGE_CONFIGS

_EXAMPLES = {
    "pretrain": "causalprune pretrain --dataset digits --epochs 30",
    "record": "causalprune record --epochs 5",
    "fit-gamma": "causalprune fit-gamma --alpha-ratio 0.1",
    "apply-mask": "causalprune apply-mask --sparsity 0.9",
    "posttrain": "causalprune posttrain --epochs 30",
    "evaluate": "causalprune evaluate --json",
    "diagnose": "causalprune diagnose --placebo 39",
    "export": "causalprune export --format csr",
    "run": "causalprune run --iterations 5 --sparsity 0.98",
    "sweep": "causalprune sweep --sparsity 0.8,0.9 --criterion effect,magnitude",
    "report": "causalprune report --run run",
    "info": "causalprune info run",
    "store verify": "causalprune store verify run/trajectory.zarr",
    "store export": "causalprune store export --rows 0:8 --output delta.npz",
    "store compact": "causalprune store compact run/trajectory.zarr --codec small",
    "store merge": "causalprune store merge a.zarr b.zarr --output merged.zarr",
}
_STORE = "store "


def add_commands(app: typer.Typer) -> None:
    """Add every command to the command line."""
    store = typer.Typer(
        name=_STORE.strip(),
        help="Verify, export, compact or merge trajectory stores.",
        epilog=f"Example: {_EXAMPLES['store verify']}",
        no_args_is_help=False,
    )
    for stage, example in _EXAMPLES.items():
        of_store = stage.startswith(_STORE)
        stage_command(
            store if of_store else app,
            stage.removeprefix(_STORE),
            STAGE_CONFIGS[stage],
            stage=stage,
            example=example,
            show=partial(show, stage),
            file_argument=stage == "sweep",
        )
    app.add_typer(store)
