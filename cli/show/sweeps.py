"""What people see of a sweep and of its report."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from rich.console import Group

from causalprune.base.options import setting_texts
from causalprune.base.specs import Headline
from causalprune.base.units import grouped, percent

from .sheet import Sheet
from .tables import facts, notes, spaced, table, with_spread


def sweep(result: Any) -> Any:
    """Mean and spread of the score: criteria across, sparsities down, one block per combination of the rest."""
    parts: list[Any] = []
    names = [name for name in (result.summary or [{}])[0] if name not in _SUMMARY]
    for settings, lines in grouped(result.summary, names):
        by_coefficient = "coefficient" in lines[0]
        made = _by_coefficient(settings, _of_summary(lines)) if by_coefficient else _by_sparsity(settings, lines)
        dense = [] if lines[0]["dense_mean"] is None else [f"not pruned {_score(lines[0], 'dense_')}"]
        parts.append(Group(made, notes(*dense)))
    steps = ", ".join(f"{count} × {name.replace('_', '-')}" for name, count in result.steps_made.items())
    counts = {"rows": f"{result.done} of {result.points}", "done now": f"{result.cells_made} cells"}
    shard = {} if result.shard else {"this shard": "has no cell: there are fewer cells than shards"}
    run = Path(result.outputs["table"]).parents[1]
    report = ["causalprune", "report", *([] if run == Path("run") else ["--run", str(run)])]
    following = {"next": shlex.join(report)} if result.done else {}
    return spaced(*parts, facts(result, {**counts, **shard, "stages run": steps or "none"}, following))


_SUMMARY = (
    *("sparsity", "criterion", "metric", "headline", "mean", "std", "dense_mean", "dense_std", "seeds"),
    *("coefficient", "pruned_mean", "pruned_std"),
)


def _by_sparsity(settings: dict[str, Any], lines: list[dict[str, Any]]) -> Sheet:
    """Criteria across, sparsities down."""
    criteria = list(dict.fromkeys(line["criterion"] for line in lines))
    made = _block(settings, _titled(Headline.of(lines[0])), *criteria)
    cells = {(line["sparsity"], line["criterion"]): line for line in lines}
    for sparsity in dict.fromkeys(line["sparsity"] for line in lines):
        found = [cells.get((sparsity, criterion)) for criterion in criteria]
        made.add_row(f"{percent(sparsity)} % pruned", *("–" if line is None else _score(line) for line in found))
    return made


def _of_summary(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines of a summary in the form of those of a report."""
    return [
        {
            "coefficient": line["coefficient"],
            "headline": vars(Headline.of(line)),
            "pruned": {"mean": line["pruned_mean"], "std": line["pruned_std"]},
            "score": {"mean": line["mean"], "std": line["std"]},
        }
        for line in lines
    ]


def _by_coefficient(settings: dict[str, Any], lines: list[dict[str, Any]]) -> Sheet:
    """What each L1 coefficient prunes where every γ = 0 is pruned, and the score then."""
    headline = Headline.of(lines[0])
    columns = ["γ = 0 pruned", "% pruned", *(["nonzero γ"] if "nonzero" in lines[0] else []), _titled(headline)]
    made = _block(settings, *columns)
    for line in lines:
        cells = [_moments(line["pruned"], ".2f", 100)]
        cells += [_moments(line["nonzero"], ",.0f", 1)] if "nonzero" in line else []
        coefficient = {name.partition(".")[2]: f"{value:g}" for name, value in line["coefficient"].items()}
        name = " ".join(setting_texts(coefficient))
        made.add_row(name or "all", *cells, _moments(line["score"], *_form(headline)))
    return made


def _titled(headline: Headline) -> str:
    return f"{headline.label} %" if headline.percent else headline.label


def _score(line: dict[str, Any], of: str = "") -> str:
    """A share in percent, or a number; ``dense_`` is that of the dense network."""
    return _moments({"mean": line[f"{of}mean"], "std": line[f"{of}std"]}, *_form(Headline.of(line)))


def _form(headline: Headline) -> tuple[str, int]:
    return (".1f", 100) if headline.percent else (".3f", 1)


def _moments(found: dict[str, Any], form: str, scale: float) -> str:
    return with_spread(found["mean"], found["std"], form=form, spread_form=form, scale=scale)


def report(result: Any) -> Any:
    """What was found, where the page is, where scores fall, and how sharp the loss is, a block per combination."""
    parts: list[Any] = []
    for own, found in grouped(result.coefficients, ["settings"]):
        parts.append(_by_coefficient(own["settings"], found))
    for own, found in grouped(result.phase_shift, ["settings"]):
        if all(line.get("reason", "").startswith("fewer than three") for line in found):
            # Too few sparsities for any: the page says so.
            continue
        columns = ("criterion", "half is lost at", "one deviation", "width", "samples on the slope")
        made = _block(own["settings"], *columns)
        for line in found:
            made.add_row(line["criterion"], *_drop(line))
        others = [f"{line['criterion']}: {line['undetermined']}" for line in found if line.get("undetermined")]
        parts.append(Group(made, notes(*others)))
    for own, found in grouped(result.eigenvalues, ["settings"]):
        made = _block(own["settings"], "largest eigenvalue", "unpruned", "all parameters")
        for line in found:
            name = f"{line['criterion']}, {percent(line['sparsity'])} % pruned" if line["criterion"] else "not pruned"
            spaces = (line[space] for space in ("unpruned", "all"))
            made.add_row(name, *(with_spread(s["mean"], s["std"]) for s in spaces))
        parts.append(made)
    counted = {"sweep": {"rows": f"{result.rows} of {result.points}"}, "run": {"networks": str(result.rows)}}
    lines = {"pictures": str(len(result.pictures)), "tables": str(len(result.tables))}
    return spaced(notes(*result.found), *parts, facts(result, counted[result.subject] | lines))


def _drop(line: dict[str, Any]) -> list[str]:
    """Where a score falls with the range of one standard deviation, how sharply, and samples on the slope."""
    if "reason" in line:
        return [line["reason"]]
    half = f"{percent(line['sparsity'], 2)}% pruned"
    half += f" ({line['seeds']} of {line['curves']} seeds)" if line["undetermined"] else ""
    within = "" if line["low"] is None else f"{percent(line['low'], 2)} to {percent(line['high'], 2)}%"
    width = with_spread(line["width"], line["width_spread"], form=".2f", spread_form=".2f")
    return [half, within, f"{width} decades", str(line["inside"])]


def _block(settings: dict[str, Any], *columns: str) -> Sheet:
    """A table of numbers under its block's settings."""
    title = "  ".join(setting_texts(settings))
    return table(*columns, title=title)
