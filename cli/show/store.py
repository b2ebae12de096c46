"""What people see of a store, a checkpoint or a run directory, and of what was done to a store."""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from causalprune.base.compute.shapes import shape_from_json, shape_text
from causalprune.base.errors import printable
from causalprune.base.units import listed

from .networks import evaluation_table
from .tables import classes_line, counted, pairs, recipe_line, shown, table


def info(result: Any) -> Any:
    """What it is, where it comes from, whether it is intact."""
    kinds = {"run": _run_info, "checkpoint": _checkpoint_info, "store": _store_info, "recipe": _recipe_info}
    parts = kinds[result.kind](result.details)
    if result.kind == "recipe":
        return Group(Text(printable(f"{result.kind} {result.path}")), *parts)
    health = [Text("healthy", style="green")] if not result.problems else []
    health += [Text(f"problem: {problem}", style="red") for problem in result.problems]
    health += [Text(f"warning: {warning}", style="yellow") for warning in result.warnings]
    return Group(Text(printable(f"{result.kind} {result.path}")), *parts, *health)


def _run_info(details: dict[str, Any]) -> list[Any]:
    made = Table(box=None, pad_edge=False)
    made.add_column("artifact", overflow="fold")
    for column in ("sparsity", "size"):
        made.add_column(column, no_wrap=True)
    made.add_column("made from", overflow="fold")
    for a in details["artefacts"]:  # codespell:ignore artefacts
        made_from = ", ".join(name.removesuffix(".safetensors") for name in a["made_from"].values())
        state = shown(a["sparsity"], "share") if "sparsity" in a else a["rows"]
        made.add_row(printable(a["name"]), state, shown(a["bytes"], "bytes"), made_from)
    parts: list[Any] = [made] if details["artefacts"] else []  # codespell:ignore artefacts
    if details["recipe"] is not None:
        parts += [pairs({"recipe": recipe_line(details["recipe"])})]
    if details["sweep"] is not None:
        parts += [pairs(_sweep_lines(details["sweep"]))]
    if details["evaluation"] is not None:
        parts += [Text(), evaluation_table(details["evaluation"])]
    return parts


def _recipe_info(details: dict[str, Any]) -> list[Any]:
    made = Table(box=None, pad_edge=False, title=Text(details["summary"]), title_justify="left", title_style="")
    for column in ("option", "value"):
        made.add_column(column, no_wrap=True)
    made.add_column("source", overflow="fold")
    last = ""
    for choice in details["choices"]:
        made.add_row(choice["option"], choice["value"], "" if choice["source"] == last else choice["source"])
        last = choice["source"]
    return [made]


def _sweep_lines(s: dict[str, Any]) -> dict[str, str]:
    lines = {"sweep": f"{s['rows']:,} of {s['points']:,} rows, {s['done']:,} of {counted(s['cells'], 'cell')}"}
    lines |= {name: ", ".join(values) for name, values in s["settings"].items()}
    lines["shared steps"] = ", ".join(f"{count} × {stage}" for stage, count in s["steps"].items()) or "none"
    return lines | ({"not done yet": ", ".join(s["unfinished"])} if s["unfinished"] else {})


def _checkpoint_info(details: dict[str, Any]) -> list[Any]:
    sparsity = shown(details["sparsity"], "share")
    lines = {
        "written by": details["stage"],
        "model": f"{details['model']['name']} for {shape_text(shape_from_json(details['model']['input_shape']))}",
        "data": details["data"]["name"],
        **classes_line(details["classes"]),
        "kept": f"{details['kept']:,} of {details['prunable']:,} prunable weights ({sparsity} sparse)",
        "size": shown(details["file_bytes"], "bytes"),
        "made from": ", ".join(f"{role} {digest[:12]}" for role, digest in details["inputs"].items()) or "nothing",
        "with": ", ".join(f"{name} {version}" for name, version in details["versions"].items()),
    }
    return [pairs(lines)]


def _store_info(details: dict[str, Any]) -> list[Any]:
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
    lines = {
        "recording": f"{r['name']}{unfinished}",
        "rows × columns": f"{r['rows']:,} × {r['columns']:,} of {prunable:,} prunable weights",
        "recorded with": f"{how['optimizer']}, {how_fast}, "
        f"batch {how['batch_size']}, {change_of}, stride {how['stride']}, {counted(r['epochs'], 'epoch')}",
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


def _fits(fits: dict[str, Any]) -> Table:
    made = Table("fit", "alpha", "nonzero γ", "R²", "held out", "relative gap", "passes", "certified", box=None)
    for name, e in fits.items():
        quality = (shown(e[k]) for k in ("r2", "r2_held_out", "relative_gap", "passes"))
        made.add_row(name, f"{e['alpha']:.4g}", f"{e['num_nonzero']:,}", *quality, "yes" if e["certified"] else "no")
    return made


def _rows(rows: list[dict[str, Any]]) -> Table:
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
