"""What people see of training and of a recording."""

from __future__ import annotations

from typing import Any

from causalprune.base.units import format_bytes

from .tables import facts


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
