"""What people see of a network that was trained, recorded, pruned, evaluated or exported, and of a whole run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from rich.console import Group
from rich.table import Table

from causalprune.base.specs import ACCURACY, R2, Headline
from causalprune.base.units import listed

from .forecasts import forecast
from .tables import classes_line, counted, facts, notes, recipe_line, records, shown, spaced, table

NO_SPEEDUP = "Unstructured zeros make a network smaller, not faster: dense kernels compute with them all the same."
FLOPS_UNIT = "A multiply-add counts as two FLOPs."
_MEMORY = "Peak memory: weights and live tensors, without what a kernel allocates inside."
_LAYERS = {"layer": "name", "weights": "total:,", "kept": "kept:,", "sparsity": "sparsity:share"}


def pretrain(result: Any) -> Any:
    """Best epoch and validation metrics."""
    v = result.validation
    lines = {"best epoch": str(result.best_epoch), "validation loss": f"{v['loss']:.4f}"}
    headline = Headline.of(v)
    if v.get(headline.metric) is not None:
        lines[f"validation {headline.label}"] = shown(v[headline.metric], _form(headline))
    if result.sparsity:
        lines["sparsity"] = f"{shown(result.sparsity, 'share')} of prunable weights"
    if result.batchnorm_samples:
        lines["batch statistics"] = f"re-estimated from {result.batchnorm_samples:,} training samples"
    return lines


posttrain = pretrain


def _form(headline: Headline) -> str:
    return ".2%" if headline.percent else ".4f"


def record(result: Any) -> Any:
    """Size of the recording."""
    lines = {
        "rows × columns": f"{result.rows:,} × {result.columns:,}",
        "as float32": shown(result.raw_bytes, "bytes"),
    }
    if result.not_prunable:
        lines["not recorded"] = f"{result.not_prunable} (--prune names more)"
    if result.statistics_bytes:
        when = " before compression" if result.mean_loss_change is None else ""
        lines["layer statistics"] = f"{shown(result.statistics_bytes, 'bytes')}{when}"
    if result.mean_loss_change is None:
        lines["predicted size"] = shown(result.stored_bytes, "bytes")
        lines["predicted time"] = f"{result.predicted_seconds:.0f} s"
        lines["dry run"] = "nothing was written"
    else:
        lines["stored"] = f"{shown(result.stored_bytes, 'bytes')} (1/{result.raw_bytes / result.stored_bytes:.2f})"
        lines["mean loss change"] = f"{result.mean_loss_change:.3g}"
        lines["steps with falling loss"] = f"{result.falling:.1%}"
    return lines


def apply_mask(result: Any) -> Any:
    """Sparsity overall and per layer."""
    now, before = (shown(value, "share") for value in (result.sparsity, result.sparsity_before))
    lines = {"sparsity": f"{now} of prunable weights (before: {before})"}
    if result.frozen or result.kept_dense or result.unmeasured:
        others = "other" if result.kept_dense or result.unmeasured else "trained"
        of_others = f"{shown(result.sparsity_candidates, 'share')} of {result.candidates:,} {others} weights"
        lines["sparsity"] = f"{of_others}, {lines['sparsity']}"
    if result.kept_dense:
        lines["kept dense"] = f"{listed(result.kept_dense)} (by --keep)"
    if result.frozen:
        lines["left alone"] = f"{listed(result.frozen)} (frozen or never trained)"
    if result.unmeasured:
        lines["not measured"] = f"{listed(result.unmeasured)} (nothing is known of its inputs; left alone)"
    if result.not_prunable:
        lines["not prunable"] = f"{result.not_prunable} (--prune names more)"
    if result.inseparable:
        lines["kept whole"] = f"{listed(result.inseparable)} (their channels can't be removed one by one)"
    if result.unmoved:
        share = shown(result.unmoved / result.candidates, "share")
        lines["never moved"] = f"{result.unmoved:,} weights ({share}): gradient 0, or steps lost in rounding"
    if result.layer_statistics is not None:
        kept = " by the recording" if result.layer_statistics["from"] == "store" else ""
        lines["layers measured"] = f"on {counted(result.layer_statistics['samples'], 'sample')}{kept}"
    if result.stale_statistics:
        lines["batch statistics"] = "those of before; evaluate and posttrain re-estimate them"
    if result.lasso is not None:
        lines["kept by the Lasso"] = _lasso(result.lasso)
    return spaced(facts(result, lines), records(_LAYERS, result.layers, pad_edge=True))


def _lasso(found: Mapping[str, Any]) -> str:
    """How many columns have γ ≠ 0, and why there can't be more of them."""
    kept = f"{found['nonzero']:,} of {found['columns']:,} {found['what']} (γ ≠ 0)"
    if found["most"] is None:
        return kept
    where = " in each layer" if found["most"] > found["rows"] else ""
    return f"{kept}; a Lasso keeps at most T{where}, the {counted(found['rows'], 'row')} of its recording"


def repair(result: Any) -> Any:
    """What the layers missed of the dense network's outputs, before and after."""
    columns = {"layer": "name", "missed before": "before:.2%", "after": "after:.2%"}
    lines = {"statistics of" if result.from_statistics else "samples": f"{result.samples:,}"}
    lines |= {"sparsity": f"{shown(result.sparsity, 'share')} of prunable weights"}
    note = "Missed: the part of the variance of the dense layer's outputs that the pruned one doesn't reproduce."
    return spaced(facts(result, lines), records(columns, result.layers, pad_edge=True), notes(note))


def run(result: Any) -> Any:
    """One line per iteration, with its fit if there was one, then dense against pruned; of a dry run its stages."""
    if not hasattr(result, "iterations"):
        return forecast(result)
    columns = {"iteration": "iteration"}
    if any(line["rows"] is not None for line in result.iterations):
        columns |= {"rows": "rows:,", "stored": "stored_bytes:bytes"}
    if any(line["num_nonzero"] is not None for line in result.iterations):
        columns |= {"R²": "r2:.3g", "nonzero γ": "num_nonzero:,"}
    columns["sparsity"] = "sparsity:share"
    parts = [records(columns, result.iterations, named=False, pad_edge=True), evaluate(result)]
    if result.recipe is not None:
        parts.append(notes(f"Recipe {recipe_line(result.recipe)}."))
    if said := _stores(result.stores):
        parts.append(notes(f"{said}."))
    return spaced(*parts)


def _stores(stores: Mapping[str, int]) -> str:
    """What is on the disk of the recordings of a run."""
    kept, discarded = stores.get("kept", 0), stores.get("discarded", 0)
    parts = []
    if kept:
        size = shown(stores["bytes"], "bytes")
        parts.append(f"{counted(kept, 'trajectory store')} kept, {size} (--discard-stores removes them)")
    if discarded:
        parts.append(f"{counted(discarded, 'trajectory store')} discarded")
    return "; ".join(parts)


def evaluate(result: Any) -> Any:
    """Dense against pruned."""
    return evaluation_table(result.evaluation)


def evaluation_table(result: Mapping[str, Any]) -> Group:
    """Dense against pruned, then the layers.

    Args:
        result: The field ``evaluation`` of the result of ``evaluate``.
    """
    return spaced(
        _summary(result),
        records(_LAYERS, result["layers"]),
        _flatness(result) if result.get("flatness_samples") else None,
        _cost(result["cost"]) if result.get("cost") else None,
        notes(*_statistics_notes(result.get("batchnorm")), *_flops_notes(result.get("flops_uncounted")), NO_SPEEDUP),
    )


def _statistics_notes(batchnorm: Mapping[str, Any] | None) -> list[str]:
    """Which running statistics the measured network had, if they are neither the dense one's nor trained."""
    if batchnorm is None:
        return []
    where = "" if batchnorm["saved"] else ", in memory only (posttrain --epochs 0 saves them)"
    return [f"Running statistics of batch normalization re-estimated after the mask{where}."]


def _flops_notes(uncounted: Sequence[str] | None) -> list[str]:
    """What the FLOPs are, and which operations they lack."""
    without = f" Not counted, because nothing tells how: {', '.join(uncounted)}." if uncounted else ""
    return [f"{FLOPS_UNIT}{without}"]


def _summary(result: Mapping[str, Any]) -> Table:
    dense: Mapping[str, Any] = result["reference"] or {}
    title = f"{result['model']} on {result['dataset']}, {result['samples']:,} test samples"
    made = table("", "dense", "pruned", title=title)

    def metric(label: str, name: str, form: str) -> None:
        if result.get(name) is not None:
            made.add_row(label, shown(dense.get(name), form), shown(result[name], form))

    headline = Headline.of(result)
    if headline not in (ACCURACY, R2):
        metric(headline.label, headline.metric, _form(headline))
    metric("accuracy (top-1)", "top1", ".2%")
    metric("top-5", "top5", ".2%")
    metric("R²", "r2", ".4f")
    metric("mean absolute error", "mae", ".4g")
    metric("loss", "loss", ".4f")
    made.add_row("sparsity over prunable weights", "", shown(result["sparsity_prunable"], "share"))
    made.add_row("sparsity over all parameters", "", shown(result["sparsity_all"], "share"))
    made.add_row("nonzero parameters", f"{result['parameters_total']:,}", f"{result['parameters_nonzero']:,}")
    made.add_row("FLOPs per sample, zeros skipped", f"{result['flops_dense']:,}", f"{result['flops_theoretical']:,}")
    if "bytes_csr" in result:
        made.add_row("weights as sparse rows", *(shown(result[name], "bytes") for name in ("bytes_dense", "bytes_csr")))
    metric("checkpoint", "file_bytes", "bytes")
    if result.get("batchnorm"):
        made.add_row("samples of batch statistics", "", f"{result['batchnorm']['samples']:,}")
    return made


def _cost(cost: Mapping[str, Any]) -> Group:
    """Latency and peak memory with the zeros computed, and of the compact network."""
    threads = f", {counted(cost['threads'], 'thread')}" if cost["device"] == "cpu" else ""
    made = table("", "as it is", "compact", title=f"measured on {cost['device']}{threads}", title_style=None)
    for label, name, form in (("latency", "latency", "ms"), ("peak memory", "peak_memory", "bytes")):
        for batch, measured in cost[name].items():
            made.add_row(f"{label}, batch {batch}", *(shown(measured[k], form) for k in ("dense", "compact")))
    made.add_row("weights, deflated", shown(cost["bytes_deflate"], "bytes"))
    no_compact = [f"No compact network: {cost['no_compact']}"] if cost["no_compact"] else []
    return Group(made, notes(_MEMORY, *no_compact))


def _flatness(result: Mapping[str, Any]) -> Table:
    """Curvature over the unpruned parameters and over all, and the loss under noise."""
    title = f"Flatness on {result['flatness_samples']:,} samples of the {result['flatness_split']} split"
    hessian, noise = result.get("hessian"), result.get("noise")
    columns = ("unpruned", "all parameters") if hessian else ("relative loss",) if noise else ()
    made = table("", *columns, title=title)
    if hessian:
        pair = (hessian["unpruned"], hessian["all"])
        made.add_row("parameters", *(f"{h['dimension']:,}" for h in pair))
        for i, values in enumerate(zip_longest(*(h["eigenvalues"] for h in pair)), start=1):
            made.add_row(f"Hessian eigenvalue {i}", *(shown(v, ".4g") for v in values))
        made.add_row("smallest eigenvalue", *(f"{h['smallest']:.4g}" for h in pair))
        made.add_row("trace", *(f"{h['trace']:.4g} ± {h['trace_error']:.2g}" for h in pair))
    if noise:
        for sigma, mean, std in zip(noise["sigma"], noise["mean"], noise["std"], strict=True):
            if mean is not None:
                spread = "" if std is None else f" ± {std:.2g}"
                made.add_row(f"relative loss, noise σ = {sigma:g}", f"{mean:.4g}{spread}")
    return made


def export(result: Any) -> Any:
    """What was written, and what a compact network saves."""
    how = {"bits": "read back bit for bit", "outputs": f"read back, outputs within {result.max_difference:.2g}"}
    lines = {
        "format": result.format,
        "parameters": f"{result.parameters:,} of {result.parameters_before:,}",
        "file": shown(result.file_bytes, "bytes"),
        "verified": how.get(result.verified, "no: ONNX Runtime is missing"),
        **classes_line(result.classes),
    }
    if result.compact is None:
        note = NO_SPEEDUP
        if result.dead_units:
            note = (
                f"{result.dead_units:,} filters and neurons have every weight pruned, but dense kernels compute with "
                "them all the same: export --compact removes those that nothing else needs."
            )
        return spaced(facts(result, lines), notes(note))
    c = result.compact
    lines["FLOPs per sample"] = f"{c['flops']:,} of {c['flops_before']:,}"
    for batch_size, seconds in c["latency"].items():
        times = f"{shown(seconds['after'], 'ms')}, before {shown(seconds['before'], 'ms')}"
        lines[f"latency, batch {batch_size}"] = f"{times} ({seconds['before'] / seconds['after']:.2f}× as fast)"
    columns = {"layer": "name", "units": "units:,", "all weights pruned": "dead:,", "removed": "removed:,"}
    note = "Zeros that are left inside kept filters and neurons don't make dense kernels faster."
    return spaced(
        facts(result, lines),
        records(columns, c["layers"], pad_edge=True),
        notes(*_flops_notes(c.get("flops_uncounted")), note),
    )
