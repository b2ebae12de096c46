"""What people see of a store, and of what was done to one."""

from __future__ import annotations

from typing import Any

from rich.text import Text

from causalprune.base.units import listed

from .sheet import Sheet
from .tables import counted, pairs, shown, table


def store_info(details: dict[str, Any]) -> list[Any]:
    """What was recorded, its size, its fits, and the rows or the parameter that were asked for."""
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
    how, change = r["recorded"], r["loss_change"]
    expected = f" of {r['max_rows']:,}" if r["rows"] <= r["max_rows"] else ""
    unfinished = "" if r["finished"] else f" (unfinished: {r['rows']:,}{expected} rows)"
    raw, stored = r["raw_bytes"], r["stored_bytes"]
    ratio = f"1/{raw / stored:.2f} of" if stored else "of"
    rates = " and ".join(f"{group['lr']:g}" for group in how.get("groups") or [how])
    rounding = r["rounding"]
    how_fast = f"lr {rates}, momentum {how['momentum']:g}"
    if "hold_share" in rounding:
        how_fast = f"held, each step {rounding['hold_share']:g} of the loss"
    smoothing = how["extra"].get("label_smoothing")
    change_of = f"{how['loss_change']}, label smoothing {smoothing:g}" if smoothing else how["loss_change"]
    # Where the loop didn't say, a recorder notes minibatches of 1, all of the first epoch.
    batch = [] if r["epochs"] is None and how["batch_size"] == 1 else [f"batch {how['batch_size']}"]
    epochs = [] if r["epochs"] is None else [counted(r["epochs"], "epoch")]
    lines = {
        "recording": f"{r['name']}{unfinished}",
        "rows × columns": f"{r['rows']:,} × {r['columns']:,} of {prunable:,} prunable weights",
        "recorded with": ", ".join([how["optimizer"], how_fast, *batch, change_of, f"stride {how['stride']}", *epochs]),
        "stored": f"{shown(stored, 'bytes')}, {ratio} {shown(raw, 'bytes')} as float32, codec {r['codec']}",
    }
    if r["coverage"]:
        lines["share"] = f"{r['coverage']} (which ones: {shown(r['mask_bytes'], 'bytes')})"
    if how.get("left_out"):
        lines["not recorded"] = listed(how["left_out"])
    if r["no_causal_reading"]:
        lines["causal reading"] = f"none: γ only correlates in a recording with {r['no_causal_reading']}"
    if change is not None:
        lines["loss change"] = (
            f"mean {change['mean']:.3g} ± {change['std']:.2g}, {change['min']:.3g} to {change['max']:.3g}, "
            f"falling in {change['falling']:.1%} of the rows"
        )
    kept = r["layer_statistics"]
    if kept is not None:
        size = shown(kept["stored_bytes"], "bytes")
        lines["layer statistics"] = f"of {counted(kept['samples'], 'sample')}, {size}"
    if "vanished" in rounding:
        lines["vanished"] = f"{rounding['vanished']:.1%} of the changes, in the rounding of the weights"
    if rounding.get("curvature"):
        quantiles = ", ".join(f"{value:.3g}" for value in rounding["curvature"])
        lines["gᵀHg/‖g‖⁴"] = f"{quantiles} (5, 25, 50, 75, 95 %)"
    if "noisy" in rounding:
        lines["decided by noise"] = f"{rounding['noisy']:.1%} of these, losses in {rounding['precision']}"
    return lines


def _fits(fits: dict[str, Any]) -> Sheet:
    columns = ("fit", "alpha", "nonzero γ", "R²", "held out", "relative gap", "passes", "certified")
    made = table(*columns, pad_edge=True)
    for name, e in fits.items():
        quality = (shown(e[k]) for k in ("r2", "r2_held_out", "relative_gap", "passes"))
        made.add_row(name, f"{e['alpha']:.4g}", f"{e['num_nonzero']:,}", *quality, "yes" if e["certified"] else "no")
    return made


def _rows(rows: list[dict[str, Any]]) -> Sheet:
    columns = ("row", "epoch", "batch", "lr", "loss before", "loss after", "loss change", "‖∇L‖", "‖Δθ‖")
    made = table(*columns, named=False, pad_edge=True)
    for r in rows:
        numbers = ("lr", "loss_before", "loss_after", "loss_change", "grad_norm", "step_norm")
        made.add_row(str(r["row"]), str(r["epoch"]), str(r["batch"]), *(shown(r[name], ".4g") for name in numbers))
    return made


def _parameter_lines(p: dict[str, Any]) -> dict[str, str]:
    return {
        "parameter": p["name"],
        "columns": f"{p['columns']:,}",
        "|Δθ|": f"root mean square {p['rms']:.3g}, largest {p['largest']:.3g}, {p['zeros']:.1%} zeros",
        "straightness": f"{p['straightness']:.3g} (1 where every step goes the same way)",
    }


def store_verify(result: Any) -> Any:
    """How much was compared."""
    return {
        "store": result.path,
        "compared": f"{counted(result.recordings, 'recording')}, {result.rows:,} rows, "
        f"{shown(result.stored_bytes, 'bytes')}",
        "problems": "none",
    }


def store_export(result: Any) -> Any:
    """Size of the slice."""
    return {
        "recording": result.recording,
        "rows × columns": f"{result.rows:,} × {result.columns:,}",
        "size": shown(result.file_bytes, "bytes"),
    }


def store_compact(result: Any) -> Any:
    """What became smaller."""
    return {
        "stored anew": ", ".join(result.recoded) or "none",
        "dropped": ", ".join(result.dropped) or "none",
        "size": f"{shown(result.bytes_after, 'bytes')} (before: {shown(result.bytes_before, 'bytes')})",
    }


def store_merge(result: Any) -> Any:
    """Size of the merged recording."""
    return {
        "recordings": f"{len(result.parts)}",
        "rows × columns": f"{result.rows:,} × {result.columns:,}",
        "size": shown(result.stored_bytes, "bytes"),
    }
