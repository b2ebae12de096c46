"""What people see of a network that was trained, recorded, pruned, evaluated or exported, and of a whole run."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from causalprune.base.paths import mask_path
from causalprune.base.specs import Headline
from causalprune.base.units import listed

from .evaluations import LAYERS, evaluation_table, flops_notes, headline_form
from .forecasts import forecast
from .tables import classes_line, counted, facts, notes, pairs, recipe_line, records, shown, spaced

NO_SPEEDUP = "Unstructured zeros make a network smaller, not faster: dense kernels compute with them all the same."

if TYPE_CHECKING:
    from causalprune.commands.forecast.result import RunForecast
    from causalprune.commands.run import RunResult


def pretrain(result: Any) -> Any:
    """Best epoch and validation metrics."""
    v = result.validation
    lines = {"best epoch": str(result.best_epoch), "validation loss": f"{v['loss']:.4f}"}
    headline = Headline.of(v)
    if v.get(headline.metric) is not None:
        lines[f"validation {headline.label}"] = shown(v[headline.metric], headline_form(headline))
    if result.sparsity:
        lines["sparsity"] = f"{shown(result.sparsity, 'share')} of prunable weights"
    if result.batchnorm_samples:
        lines["batch statistics"] = f"re-estimated from {result.batchnorm_samples:,} training samples"
    return lines


posttrain = pretrain


def record(result: Any) -> Any:
    """Size of the recording."""
    lines = {
        "rows × columns": f"{result.rows:,} × {result.columns:,}",
        "as float32": shown(result.raw_bytes, "bytes"),
    }
    if result.share < 1:
        lines["share recorded"] = f"{100 * result.share:g}% of each layer"
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
    if result.reconnected:
        lines["dead ends"] = (
            f"pruned first; {counted(result.reconnected, 'weight')} kept instead, which reach an output"
        )
    if result.layer_statistics is not None:
        kept = " by the recording" if result.layer_statistics["from"] == "store" else ""
        lines["layers measured"] = f"on {counted(result.layer_statistics['samples'], 'sample')}{kept}"
    if result.stale_statistics:
        lines["batch statistics"] = "those of before; evaluate and posttrain re-estimate them"
    if result.lasso is not None:
        lines["kept by the Lasso"] = _lasso(result.lasso)
    return spaced(facts(result, lines), records(LAYERS, result.layers, pad_edge=True))


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


def run(result: RunResult | RunForecast) -> Any:
    """One line per iteration, dense against pruned, and what to do next; of a dry run its stages."""
    from causalprune.commands.forecast.result import RunForecast

    if isinstance(result, RunForecast):
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
    return spaced(*parts, _next(Path(result.outputs["checkpoint"])))


def _next(network: Path) -> Table:
    """Where the pruned network lies, and what can be done with it."""
    run = "" if network.parent == Path("run") else f" --run {shlex.quote(str(network.parent))}"
    mask = mask_path(network)
    lines = {
        "network": f"{network}{f' (its mask: {mask.name})' if mask.exists() else ''}",
        "load its weights": f"safetensors.torch.load_file({str(network)!r})",
        "measure more": f"causalprune evaluate --cost{run}",
        "use it elsewhere": f"causalprune export{run} (--format onnx or --compact)",
        "see all there is": f"causalprune info{run}",
    }
    return pairs(lines)


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
    """Dense against pruned, the layers, and what zeros are good for."""
    found = result.evaluation
    return spaced(evaluation_table(found), notes(*flops_notes(found.get("flops_uncounted")), NO_SPEEDUP))


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
    return spaced(
        facts(result, lines),
        records(columns, c["layers"], pad_edge=True),
        notes(
            *flops_notes(c.get("flops_uncounted")),
            "Zeros that are left inside kept filters and neurons don't make dense kernels faster.",
        ),
    )
