"""What people see of a result: one function a stage, each returning something that rich prints."""

from __future__ import annotations

from typing import Any

from causalprune_cli.show_evaluation import FLOPS_UNIT, NO_SPEEDUP, evaluation_table
from rich.console import Group
from rich.table import Table
from rich.text import Text

from causalprune.quantities import format_bytes, mean_and_spread, percent


def pretrain(result: Any) -> Any:
    """Best epoch and validation metrics."""
    v = result.validation
    lines = {"best epoch": str(result.best_epoch), "validation loss": f"{v['loss']:.4f}"}
    if v.get("top1") is not None:
        lines["validation accuracy"] = f"{v['top1']:.2%}"
    if v.get("r2") is not None:
        lines["validation R²"] = f"{v['r2']:.4f}"
    if result.sparsity:
        lines["sparsity"] = f"{result.sparsity:.2%} of prunable weights"
    return facts(result, lines)


posttrain = pretrain


def record(result: Any) -> Any:
    """Size of the recording."""
    lines = {
        "rows × columns": f"{result.rows:,} × {result.columns:,}",
        "as float32": format_bytes(result.raw_bytes),
    }
    if result.mean_loss_change is None:
        lines["predicted size"] = format_bytes(result.stored_bytes)
        lines["predicted time"] = f"{result.predicted_seconds:.0f} s"
        lines["dry run"] = "nothing was written"
    else:
        lines["stored"] = f"{format_bytes(result.stored_bytes)} (1/{result.raw_bytes / result.stored_bytes:.2f})"
        lines["mean loss change"] = f"{result.mean_loss_change:.3g}"
        lines["steps with falling loss"] = f"{result.falling:.1%}"
    return facts(result, lines)


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
    table = Table("", "alpha", "of alpha_max", "nonzero γ", *names.values(), box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for point in evidence["path"]:
        chosen = "→" if point["alpha"] == evidence["alpha"] else ""
        share = f"{point['alpha'] / evidence['alpha_max']:.3g}" if evidence["alpha_max"] else ""
        values = (number(point[k]) for k in names)
        table.add_row(chosen, f"{point['alpha']:.4g}", share, f"{point['num_nonzero']:,}", *values)
    return table


def apply_mask(result: Any) -> Any:
    """Sparsity overall and per layer."""
    table = Table("layer", "weights", "kept", "sparsity", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for layer in result.layers:
        table.add_row(layer["name"], f"{layer['total']:,}", f"{layer['kept']:,}", f"{layer['sparsity']:.2%}")
    lines = {"sparsity": f"{result.sparsity:.2%} of prunable weights (before: {result.sparsity_before:.2%})"}
    return Group(facts(result, lines), Text(), table)


def evaluate(result: Any) -> Any:
    """Dense against pruned."""
    return evaluation_table(result.evaluation)


def export(result: Any) -> Any:
    """What was written, and what a compact network saves."""
    how = {"bits": "read back bit for bit", "outputs": f"read back, outputs within {result.max_difference:.2g}"}
    lines = {
        "format": result.format,
        "parameters": f"{result.parameters:,} of {result.parameters_before:,}",
        "file": format_bytes(result.file_bytes),
        "verified": how.get(result.verified, "no: ONNX Runtime is missing"),
    }
    if result.compact is None:
        note = NO_SPEEDUP
        if result.dead_units:
            note = (
                f"{result.dead_units:,} filters and neurons have every weight pruned, but dense kernels compute with "
                "them all the same: export --compact removes those that nothing else needs."
            )
        return Group(facts(result, lines), Text(), Text(note, style="dim"))
    c = result.compact
    lines["FLOPs a sample"] = f"{c['flops']:,} of {c['flops_before']:,}"
    for batch_size, seconds in c["latency"].items():
        ratio = seconds["before"] / seconds["after"]
        before, after = f"{1000 * seconds['before']:.3g}", f"{1000 * seconds['after']:.3g}"
        lines[f"latency, batch {batch_size}"] = f"{after} ms, before {before} ms ({ratio:.2f}× as fast)"
    table = Table("layer", "units", "all weights pruned", "removed", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for layer in c["layers"]:
        table.add_row(Text(layer["name"]), *(f"{layer[name]:,}" for name in ("units", "dead", "removed")))
    note = "Zeros that are left inside kept filters and neurons don't make dense kernels faster."
    notes = (Text(line, style="dim") for line in (FLOPS_UNIT, note))
    return Group(facts(result, lines), Text(), table, Text(), *notes)


def run(result: Any) -> Any:
    """A line an iteration, of its fit only where it has one, then dense against pruned."""
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


def sweep(result: Any) -> Any:
    """Mean and spread of the score: criteria across, sparsities down, a block for each combination of the rest."""
    from causalprune.evaluation.grouping import grouped

    parts: list[Any] = []
    names = [name for name in (result.summary or [{}])[0] if name not in _SUMMARY]
    for settings, lines in grouped(result.summary, names):
        criteria = list(dict.fromkeys(line["criterion"] for line in lines))
        table = _block_table(settings, "accuracy %" if lines[0]["metric"] == "top1" else "R²", *criteria)
        cells = {(line["sparsity"], line["criterion"]): line for line in lines}
        for sparsity in dict.fromkeys(line["sparsity"] for line in lines):
            found = [cells.get((sparsity, criterion)) for criterion in criteria]
            scores = ["–" if c is None else _score(c["mean"], c["std"], c["metric"]) for c in found]
            table.add_row(f"{percent(sparsity)} % pruned", *scores)
        dense, spread, metric = (lines[0][name] for name in ("dense_mean", "dense_std", "metric"))
        before = [] if dense is None else [Text(f"not pruned {_score(dense, spread, metric)}", style="dim")]
        parts += [table, *before, Text()]
    steps = ", ".join(f"{count} × {name.replace('_', '-')}" for name, count in result.steps_made.items())
    counts = {"rows": f"{result.done} of {result.points}", "done now": f"{result.cells_made} cells"}
    if not result.shard:
        counts["this shard"] = "has no cell: there are fewer cells than shards"
    return Group(*parts, facts(result, {**counts, "stages run": steps or "none"}))


_SUMMARY = ("sparsity", "criterion", "metric", "mean", "std", "dense_mean", "dense_std", "seeds")


def _score(mean: float | None, spread: float | None, metric: str) -> str:
    """Mean and standard deviation, either of which may be missing."""
    form, scale = (".1f", 100) if metric == "top1" else (".3f", 1)
    return " ".join(filter(None, mean_and_spread(mean, spread, form=form, spread_form=form, scale=scale)))


def report(result: Any) -> Any:
    """Where the page is, where the scores fall, and how sharp the loss is, a block for each combination of settings."""
    from causalprune.evaluation.grouping import grouped

    parts: list[Any] = []
    for own, found in grouped(result.phase_shift, ["settings"]):
        columns = ("criterion", "half is lost at", "one deviation", "width", "samples on the slope")
        table = _block_table(own["settings"], *columns)
        for line in found:
            table.add_row(line["criterion"], *_drop(line))
        others = [f"{line['criterion']}: {line['undetermined']}" for line in found if line.get("undetermined")]
        parts += [table, *(Text(line, style="dim") for line in others), Text()]
    for own, found in grouped(result.eigenvalues, ["settings"]):
        table = _block_table(own["settings"], "largest eigenvalue", "unpruned", "all parameters")
        for line in found:
            name = f"{line['criterion']}, {percent(line['sparsity'])} % pruned" if line["criterion"] else "not pruned"
            spaces = (line[space] for space in ("unpruned", "all"))
            table.add_row(name, *(" ".join(filter(None, mean_and_spread(s["mean"], s["std"]))) for s in spaces))
        parts += [table, Text()]
    lines = {"rows": f"{result.rows} of {result.points}", "pictures": str(len(result.pictures))}
    return Group(*parts, facts(result, lines))


def _block_table(settings: dict[str, Any], *columns: str) -> Table:
    """A table of numbers under its block's settings."""
    title = "  ".join(f"{name}={value}" for name, value in settings.items())
    table = Table(
        title=Text(title) if title else None, title_justify="left", title_style="bold", box=None, pad_edge=False
    )
    table.add_column(columns[0], no_wrap=True)
    for column in columns[1:]:
        table.add_column(column, justify="right")
    return table


def _drop(line: dict[str, Any]) -> list[str]:
    """Where a score falls with the range of one standard deviation, how sharply, and samples on the slope."""
    if "reason" in line:
        return [line["reason"], "", "", ""]
    half = f"{percent(line['sparsity'], 2)}% pruned"
    half += f" ({line['seeds']} of {line['curves']} seeds)" if line["undetermined"] else ""
    within = "" if line["low"] is None else f"{percent(line['low'], 2)} to {percent(line['high'], 2)}%"
    width = " ".join(filter(None, mean_and_spread(line["width"], line["width_spread"], form=".2f", spread_form=".2f")))
    return [half, within, f"{width} decades", str(line["inside"])]


def info(result: Any) -> Any:
    """What it is, where it comes from, whether it is whole."""
    from causalprune_cli.show_store import store_info

    shown = {"run": _run_info, "checkpoint": _checkpoint_info, "store": store_info}[result.kind](result.details)
    health = [Text("healthy", style="green")] if not result.problems else []
    health += [Text(f"problem: {problem}", style="red") for problem in result.problems]
    return Group(Text(f"{result.kind} {result.path}"), *shown, *health)


def _run_info(details: dict[str, Any]) -> list[Any]:
    table = Table(box=None, pad_edge=False)
    table.add_column("artefact", overflow="fold")
    for column in ("sparsity", "size"):
        table.add_column(column, no_wrap=True)
    table.add_column("made from", overflow="fold")
    for a in details["artefacts"]:
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


def metrics(result: Any) -> Any:
    """What a command reports that has no table of its own here."""
    return facts(result, {name.replace("_", " "): str(value) for name, value in result.to_json()["metrics"].items()})


def facts(result: Any, lines: dict[str, str]) -> Table:
    """Lines of a result, and where its outputs are."""
    return pairs({**lines, **{f"→ {role}": path for role, path in result.outputs.items()}})


def pairs(lines: dict[str, str]) -> Table:
    """Names in bold, values beside them."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in lines.items():
        table.add_row(name, Text(value))
    return table


def number(value: float | None) -> str:
    """Three digits, or a dash where there is none."""
    return "–" if value is None else f"{value:.3g}"
