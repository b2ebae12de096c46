"""What people see of an evaluation: dense against pruned, layers, flatness, cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any

from rich.console import Group

from causalprune.base.specs import ACCURACY, COMPARED, R2, Headline

from .sheet import Sheet
from .tables import counted, notes, records, shown, spaced, table

LAYERS = {"layer": "name", "weights": "total:,", "kept": "kept:,", "sparsity": "sparsity:share"}
"""The columns of a table of layers."""

_MEMORY = "Peak memory: weights and live tensors, without what a kernel allocates inside."


def evaluation_table(result: Mapping[str, Any], network: str = "") -> Group:
    """Dense against pruned, then the layers.

    Args:
        result: The field ``evaluation`` of the result of ``evaluate``.
        network: Which network was measured, where several may be meant.
    """
    flatness = [_flatness(result, samples, split, parts) for (samples, split), parts in _flatness_parts(result)]
    statistics = _statistics_notes(result.get("batchnorm"))
    return spaced(
        _summary(result, network),
        records(LAYERS, result["layers"]),
        *flatness,
        _cost(result["cost"]) if result.get("cost") else None,
        notes(*statistics) if statistics else None,
    )


def _statistics_notes(batchnorm: Mapping[str, Any] | None) -> list[str]:
    """Which running statistics the measured network had, if they are neither the dense one's nor trained."""
    if batchnorm is None:
        return []
    where = "" if batchnorm["saved"] else ", in memory only (posttrain --epochs 0 saves them)"
    return [f"Running statistics of batch normalization re-estimated after the mask{where}."]


def flops_notes(uncounted: Sequence[str] | None) -> list[str]:
    """Which operations the FLOPs lack."""
    return [f"FLOPs without operations that nothing tells how to count: {', '.join(uncounted)}."] if uncounted else []


def _summary(result: Mapping[str, Any], network: str) -> Sheet:
    dense: Mapping[str, Any] = result["reference"] or {}
    title = f"{result['model']} on {result['dataset']}, {result['samples']:,} test samples"
    made = table("", "dense", "pruned", "change", title=f"{title} ({network})" if network else title)

    def add(label: str, before: float | None, after: float, form: str) -> None:
        made.add_row(label, shown(before, form), shown(after, form), _change(before, after, form))

    def metric(label: str, name: str, form: str) -> None:
        if result.get(name) is not None:
            add(label, dense.get(name), result[name], form)

    headline = Headline.of(result)
    if headline not in (ACCURACY, R2):
        metric(headline.label, headline.metric, headline_form(headline))
    metric("accuracy (top-1)", "top1", ".2%")
    metric("top-5", "top5", ".2%")
    metric("R²", "r2", ".4f")
    metric("mean absolute error", "mae", ".4g")
    metric("loss", "loss", ".4f")
    made.add_row("sparsity over prunable weights", "", shown(result["sparsity_prunable"], "share"))
    made.add_row("sparsity over all parameters", "", shown(result["sparsity_all"], "share"))
    add("nonzero parameters", result["parameters_total"], result["parameters_nonzero"], ",")
    add(COMPARED["flops"], result["flops_dense"], result["flops_theoretical"], ",")
    if "bytes_csr" in result:
        add(COMPARED["csr"], result["bytes_dense"], result["bytes_csr"], "bytes")
    metric("checkpoint", "file_bytes", "bytes")
    if result.get("batchnorm"):
        made.add_row("samples of batch statistics", "", f"{result['batchnorm']['samples']:,}")
    return made


def _change(before: float | None, after: float, form: str) -> str:
    """From dense to pruned: in percentage points, in the metric's own unit, or in percent of a count or size."""
    if before is None:
        return "–"
    if form in (",", "bytes"):
        return f"{100 * (after / before - 1):+.1f}%" if before else "–"
    if form == ".2%":
        return f"{100 * (after - before):+.2f} points"
    return format(after - before, f"+{form}")


def _cost(cost: Mapping[str, Any]) -> Group:
    """Latency and peak memory with the zeros computed, and of the compact network."""
    threads = f", {counted(cost['threads'], 'thread')}" if cost["device"] == "cpu" else ""
    made = table("", "as it is", "compact", title=f"Cost, measured on {cost['device']}{threads}")
    for label, name, form in (("latency", "latency", "ms"), ("peak memory", "peak_memory", "bytes")):
        for batch, measured in cost[name].items():
            made.add_row(f"{label}, batch {batch}", *(shown(measured[k], form) for k in ("dense", "compact")))
    made.add_row("weights, deflated", shown(cost["bytes_deflate"], "bytes"))
    no_compact = [f"No compact network: {cost['no_compact']}"] if cost["no_compact"] else []
    return Group(made, notes(_MEMORY, *no_compact))


def _flatness_parts(result: Mapping[str, Any]) -> list[tuple[tuple[int, str], list[str]]]:
    """Which parts of the flatness were measured on which samples: ``(count, split)``, and the names of the parts."""
    found: dict[tuple[int, str], list[str]] = {}
    for part in ("hessian", "noise", "landscape"):
        if result.get(part):
            own = result.get("flatness_of", {}).get(part) or result
            found.setdefault((own["flatness_samples"], own["flatness_split"]), []).append(part)
    return list(found.items())


def _flatness(result: Mapping[str, Any], samples: int, split: str, parts: Sequence[str]) -> Sheet:
    """Curvature over the unpruned parameters and over all, and the loss under noise."""
    title = f"Flatness on {samples:,} samples of the {split} split"
    hessian, noise = (result[part] if part in parts else None for part in ("hessian", "noise"))
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


def headline_form(headline: Headline) -> str:
    """The format of a metric, for :func:`shown`."""
    return ".2%" if headline.percent else ".4f"
