"""What people see of a fit, of a mask, and of a whole run."""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from causalprune.base.units import format_bytes

from .evaluation import evaluate
from .tables import facts, number, numbers, pairs


def fit_gamma(result: Any) -> Any:
    """The evidence of a fit, and its path if it has one."""
    e = result.evidence
    share = f" ({e['alpha'] / e['alpha_max']:.3g} of alpha_max {e['alpha_max']:.4g})" if e["alpha_max"] else ""
    nonzero = f"{e['num_nonzero']:,}"
    if e["unique"] is False:
        nonzero += f", not the only solution: {e['num_equicorrelated']:,} columns are at the bound"
    lines = {
        "fit": f"{result.name} of recording {result.recording}, {e['num_rows']:,} × {e['num_columns']:,}",
        "alpha": f"{e['alpha']:.4g}{share}",
        "nonzero γ": nonzero,
        "R² in sample": number(e["r2"]),
        "R² held out": number(e["r2_held_out"]),
        "duality gap": f"{number(e['relative_gap'])} of ‖y‖²/2T, {'certified' if e['certified'] else 'not certified'}",
        "passes": f"{e['passes']:.3g} over the store, {format_bytes(e['bytes_read'])} read",
        "Spearman |γ|, |Xᵀy|": number(e["spearman"]),
    }
    for name in ("R² held out", "Spearman |γ|, |Xᵀy|"):
        if lines[name] == number(None):
            del lines[name]
    parts: list[Any] = [facts(result, lines)]
    if e["path"]:
        parts += [Text(), _path(e)]
    if result.curvature is not None:
        parts += [Text(), _curvature(result.curvature)]
    return Group(*parts)


_MOST_GROUPS = 20
_WIDEST_GROUP = 30


def _curvature(found: dict[str, Any]) -> Any:
    if "unavailable" in found:
        return pairs({"implied curvature": f"none: {found['unavailable']}"})
    groups = found["groups"]
    many = len(groups) > _MOST_GROUPS
    if many:
        groups = sorted(groups, key=lambda g: -abs(g["curvature"] or 0.0))[:_MOST_GROUPS]
    # The names tell groups of one layer apart by their ends, so that other columns give way first.
    table = Table(box=None, pad_edge=False)
    width = min(_WIDEST_GROUP, max(20, *(len(g["name"]) for g in groups)))
    table.add_column("group", overflow="fold", width=width)
    for name in ("curvature", f"{found['level']:.0%} interval", "step size", "interval"):
        table.add_column(name, justify="right", no_wrap="interval" not in name)
    for g in groups:
        between = f"{number(g['low'])} … {number(g['high'])}" if g["low"] is not None else "–"
        top = "∞" if g["step_high"] is None else number(g["step_high"])
        steps = f"{number(g['step_low'])} … {top}" if g["step_low"] is not None else "–"
        label = Text("\n".join(filter(None, (g["name"], g["remark"]))))
        table.add_row(label, number(g["curvature"]), between, number(g["step_size"]), steps)
    how = f"curvature h = 2(γ + 1/η), step size 1/h, by {found['estimator']}, η = {found['learning_rate']:g}; "
    how += f"{found['resamples']:,} resamples of the steps"
    how += f"; the {_MOST_GROUPS} largest of {len(found['groups']):,}, all with --json" if many else ""
    return Group(table, Text(how))


def _path(evidence: dict[str, Any]) -> Table:
    names = {"r2": "R²", "r2_held_out": "R² held out", "cv_error": "CV error", "relative_gap": "relative gap"}
    names = {k: v for k, v in names.items() if any(point[k] is not None for point in evidence["path"])}
    table = numbers("", "alpha", "of alpha_max", "nonzero γ", *names.values())
    for point in evidence["path"]:
        chosen = "→" if point["alpha"] == evidence["alpha"] else ""
        share = f"{point['alpha'] / evidence['alpha_max']:.3g}" if evidence["alpha_max"] else ""
        values = (number(point[k]) for k in names)
        table.add_row(chosen, f"{point['alpha']:.4g}", share, f"{point['num_nonzero']:,}", *values)
    return table


def apply_mask(result: Any) -> Any:
    """Sparsity overall and per layer."""
    table = numbers("layer", "weights", "kept", "sparsity")
    for layer in result.layers:
        table.add_row(layer["name"], f"{layer['total']:,}", f"{layer['kept']:,}", f"{layer['sparsity']:.2%}")
    lines = {"sparsity": f"{result.sparsity:.2%} of prunable weights (before: {result.sparsity_before:.2%})"}
    return Group(facts(result, lines), Text(), table)


def run(result: Any) -> Any:
    """One line per iteration, of its fit only where it has one, then dense against pruned."""
    fitted = any(line["num_nonzero"] is not None for line in result.iterations)
    fit = ("R²", "nonzero γ") if fitted else ()
    table = Table("iteration", "rows", "stored", *fit, "sparsity", box=None)
    for column in table.columns:
        column.justify = "right"
    for line in result.iterations:
        evidence = (number(line["r2"]), f"{line['num_nonzero']:,}") if fitted else ()
        size = format_bytes(line["stored_bytes"])
        table.add_row(str(line["iteration"]), f"{line['rows']:,}", size, *evidence, f"{line['sparsity']:.2%}")
    return Group(table, Text(), evaluate(result))
