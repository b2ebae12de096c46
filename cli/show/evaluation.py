"""What people see of an evaluated or exported network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from causalprune.base.units import format_bytes

from .tables import facts, numbers

NO_SPEEDUP = "Unstructured zeros make a network smaller, not faster: dense kernels compute with them all the same."
FLOPS_UNIT = "A multiply-add counts as two FLOPs."
_MEMORY = "Peak memory: weights and live tensors, without what a kernel allocates inside."


def evaluate(result: Any) -> Any:
    """Dense against pruned."""
    return evaluation_table(result.evaluation)


def evaluation_table(result: Mapping[str, Any]) -> Group:
    """Dense against pruned, then the layers.

    Args:
        result: The field ``evaluation`` of the result of ``evaluate``.
    """
    parts: list[Any] = [_summary(result), Text(), _layers(result), Text()]
    if result.get("flatness_samples"):
        parts += [_flatness(result), Text()]
    if result.get("cost"):
        parts += [_cost(result["cost"]), Text()]
    return Group(*parts, Text(FLOPS_UNIT, style="dim"), Text(NO_SPEEDUP, style="dim"))


def _summary(result: Mapping[str, Any]) -> Table:
    dense: Mapping[str, Any] = result["reference"] or {}
    title = f"{result['model']} on {result['dataset']}, {result['samples']:,} test samples"
    table = numbers("", "dense", "pruned", title=title, pad_edge=False)

    def metric(label: str, key: str, style: str) -> None:
        if result.get(key) is not None:
            before = dense.get(key)
            table.add_row(label, "–" if before is None else format(before, style), format(result[key], style))

    metric("accuracy (top-1)", "top1", ".2%")
    metric("top-5", "top5", ".2%")
    metric("R²", "r2", ".4f")
    metric("mean absolute error", "mae", ".4g")
    metric("loss", "loss", ".4f")
    table.add_row("sparsity over prunable weights", "", f"{result['sparsity_prunable']:.2%}")
    table.add_row("sparsity over all parameters", "", f"{result['sparsity_all']:.2%}")
    table.add_row("nonzero parameters", f"{result['parameters_total']:,}", f"{result['parameters_nonzero']:,}")
    table.add_row("FLOPs per sample, zeros skipped", f"{result['flops_dense']:,}", f"{result['flops_theoretical']:,}")
    size = dense.get("file_bytes")
    if "bytes_csr" in result:
        table.add_row("weights as sparse rows", format_bytes(result["bytes_dense"]), format_bytes(result["bytes_csr"]))
    table.add_row("checkpoint", "–" if size is None else format_bytes(size), format_bytes(result["file_bytes"]))
    return table


def _cost(cost: Mapping[str, Any]) -> Group:
    """Latency and peak memory with the zeros computed, and of the compact network."""
    count = cost["threads"]
    threads = f", {count} thread{'' if count == 1 else 's'}" if cost["device"] == "cpu" else ""
    table = Table(title=Text(f"measured on {cost['device']}{threads}"), title_justify="left", box=None, pad_edge=False)
    for name in ("", "as it is", "compact"):
        table.add_column(name, justify="right" if name else "left")

    def show(value: float | None, form: Callable[[float], str]) -> str:
        return "–" if value is None else form(value)

    for batch, seconds in cost["latency"].items():
        cells = (show(seconds[name], lambda s: f"{1000 * s:.3g} ms") for name in ("dense", "compact"))
        table.add_row(f"latency, batch {batch}", *cells)
    for batch, peak in cost["peak_memory"].items():
        table.add_row(f"peak memory, batch {batch}", *(show(peak[name], format_bytes) for name in ("dense", "compact")))
    table.add_row("weights, deflated", format_bytes(cost["bytes_deflate"]), "")
    notes = [_MEMORY] + ([f"No compact network: {cost['no_compact']}"] if cost["no_compact"] else [])
    return Group(table, *(Text(note, style="dim") for note in notes))


def _layers(result: Mapping[str, Any]) -> Table:
    table = numbers("layer", "weights", "kept", "sparsity", pad_edge=False)
    for layer in result["layers"]:
        table.add_row(Text(layer["name"]), f"{layer['total']:,}", f"{layer['kept']:,}", f"{layer['sparsity']:.2%}")
    return table


def _flatness(result: Mapping[str, Any]) -> Table:
    """Curvature over the unpruned parameters and over all, and the loss under noise."""
    title = f"Flatness on {result['flatness_samples']:,} samples of the {result['flatness_split']} split"
    hessian, noise = result.get("hessian"), result.get("noise")
    columns = ("unpruned", "all parameters") if hessian else ("relative loss",) if noise else ()
    table = numbers("", *columns, title=title, pad_edge=False)
    if hessian:
        pair = (hessian["unpruned"], hessian["all"])
        table.add_row("parameters", *(f"{h['dimension']:,}" for h in pair))
        for number in range(max(len(h["eigenvalues"]) for h in pair)):
            values = [h["eigenvalues"][number : number + 1] for h in pair]
            table.add_row(f"Hessian eigenvalue {number + 1}", *(f"{v[0]:.4g}" if v else "–" for v in values))
        table.add_row("smallest eigenvalue", *(f"{h['smallest']:.4g}" for h in pair))
        table.add_row("trace", *(f"{h['trace']:.4g} ± {h['trace_error']:.2g}" for h in pair))
    if noise:
        for sigma, mean, std in zip(noise["sigma"], noise["mean"], noise["std"], strict=True):
            if mean is not None:
                spread = "" if std is None else f" ± {std:.2g}"
                table.add_row(f"relative loss, noise σ = {sigma:g}", f"{mean:.4g}{spread}", *([""] if hessian else []))
    return table


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
    lines["FLOPs per sample"] = f"{c['flops']:,} of {c['flops_before']:,}"
    for batch_size, seconds in c["latency"].items():
        ratio = seconds["before"] / seconds["after"]
        before, after = f"{1000 * seconds['before']:.3g}", f"{1000 * seconds['after']:.3g}"
        lines[f"latency, batch {batch_size}"] = f"{after} ms, before {before} ms ({ratio:.2f}× as fast)"
    table = numbers("layer", "units", "all weights pruned", "removed")
    for layer in c["layers"]:
        table.add_row(Text(layer["name"]), *(f"{layer[name]:,}" for name in ("units", "dead", "removed")))
    note = "Zeros that are left inside kept filters and neurons don't make dense kernels faster."
    notes = (Text(line, style="dim") for line in (FLOPS_UNIT, note))
    return Group(facts(result, lines), Text(), table, Text(), *notes)
