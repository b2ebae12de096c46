"""What people see of a diagnosis."""

from __future__ import annotations

from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from .tables import facts, number, numbers


def diagnose(result: Any) -> Any:
    """A table for each part that was measured, then what they say."""
    tables = {"placebo": _placebo, "stability": _stability, "agreement": _agreement, "interventions": _interventions}
    parts: list[Any] = []
    for name, make in tables.items():
        found = result.diagnosis[name]
        if "unavailable" not in found:
            parts += [make(found), Text()]
    parts += [Text(f"• {finding}") for finding in result.findings]
    return Group(*parts, Text(), facts(result, {"fit": f"{result.fit} of recording {result.recording}"}))


def _placebo(found: dict[str, Any]) -> Table:
    count = found["permutations"]
    table = numbers("placebo", "fit", f"{count} permuted: mean", "largest", pad_edge=False)
    for name, real, permuted in (
        ("R² held out", "r2_held_out", "permuted_r2_held_out"),
        ("nonzero γ", "num_nonzero", "permuted_num_nonzero"),
        ("alpha_max", "alpha_max", "permuted_alpha_max"),
    ):
        values = found[permuted]
        table.add_row(name, number(found[real]), number(sum(values) / count), number(max(values)))
    table.add_row("R² held out, one γ for all", number(found["r2_held_out_common"]), "", "")
    table.add_row("p", number(found["p_value"]), "", "")
    return table


def _stability(found: dict[str, Any]) -> Table:
    table = numbers("selection probability", *(f"≥ {t:g}" for t in found["thresholds"]), pad_edge=False)
    table.add_row("columns", *(f"{n:,}" for n in found["columns"]))
    table.add_row(f"of {found['nonzero']:,} with γ ≠ 0", *(f"{n:,}" for n in found["selected"]))
    return table


def _agreement(found: dict[str, Any]) -> Table:
    table = numbers("agreement with the other recording", "", "by chance", "p", pad_edge=False)
    table.add_row("Spearman of |γ|", number(found["spearman_gamma"]), "0", "")
    table.add_row("Spearman of the dual correlation", number(found["spearman_dual"]), "0", "")
    for overlap in found["overlaps"]:
        name = f"common among the {overlap['k']:,} first ({overlap['name']})"
        table.add_row(name, f"{overlap['share']:.1%}", f"{overlap['chance']:.1%}", number(overlap["p_value"]))
    return table


_PREDICTORS = {
    "fit": "γθ², the fit's prediction",
    "effect": "|γ|θ²",
    "curvature": "(γ + 1/η)θ²",
    "magnitude": "θ², without γ",
}


def _interventions(found: dict[str, Any]) -> Table:
    where = f"loss change on {found['samples']:,} {found['split']} samples"
    table = numbers(where, "mean", "Spearman", "p", "Pearson", pad_edge=False)
    for kind, name in (("single", "single weights"), ("groups", f"groups of {found['group_size']:,} weights")):
        measured = found[kind]
        table.add_row(f"{measured['count']} {name} at zero", number(measured["mean_actual"]), "", "", "")
        for predictor, line in measured["predictors"].items():
            values = (number(line[k]) for k in ("mean", "spearman", "p_value", "pearson"))
            table.add_row(f"  {_PREDICTORS[predictor]}", *values)
    return table
