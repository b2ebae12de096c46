"""What people see of a fit and of its diagnosis."""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.text import Text

from causalprune.base.errors import printable

from .sheet import Sheet
from .tables import bullets, facts, notes, pairs, shown, spaced, table


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
        "R² in sample": shown(e["r2"]),
        "R² held out": shown(e["r2_held_out"]),
        "duality gap": f"{shown(e['relative_gap'])} of ‖y‖²/2T, {'certified' if e['certified'] else 'not certified'}",
        "passes": f"{e['passes']:.3g} over the store, {shown(e['bytes_read'], 'bytes')} read",
        "Spearman |γ|, |Xᵀy|": shown(e["spearman"]),
    }
    lines = {name: text for name, text in lines.items() if text != shown(None) or name == "R² in sample"}
    return spaced(
        facts(result, lines),
        _path(e) if e["path"] else None,
        None if result.selection is None else _selection(result.selection),
        None if result.curvature is None else _curvature(result.curvature),
    )


_MOST_GROUPS = 20


def _curvature(found: dict[str, Any]) -> Any:
    if "unavailable" in found:
        return pairs({"implied curvature": f"none: {found['unavailable']}"})
    groups = found["groups"]
    many = len(groups) > _MOST_GROUPS
    if many:
        groups = sorted(groups, key=lambda g: -abs(g["curvature"] or 0.0))[:_MOST_GROUPS]
    made = table("group", "curvature", f"{found['level']:.0%} interval", "step size", "interval")
    for g in groups:
        between = f"{shown(g['low'])} … {shown(g['high'])}" if g["low"] is not None else "–"
        top = "∞" if g["step_high"] is None else shown(g["step_high"])
        steps = f"{shown(g['step_low'])} … {top}" if g["step_low"] is not None else "–"
        label = Text("\n".join(filter(None, (printable(g["name"]), g["remark"]))))
        made.add_row(label, shown(g["curvature"]), between, shown(g["step_size"]), steps)
    rates = found["learning_rate"] if isinstance(found["learning_rate"], list) else [found["learning_rate"]]
    meaning = "h = 2γ of held steps"
    if None not in rates:
        meaning = "h = 2(γ + 1/η), η = " + " to ".join(f"{rate:g}" for rate in sorted({min(rates), max(rates)}))
    how = f"curvature {meaning}, step size 1/h, by {found['estimator']}; "
    how += f"{found['resamples']:,} resamples of the steps"
    how += f"; the {_MOST_GROUPS} largest of {len(found['groups']):,}, all with --json" if many else ""
    return Group(made, Text(how))


def _path(evidence: dict[str, Any]) -> Sheet:
    names = {"r2": "R²", "r2_held_out": "R² held out", "cv_error": "CV error", "relative_gap": "relative gap"}
    names = {k: v for k, v in names.items() if any(point[k] is not None for point in evidence["path"])}
    made = table("", "alpha", "of alpha_max", "nonzero γ", *names.values(), pad_edge=True)
    for point in evidence["path"]:
        chosen = "→" if point["alpha"] == evidence["alpha"] else ""
        share = f"{point['alpha'] / evidence['alpha_max']:.3g}" if evidence["alpha_max"] else ""
        values = (shown(point[k]) for k in names)
        made.add_row(chosen, f"{point['alpha']:.4g}", share, f"{point['num_nonzero']:,}", *values)
    return made


def diagnose(result: Any) -> Any:
    """A table for each part that was measured, then the findings."""
    tables = {"placebo": _placebo, "stability": _stability, "agreement": _agreement, "interventions": _interventions}
    measured = (make(result.diagnosis[k]) for k, make in tables.items() if "unavailable" not in result.diagnosis[k])
    return spaced(
        *measured, bullets(*result.findings), facts(result, {"fit": f"{result.fit} of recording {result.recording}"})
    )


def _placebo(found: dict[str, Any]) -> Sheet:
    count = found["permutations"]
    made = table("placebo", "fit", f"{count} permuted: mean", "largest")
    for label, name in (("R² held out", "r2_held_out"), ("nonzero γ", "num_nonzero"), ("alpha_max", "alpha_max")):
        values = found[f"permuted_{name}"]
        made.add_row(label, shown(found[name]), shown(sum(values) / count), shown(max(values)))
    made.add_row("R² held out, one γ for all", shown(found["r2_held_out_common"]))
    made.add_row("p", shown(found["p_value"]))
    return made


def _stability(found: dict[str, Any]) -> Sheet:
    made = table("selection probability", *(f"≥ {t:g}" for t in found["thresholds"]))
    made.add_row("columns", *(f"{n:,}" for n in found["columns"]))
    made.add_row(f"of {found['nonzero']:,} with γ ≠ 0", *(f"{n:,}" for n in found["selected"]))
    return made


def _selection(found: dict[str, Any]) -> Group:
    """How often each γ was nonzero in resamples of the steps, as a table and in words."""
    return Group(_stability(found), notes(found["finding"]))


def _agreement(found: dict[str, Any]) -> Sheet:
    made = table("agreement with the other recording", "", "by chance", "p")
    made.add_row("Spearman of |γ|", shown(found["spearman_gamma"]), "0")
    made.add_row("Spearman of the KKT score", shown(found["spearman_dual"]), "0")
    for overlap in found["overlaps"]:
        name = f"common among the {overlap['k']:,} first ({overlap['name']})"
        made.add_row(name, f"{overlap['share']:.1%}", f"{overlap['chance']:.1%}", shown(overlap["p_value"]))
    return made


_PREDICTORS = {
    "fit": "γθ², the fit's prediction",
    "effect": "|γ|θ²",
    "curvature": "(γ + 1/η)θ²",
    "magnitude": "θ², without γ",
}


def _interventions(found: dict[str, Any]) -> Sheet:
    where = f"loss change on {found['samples']:,} {found['split']} samples"
    made = table(where, "mean", "Spearman", "p", "Pearson")
    for kind, name in (("single", "single weights"), ("groups", f"groups of {found['group_size']:,} weights")):
        measured = found[kind]
        made.add_row(f"{measured['count']} {name} at zero", shown(measured["mean_actual"]))
        for predictor, line in measured["predictors"].items():
            values = (shown(line[k]) for k in ("mean", "spearman", "p_value", "pearson"))
            made.add_row(f"  {_PREDICTORS[predictor]}", *values)
    return made
