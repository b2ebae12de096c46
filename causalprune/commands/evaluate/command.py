"""``evaluate``: measure a checkpoint on the test split, beside the dense network that it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from causalprune.analysis.cost import measure_cost, parameter_counts, stored_bytes
from causalprune.analysis.flops import flops
from causalprune.analysis.plots.figures import require_matplotlib
from causalprune.base import files
from causalprune.base.paths import RunPaths
from causalprune.base.progress import SILENT, Bar, Reporter
from causalprune.base.units import percent
from causalprune.commands._findings import evaluation_findings
from causalprune.commands._network import give_statistics, load_network, needs_statistics, samples_of, set_up
from causalprune.commands._output import (
    StageResult,
    Work,
    check_distinct,
    publish,
    read_result,
    require_replaceable,
)
from causalprune.commands.evaluate.flatness import Flatness
from causalprune.commands.names import with_flags
from causalprune.commands.provenance.lineage import adapted_by, stale_warnings
from causalprune.config.evaluate import EvaluateConfig
from causalprune.models.checkpoint import CheckpointInfo
from causalprune.training.metrics import evaluate_model


@dataclass(frozen=True, kw_only=True)
class EvaluateResult(StageResult):
    """Result of evaluate.

    Attributes:
        evaluation: What the tables and plots show: metrics of its task on the test split (see
            :mod:`causalprune.data.tasks`), ``classes``, what each output and each number in ``per_class`` stands for
            (empty where outputs have no names), ``layers``, ``sparsity_prunable`` (over prunable weights),
            ``sparsity_all`` (over all parameters), ``parameters_total``, ``parameters_nonzero``, ``flops_dense``,
            ``flops_theoretical`` (per sample, a multiply-add counted as 2), ``flops_uncounted`` (operations that both
            lack), ``file_bytes`` (of the network's file, without that of its mask), ``bytes_dense`` and ``bytes_csr``,
            ``reference``, the metrics of the dense network, what
            :meth:`causalprune.commands.evaluate.flatness.Flatness.measure` adds, and ``cost``, see
            :func:`causalprune.analysis.cost.measure_cost`, where it was asked for, now or when the same network was
            evaluated before (see :func:`_measured_before`). ``batchnorm`` where running
            statistics of batch normalization were re-estimated after the last mask: ``samples``, from how many training
            samples, and ``saved``, whether the checkpoint has them, or only the network that was measured.
    """

    evaluation: dict[str, Any]


def evaluate(config: EvaluateConfig, reporter: Reporter = SILENT) -> EvaluateResult:
    """Measure accuracy, sparsity, cost and size of a checkpoint on the test split.

    Args:
        config: Which checkpoint, and which dense one to compare it with.
        reporter: Shows progress and passes on warnings; silent when left out.

    Returns:
        The measurements; they are also written as JSON.

    Raises:
        CausalpruneError: See :mod:`causalprune.base.errors` for the family.
    """
    work = Work(stage="evaluate", config=config)
    run = RunPaths(config.run)
    source = config.checkpoint or run.final
    reference = config.reference or (run.pretrained if run.pretrained.exists() else None)
    outputs = evaluation_outputs(config)
    work.outputs = outputs
    checkpoint = work.load_checkpoint(source, made_by="posttrain")
    info = checkpoint.info
    files.require_writable(outputs["result"])
    device, data, model, mask = set_up(checkpoint, source, config)

    def reestimated(network: nn.Module, of: CheckpointInfo) -> dict[str, Any]:
        if not needs_statistics(network, of):
            return {"samples": of.metrics.get("batchnorm_samples", 0), "saved": True}
        count, size = config.reestimate_batchnorm, config.batch_size
        return {"samples": give_statistics(network, data, device, config, count=count, batch_size=size), "saved": False}

    def measure(network: nn.Module, bar: Bar) -> dict[str, Any]:
        bar.describe("test split")
        return evaluate_model(
            network,
            data,
            "test",
            batch_size=config.batch_size,
            device=device,
            num_workers=config.num_workers,
            notify=lambda: bar.advance(1),
        )

    flatness = Flatness.of(config, model, mask, data, device)
    batches = -(-len(data.test) // config.batch_size) * (1 if reference is None else 2)
    with reporter.task(work.stage, batches + flatness.batches) as bar:
        bar.advance(0)
        statistics = reestimated(model, info)
        measured = measure(model, bar)
        dense = None
        if reference is not None:
            dense_checkpoint = work.load_checkpoint(reference, role="reference")
            dense_model, _ = load_network(dense_checkpoint, reference, device, trust_code=config.trust_code)
            reestimated(dense_model, dense_checkpoint.info)
            dense = measure(dense_model, bar)
            dense["file_bytes"] = reference.stat().st_size
        timed = None
        if config.cost:
            bar.describe("cost")
            samples, held_out = (
                samples_of(data, split, device, num_workers=config.num_workers) for split in ("train", "test")
            )
            timed = measure_cost(model, info.index, mask.tensors(), samples, held_out)
            timed |= {"no_compact": timed["no_compact"] and with_flags(timed["no_compact"])}
        flat = flatness.measure(bar)
    parameters, unpruned = parameter_counts(model, mask.tensors())
    cost = flops(model, info.model.input_shape, mask.tensors())
    evaluation: dict[str, Any] = {
        **measured,
        "model": info.model.name,
        "dataset": info.data.name,
        "classes": list(data.class_names),
        "samples": len(data.test),
        "reference": dense,
        "layers": [
            {"name": e.name, "shape": list(e.shape), "total": s.total, "kept": s.kept, "sparsity": s.sparsity}
            for e, s in zip(info.index, mask.per_layer(), strict=True)
        ],
        "sparsity_prunable": mask.sparsity,
        "sparsity_all": mask.num_pruned / parameters,
        "parameters_total": parameters,
        "parameters_nonzero": unpruned,
        "flops_dense": cost.dense,
        "flops_theoretical": cost.theoretical,
        "flops_uncounted": list(cost.uncounted),
        "file_bytes": source.stat().st_size,
        **stored_bytes(model.state_dict(), mask.tensors()),
        "cost": timed,
        **flat,
    }
    if statistics["samples"]:
        evaluation["batchnorm"] = statistics
    if not config.overwrite:
        evaluation |= _measured_before(evaluation, read_result(outputs["result"]), checkpoint.sha256)
    work.warn(reporter, *stale_warnings(run, source), *evaluation_findings(evaluation, adapted_by(info, run)))
    result = EvaluateResult(**work.common(), evaluation=evaluation)
    publish(outputs["result"], result, overwrite=config.overwrite)
    # The measurements are on the disk before anything is drawn.
    _draw(evaluation, outputs)
    return result


_EXTRAS = ("cost", "hessian", "noise", "landscape")
"""What is measured only if it is asked for."""


_OF_FLATNESS = ("flatness_samples", "flatness_split")


def _measured_before(now: dict[str, Any], earlier: dict[str, Any], sha256: str) -> dict[str, Any]:
    """What an earlier evaluation of the very same network measured, and this one wasn't asked for.

    The network's file names its data, which was found to be the same.

    Args:
        now: This evaluation.
        earlier: The result that is about to be replaced; empty if there is none.
        sha256: Hash of the network's file.

    Returns:
        Those of ``cost``, ``hessian``, ``noise`` and ``landscape``. What was measured on other samples than
        ``flatness_samples`` of ``flatness_split`` is in ``flatness_of``, by its name, with the same two.
    """
    then = earlier.get("metrics", {}).get("evaluation")
    same_network = earlier.get("inputs", {}).get("checkpoint") == sha256
    if not same_network or not isinstance(then, dict) or then.get("batchnorm") != now.get("batchnorm"):
        return {}
    kept: dict[str, Any] = {name: then[name] for name in _EXTRAS if then.get(name) and not now.get(name)}
    flat = [name for name in kept if name != "cost"]
    if not flat:
        return kept
    samples = {name: then.get("flatness_of", {}).get(name) or {n: then[n] for n in _OF_FLATNESS} for name in flat}
    common = {name: now[name] for name in _OF_FLATNESS} if _OF_FLATNESS[0] in now else samples[flat[0]]
    others = {name: own for name, own in samples.items() if own != common}
    return kept | common | ({"flatness_of": others} if others else {})


def evaluation_outputs(config: EvaluateConfig) -> dict[str, Path]:
    """The path of each output by its role, checked before anything is measured.

    Raises:
        UsageError: The path of an input or of another output, or a package that isn't installed.
        MismatchError: A file that isn't an earlier result.
    """
    run = RunPaths(config.run)
    path = config.output or run.result("evaluate")
    taken = [config.checkpoint or run.final, config.reference or run.pretrained]
    check_distinct(path, *taken)
    require_replaceable(path, "evaluate", overwrite=config.overwrite)
    require_packages(config)
    outputs = {"result": path}
    if config.landscape:
        outputs["landscape"] = path.with_suffix(".landscape.png")
    if config.plot is not None:
        outputs["plot"] = config.plot
    for role, output in outputs.items():
        check_distinct(output, *taken, *(other for name, other in outputs.items() if name != role))
    return outputs


def require_packages(config: EvaluateConfig) -> None:
    """Check that what the options need is installed.

    Raises:
        UsageError: A plot without matplotlib, or a Hessian without curvlinops.
    """
    if config.landscape or config.plot is not None:
        require_matplotlib()
    if config.hessian:
        from causalprune.analysis.flatness.hessian import require_curvlinops

        require_curvlinops()


def _draw(evaluation: dict[str, Any], outputs: dict[str, Path]) -> None:
    if "landscape" in outputs:
        from causalprune.analysis.flatness.landscape import plot_landscape

        title = f"Loss around the network, {percent(evaluation['sparsity_prunable'], 2)}% pruned"
        plot_landscape(evaluation["landscape"], title, outputs["landscape"])
    if "plot" in outputs:
        from causalprune.analysis.plots.network import plot_evaluation

        plot_evaluation(evaluation, outputs["plot"])
