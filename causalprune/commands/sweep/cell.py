"""One cell of a sweep: runs its steps, and writes what its rows of the table show."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

from causalprune.base.files import make_directory, write_atomic
from causalprune.base.json_files import seal, write_json
from causalprune.base.progress import Reporter
from causalprune.base.specs import Headline
from causalprune.commands.sweep.grid import Point
from causalprune.commands.sweep.step_runner import StepRunner
from causalprune.models.checkpoint import load_checkpoint
from causalprune.models.mask import Mask

_COPIED = ("model", "dataset", "parameters_nonzero", "flops_theoretical", "layers")
"""What a row has of the pruned network, unchanged."""

_MEASURED = ("loss", "top1", "top5", "r2", "mae", "hessian", "noise", "flatness_samples", "flatness_split")
"""What ``evaluate`` measures, depending on the task and on its options, of the pruned and of the dense network."""


def measure_cell(point: Point, steps: StepRunner, reporter: Reporter, *, keep: bool) -> str:
    """Run the steps of a cell and write its mask and its measurements; the caller holds the lease of the cell.

    Args:
        point: The settings of the cell and its last step.
        steps: Runs the steps.
        reporter: Shows progress.
        keep: Whether to keep the networks that only this cell has.

    Returns:
        The score as text.
    """
    started = time.monotonic()
    cell = point.cell
    steps.run(point.last, cell, reporter)
    evaluation = steps.result(point.last, cell)["metrics"]["evaluation"]
    headline = Headline.of(evaluation)
    metric = headline.metric
    dense = steps.result(point.last.input("reference"), cell)["metrics"]["evaluation"]
    measured: dict[str, Any] = {
        **{name: evaluation[name] for name in _COPIED},
        "metric": metric,
        **({"headline": evaluation["headline"]} if "headline" in evaluation else {}),
        "score": evaluation[metric],
        "dense": dense[metric],
        **{name: evaluation[name] for name in _MEASURED if evaluation.get(name) is not None},
        **{f"dense_{name}": dense[name] for name in _MEASURED if dense.get(name) is not None},
        "guessing": headline.baseline_value(evaluation),
        "sparsity_reached": evaluation["sparsity_prunable"],
        "iterations_log": _iterations(point, steps),
    }
    paths = steps.paths
    make_directory(paths.cell(cell).parent)
    mask = _packed_mask(steps.checkpoint(point.last.input("checkpoint"), cell))
    write_atomic(paths.mask(cell), mask)
    measured["seconds"] = round(time.monotonic() - started, 3)
    line = {"cell": cell, "kept": keep, "measured": measured, "mask_sha256": hashlib.sha256(mask).hexdigest()}
    write_json(paths.cell(cell), seal(line))
    return f"{metric} {evaluation[metric]:.4f}" if evaluation[metric] is not None else f"loss {evaluation['loss']:.4f}"


def _iterations(point: Point, steps: StepRunner) -> list[dict[str, Any]]:
    """The results of each iteration in order, from the results of its steps."""
    lines: list[dict[str, Any]] = []
    line: dict[str, Any] = {}
    for step in point.last.ancestry():
        if step.stage == "evaluate":
            continue
        report = steps.result(step, point.cell)
        result = report["metrics"]
        if step.stage in ("pretrain", "posttrain"):
            line["validation_loss"] = result["validation"]["loss"]
        elif step.stage == "record":
            line |= {"rows": result["rows"], "mean_loss_change": result["mean_loss_change"]}
        elif step.stage == "fit_gamma":
            evidence = result["evidence"]
            line |= {name: evidence[name] for name in ("num_nonzero", "r2", "relative_gap", "alpha", "alpha_max")}
            line["gamma"] = report["gamma"]
        elif step.stage == "apply_mask":
            lines.append({"iteration": len(lines) + 1, **line, "sparsity": result["sparsity"]})
            line = {}
    # The training after the last mask.
    return [*lines, {"iteration": None, **line}] if line else lines


def _packed_mask(checkpoint: Path) -> bytes:
    from safetensors.numpy import save

    loaded = load_checkpoint(checkpoint)
    mask = loaded.mask or Mask.all(loaded.info.index)
    return save({"keep": mask.packed()}, metadata={"parameters": str(mask.index.total)})
