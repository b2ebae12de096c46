"""What people see of what lies at a path: a run, a checkpoint or a store."""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from causalprune.base.units import format_bytes

from .evaluation import evaluation_table
from .store import store_info
from .tables import pairs


def info(result: Any) -> Any:
    """What it is, where it comes from, whether it is whole."""
    shown = {"run": _run_info, "checkpoint": _checkpoint_info, "store": store_info}[result.kind](result.details)
    health = [Text("healthy", style="green")] if not result.problems else []
    health += [Text(f"problem: {problem}", style="red") for problem in result.problems]
    return Group(Text(f"{result.kind} {result.path}"), *shown, *health)


def _run_info(details: dict[str, Any]) -> list[Any]:
    table = Table(box=None, pad_edge=False)
    table.add_column("artifact", overflow="fold")
    for column in ("sparsity", "size"):
        table.add_column(column, no_wrap=True)
    table.add_column("made from", overflow="fold")
    for a in details["artefacts"]:  # codespell:ignore artefacts
        made_from = ", ".join(name.removesuffix(".safetensors") for name in a["made_from"].values())
        state = f"{a['sparsity']:.2%}" if "sparsity" in a else a["rows"]
        table.add_row(a["name"], state, format_bytes(a["bytes"]), made_from)
    parts: list[Any] = [table]
    evaluation = details["evaluation"]
    if evaluation is not None:
        parts += [Text(), evaluation_table(evaluation)]
    return parts


def _checkpoint_info(details: dict[str, Any]) -> list[Any]:
    lines = {
        "written by": details["stage"],
        "model": f"{details['model']['name']} for {'×'.join(map(str, details['model']['input_shape']))}",
        "data": details["data"]["name"],
        "kept": f"{details['kept']:,} of {details['prunable']:,} prunable weights ({details['sparsity']:.2%} sparse)",
        "size": format_bytes(details["file_bytes"]),
        "made from": ", ".join(f"{role} {digest[:12]}" for role, digest in details["inputs"].items()) or "nothing",
        "with": ", ".join(f"{name} {version}" for name, version in details["versions"].items()),
    }
    return [pairs(lines)]
