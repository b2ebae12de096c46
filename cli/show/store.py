"""What people see of a trajectory store and of what was done to it."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from causalprune.base.units import format_bytes

from .tables import facts, number, pairs


def store_info(details: dict[str, Any]) -> list[Any]:
    """What was recorded, how large it is, which fits there are; what was asked for of the inside."""
    parts: list[Any] = []
    if details["writer"] is not None:
        parts.append(Text(f"being recorded by {details['writer']}", style="yellow"))
    for recording in details["recordings"]:
        parts.append(pairs(_recording_lines(recording, details["prunable"])))
        if recording["fits"]:
            parts.append(_fits(recording["fits"]))
    if "rows" in details:
        parts += [Text(), _rows(details["rows"])]
    if "parameter" in details:
        parts += [Text(), pairs(_parameter_lines(details["parameter"]))]
    if "plot" in details:
        parts.append(pairs({"→ plot": details["plot"]}))
    return parts


def _recording_lines(r: dict[str, Any], prunable: int) -> dict[str, str]:
    recorded, change = r["recorded"], r["loss_change"]
    unfinished = "" if r["finished"] else f" (unfinished: {r['rows']:,} rows of up to {r['max_rows']:,})"
    raw, stored = r["raw_bytes"], r["stored_bytes"]
    ratio = f"1/{raw / stored:.2f} of" if stored else "of"
    lines = {
        "recording": f"{r['name']}{unfinished}",
        "rows × columns": f"{r['rows']:,} × {r['columns']:,} of {prunable:,} prunable weights",
        "recorded with": f"{recorded['optimizer']}, lr {recorded['lr']:g}, momentum {recorded['momentum']:g}, "
        f"batch {recorded['batch_size']}, {recorded['loss_change']}, stride {recorded['stride']}, "
        f"{r['epochs']} epoch{'' if r['epochs'] == 1 else 's'}",
        "stored": f"{format_bytes(stored)}, {ratio} {format_bytes(raw)} as float32, codec {r['codec']}",
    }
    if change is not None:
        lines["loss change"] = (
            f"mean {change['mean']:.3g} ± {change['std']:.2g}, {change['min']:.3g} to {change['max']:.3g}, "
            f"falling in {change['falling']:.1%} of the rows"
        )
    return lines


def _fits(fits: dict[str, Any]) -> Table:
    table = Table("fit", "alpha", "nonzero γ", "R²", "held out", "relative gap", "passes", "certified", box=None)
    for name, e in fits.items():
        certified = "yes" if e["certified"] else "no"
        size = (f"{e['alpha']:.4g}", f"{e['num_nonzero']:,}")
        quality = (number(e["r2"]), number(e["r2_held_out"]), number(e["relative_gap"]))
        row = (*size, *quality, f"{e['passes']:.3g}")
        table.add_row(name, *row, certified)
    return table


def _rows(rows: list[dict[str, Any]]) -> Table:
    columns = ("row", "epoch", "batch", "lr", "loss before", "loss after", "loss change", "‖∇L‖", "‖Δθ‖")
    table = Table(*columns, box=None)
    for column in table.columns:
        column.justify = "right"
    for r in rows:
        numbers = ("lr", "loss_before", "loss_after", "loss_change", "grad_norm", "step_norm")
        table.add_row(f"{r['row']}", f"{r['epoch']}", f"{r['batch']}", *(f"{r[name]:.4g}" for name in numbers))
    return table


def _parameter_lines(p: dict[str, Any]) -> dict[str, str]:
    return {
        "parameter": p["name"],
        "columns": f"{p['columns']:,}",
        "|Δθ|": f"root mean square {p['rms']:.3g}, largest {p['largest']:.3g}, {p['zeros']:.1%} zeros",
        "straightness": f"{p['straightness']:.3g} (1 where every step goes the same way)",
    }


def store_verify(result: Any) -> Any:
    """How much was compared."""
    lines = {
        "store": result.path,
        "compared": f"{result.recordings} recording{'' if result.recordings == 1 else 's'}, {result.rows:,} rows, "
        f"{format_bytes(result.stored_bytes)}",
        "problems": "none",
    }
    return pairs(lines)


def store_export(result: Any) -> Any:
    """Size of the slice."""
    lines = {
        "recording": result.recording,
        "rows × columns": f"{result.rows:,} × {result.columns:,}",
        "size": format_bytes(result.file_bytes),
    }
    return facts(result, lines)


def store_compact(result: Any) -> Any:
    """What became smaller."""
    lines = {
        "stored anew": ", ".join(result.recoded) or "none",
        "dropped": ", ".join(result.dropped) or "none",
        "size": f"{format_bytes(result.bytes_after)} (before: {format_bytes(result.bytes_before)})",
    }
    return facts(result, lines)


def store_merge(result: Any) -> Any:
    """Size of the merged recording."""
    lines = {
        "recordings": f"{len(result.parts)}",
        "rows × columns": f"{result.rows:,} × {result.columns:,}",
        "size": format_bytes(result.stored_bytes),
    }
    return facts(result, lines)
