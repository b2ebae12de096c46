"""Measure a checkpoint on the test split, beside the dense network it came from."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from causalprune.checkpoint import load_checkpoint
from causalprune.config import EvaluateConfig
from causalprune.evaluation.cost import flops, parameter_counts
from causalprune.evaluation.measured_cost import measure_cost, stored_bytes
from causalprune.evaluation.metrics import evaluate_model
from causalprune.files import make_directory, remove_partials, write_json
from causalprune.locking import FileLock
from causalprune.paths import RunPaths, lock_path
from causalprune.reporting import Reporter
from causalprune.stages.artefacts import StageResult
from causalprune.stages.flatness import measure_flatness
from causalprune.stages.loading import load_network, set_up


@dataclass(frozen=True, kw_only=True)
class EvaluateResult(StageResult):
    """Result of evaluate.

    Attributes:
        evaluation: What the tables and plots show: metrics on the test split (``loss``, ``top1``, ``top5``,
            ``guessing``, ``per_class`` or ``r2``, ``mae``), ``layers``, ``sparsity_prunable`` (over prunable weights),
            ``sparsity_all`` (over all parameters), ``parameters_total``, ``parameters_nonzero``, ``flops_dense``,
            ``flops_theoretical`` (per sample, a multiply-add counted as 2), ``file_bytes``, ``bytes_dense`` and
            ``bytes_csr``, ``reference``, the metrics of the dense network, what
            :func:`causalprune.stages.flatness.measure_flatness` adds, and ``cost``, see
            :func:`causalprune.evaluation.measured_cost.measure_cost`, where it was asked for.
    """

    evaluation: dict[str, Any]


def evaluate(config: EvaluateConfig, reporter: Reporter | None = None) -> EvaluateResult:
    """Measure accuracy, sparsity, cost and size of a checkpoint on the test split.

    Args:
        config: Which checkpoint, and which dense one to compare it with.
        reporter: Shows progress; silent when left out.

    Returns:
        The measurements; they are also written as JSON.

    Raises:
        CausalpruneError: See :mod:`causalprune.errors` for the family.
    """
    reporter = reporter or Reporter()
    started = time.monotonic()
    run = RunPaths(config.run)
    source = config.checkpoint or run.final
    checkpoint = load_checkpoint(source, remedy="run `causalprune posttrain` first, or name a --checkpoint")
    reference = config.reference or (run.pretrained if run.pretrained.exists() else None)
    info = checkpoint.info
    inputs = {"checkpoint": checkpoint.sha256}
    device, data, model, mask = set_up(checkpoint, source, config)

    def measure(network: nn.Module) -> dict[str, Any]:
        return evaluate_model(
            network, data, "test", batch_size=config.batch_size, device=device, num_workers=config.num_workers
        ).to_json()

    measured = measure(model)
    counts = parameter_counts(model, info.index, mask.tensors())
    cost = flops(model, info.model.input_shape, mask.tensors())
    dense = None
    if reference is not None:
        dense_checkpoint = load_checkpoint(reference)
        inputs["reference"] = dense_checkpoint.sha256
        dense_model, _ = load_network(dense_checkpoint, reference, device, trust_code=config.trust_code)
        dense = measure(dense_model)
        dense["file_bytes"] = reference.stat().st_size
    evaluation: dict[str, Any] = {
        **measured,
        "model": info.model.name,
        "dataset": info.data.name,
        "samples": len(data.test),
        "reference": dense,
        "layers": [
            {"name": e.name, "shape": list(e.shape), "total": s.total, "kept": s.kept, "sparsity": s.sparsity}
            for e, s in zip(info.index, mask.per_layer(), strict=True)
        ],
        "sparsity_prunable": mask.sparsity,
        "sparsity_all": mask.num_pruned / counts.total,
        "parameters_total": counts.total,
        "parameters_nonzero": counts.total_nonzero,
        "flops_dense": cost.dense,
        "flops_theoretical": cost.theoretical,
        "file_bytes": source.stat().st_size,
        **stored_bytes(model.state_dict(), mask.tensors()),
        "cost": measure_cost(model, info.index, mask.tensors(), info.model.input_shape) if config.cost else None,
    }
    path = config.output or run.result("evaluate")
    outputs = {"result": str(path)}
    make_directory(path.parent)
    picture = path.with_suffix(".landscape.png")
    evaluation |= measure_flatness(config, model, mask, data, device, picture)
    if config.landscape:
        outputs["landscape"] = str(picture)
    if config.plot is not None:
        from causalprune.evaluation.plots import plot_evaluation

        plot_evaluation(evaluation, Path(config.plot))
        outputs["plot"] = str(config.plot)
    result = EvaluateResult(
        stage="evaluate",
        inputs=inputs,
        outputs=outputs,
        seconds=time.monotonic() - started,
        evaluation=evaluation,
    )
    with FileLock(lock_path(path), break_lock=config.break_lock):
        remove_partials(path.parent, path.name)
        write_json(path, result.to_json())
    return result
