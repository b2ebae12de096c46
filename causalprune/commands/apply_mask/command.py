"""``apply-mask``: turn a fit, or another criterion, into a mask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from causalprune.base.compute.runtime import resolve_device
from causalprune.base.errors import MismatchError
from causalprune.base.paths import RunPaths, StoreUrl
from causalprune.base.progress import SILENT, Reporter
from causalprune.base.units import listed, parse_bytes, percent
from causalprune.commands._checkpoint_output import CheckpointOutput
from causalprune.commands._design import no_causal_reading
from causalprune.commands._findings import pruning_findings
from causalprune.commands._network import load_network
from causalprune.commands._output import StageResult, check_distinct
from causalprune.commands.apply_mask.candidates import (
    frozen_tensors,
    kept_by_lasso,
    samples_to_try,
    unmoved,
)
from causalprune.commands.apply_mask.layers import NamedLayers
from causalprune.commands.apply_mask.measuring import BeforeAndAfter, measured_layers, measured_then
from causalprune.commands.apply_mask.rewinding import load_earlier
from causalprune.commands.layer_statistics.stored import ROLE, find_statistics
from causalprune.commands.provenance.lineage import has_stale_statistics, require_own_weights
from causalprune.config.apply_mask import ApplyMaskConfig
from causalprune.models.checkpoint import Checkpoint, CheckpointInfo
from causalprune.models.mask import rewind
from causalprune.models.modes import reset_batchnorm
from causalprune.pruning.criteria import load_criterion, read_inputs
from causalprune.pruning.criterion import Scores
from causalprune.pruning.layer_statistics import LayerStatistics
from causalprune.pruning.removable import prunable_producers
from causalprune.pruning.selection import Selection, select, select_zero, target_sparsity
from causalprune.solver.fit import Solver
from causalprune.solver.names import SOLVERS
from causalprune.training.batch_statistics import averaging_batchnorm
from causalprune.trajectory import Fit, RecordingReader, Store

_NOTHING_KNOWN: dict[str, Any] = {"frozen": [], "kept_dense": [], "inseparable": [], "unmoved": None, "lasso": None}

OFF_TARGET = 0.01
"""How far the sparsity of whole groups may be from the target without a warning."""


@dataclass(frozen=True, kw_only=True)
class ApplyMaskResult(StageResult):
    """Result of apply-mask.

    Attributes:
        sparsity: Fraction of prunable weights that are pruned now.
        sparsity_before: The same before this command.
        layers: ``name``, ``total``, ``kept`` and ``sparsity`` of each prunable tensor.
        rescued: Tensors that would have lost all weights and keep their best one.
        validation: Metrics of the pruned network on validation samples, see
            :func:`causalprune.commands.apply_mask.measuring.validation_measure`; None if they weren't measured.
        validation_before: The same of the network before.
        candidates: Number of prunable weights that aren't frozen or kept dense, those pruned before included.
        sparsity_candidates: Fraction of them that are pruned now; what was asked for.
        frozen: Tensors that weren't trained, or not recorded, and are left alone.
        kept_dense: Tensors that ``--keep`` leaves alone.
        inseparable: Tensors whose channels can't be removed one by one and are left alone.
        unmoved: Candidates that no recorded step moved: gradient 0, or steps lost in rounding. None if unknown.
        layer_statistics: ``from``, whether the statistics of the layers that the criterion reads come from the
            ``store`` or from ``samples``; ``samples``, on how many they were measured. None if it reads none.
        lasso: With ``--zero``: ``nonzero`` of the ``columns`` that the fit kept, ``rows``, and ``most``, how many it
            can keep at all (None without such a bound); else None.
        stale_statistics: Whether the network has running statistics of batch normalization, which are those of before.
    """

    sparsity: float
    sparsity_before: float
    layers: list[dict[str, Any]]
    rescued: list[str]
    candidates: int
    sparsity_candidates: float
    frozen: list[str]
    kept_dense: list[str]
    inseparable: list[str]
    unmoved: int | None
    lasso: dict[str, Any] | None
    layer_statistics: dict[str, Any] | None = None
    stale_statistics: bool = False
    validation: dict[str, Any] | None = None
    validation_before: dict[str, Any] | None = None


def apply_mask(config: ApplyMaskConfig, reporter: Reporter = SILENT) -> ApplyMaskResult:
    """Prune the parameters of a checkpoint that a criterion ranks lowest, or those with γ = 0.

    A pruned parameter stays pruned.

    Args:
        config: What to prune, how much, by which criterion.
        reporter: Passes on warnings; silent when left out.

    Returns:
        The sparsity reached, overall and per layer.

    Raises:
        CausalpruneError: See :mod:`causalprune.base.errors` for the family.
    """
    criterion = load_criterion("gamma" if config.zero else config.criterion)
    if criterion.reweights:
        config.check_no_rewind(criterion.name)
    criterion.require_exponent(config.exponent)
    run = RunPaths(config.run)
    source = config.checkpoint or run.recorded
    output = CheckpointOutput(stage="apply-mask", config=config, default=run.pruned)
    check_distinct(output.path, source)
    checkpoint = output.load_checkpoint(source, made_by="record")
    reader, fit = None, None
    if criterion.reads_recording:
        store_path = config.store or run.store
        store = Store.open(store_path)
        if store.index.fingerprint != checkpoint.info.index.fingerprint:
            raise MismatchError(
                f"{store_path}",
                expected=f"a recording of {checkpoint.info.model.name} as in {source}",
                found="a store of another model",
                remedy="name the --store that belongs to the checkpoint",
            )
        reader = store.recording(config.recording)
        output.inputs["recording"] = reader.digest
        criterion.require(reader.info.update_rule, reader.learning_rates.extremes)
        allowed = config.allow_other_weights
        foreign = require_own_weights(reader, checkpoint, run, source, allow_others=allowed)
        output.warn(reporter, *filter(None, [foreign, no_causal_reading(reader, criterion.needs)]))
        if "gamma" in criterion.needs:
            fit = _read_fit(reader, config.fit, store_path)
            output.inputs["fit"] = fit.digest
    stored, reason = None, ""
    if "layers" in criterion.needs:
        stored, reason = find_statistics(config.store or run.store, checkpoint, config.recording)
        stored = stored if stored is not None and stored.is_of(config.samples) else None
        if stored is not None:
            output.inputs[ROLE] = stored.kept.digest
    earlier = load_earlier(config, run, source, checkpoint, reader)
    if earlier is not None:
        output.inputs["rewind"] = earlier.sha256
        output.add_ancestors(*earlier.info.ancestors, earlier.weights_digest)
    with output.exclusive():
        done = output.finished()
        if done is not None:
            measured = measured_then(output, checkpoint, source)
            output.warn(reporter, *_cost(done, **measured))
            return output.publish(replace(_result(output, done, already_done=True), **measured))
        model, mask = load_network(checkpoint, source, resolve_device("cpu"), trust_code=config.trust_code)
        if reader is not None and not reader.has_columns_of(mask.numpy()):
            raise MismatchError(
                f"{source}",
                expected=f"the mask that recording {reader.name} was made with",
                found="another",
                remedy="name the --checkpoint and the --store of the same iteration",
            )
        measure = BeforeAndAfter.of(checkpoint, source, config)
        before = measure.before(model)
        unrecorded = [] if reader is None else list(reader.info.left_out)
        untrained = [] if config.prune_frozen else frozen_tensors(model, mask, reader, checkpoint)
        frozen = [entry.name for entry in mask.index if entry.name in {*untrained, *unrecorded}]
        named = NamedLayers.of(config, mask.index, frozen)
        left_alone = sorted({*frozen, *named.keep})
        samples = samples_to_try(checkpoint, source, config)
        producers, stuck = prunable_producers(config.granularity, model, mask.index, checkpoint.info.model, samples)
        inseparable = [mask.index.entries[number].name for family in stuck for number in family]
        groups: dict[str, Any] = {
            "mask": mask,
            "granularity": config.granularity,
            "producers": producers,
            "frozen": left_alone,
        }
        theta = mask.index.flatten(checkpoint.weights).numpy()
        # None for --zero, whose target is γ.
        target: float | None = None
        choose: Callable[[Scores], Selection] = partial(select_zero, **groups)
        if config.sparsity is not None:
            target = target_sparsity(config.schedule, config.iteration, config.iterations, config.sparsity)
            own = named.on_the_way(target / config.sparsity if config.sparsity else 1)
            choose = partial(select, sparsity=target, scope=config.scope, layer_sparsity=own, theta=theta, **groups)
        layers: Mapping[str, LayerStatistics] | None = None
        measured_on: dict[str, Any] = {}
        if stored is not None:
            layers = stored.layers
            measured_on = {"layer_statistics": {"from": "store", "samples": stored.samples}}
        elif "layers" in criterion.needs:
            if reason:
                output.warn(reporter, f"the layers are measured anew: {reason}")
            layers, samples_used = measured_layers(model, mask, checkpoint, source, config)
            measured_on = {"layer_statistics": {"from": "samples", "samples": samples_used}}
        inputs = read_inputs(
            criterion,
            theta,
            mask,
            reader,
            fit,
            max_bytes=parse_bytes(config.memory),
            layers=layers,
            project=lambda primary: choose(Scores(primary)).mask.numpy(),
            ridge=config.ridge,
            exponent=config.exponent,
            seed=config.seed,
        )
        scores = criterion.score(inputs)
        selection = choose(scores)
        _warn(selection, frozen, unrecorded, inseparable, config.granularity, target, partial(output.warn, reporter))
        if earlier is not None:
            rewind(model, earlier.weights, selection.mask)
        else:
            if scores.theta is not None:
                for name, values in mask.index.split(torch.from_numpy(scores.theta)).items():
                    if name not in frozen:
                        model.get_parameter(name).detach().copy_(values)
            selection.mask.apply_(model)
        if config.reset_batchnorm:
            reset_batchnorm(model)
        metrics = {
            "sparsity_before": mask.sparsity,
            "rescued": list(selection.guarded),
            "candidates": selection.candidates,
            "sparsity_candidates": selection.sparsity,
            "frozen": frozen,
            "kept_dense": named.keep,
            "inseparable": inseparable,
            "unmoved": unmoved(inputs, fit, mask, left_alone),
            "lasso": kept_by_lasso(fit) if config.zero and fit is not None else None,
            **measured_on,
        }
        if averaging_batchnorm(model):
            origin = checkpoint if earlier is None else earlier
            changed = config.reset_batchnorm or mask.index.digest(model.state_dict()) != origin.weights_digest
            metrics["stale_statistics"] = changed or has_stale_statistics(origin.info)
        info = replace(checkpoint.info, position={}, metrics=metrics)
        measured = {"validation": measure.after(model), "validation_before": before}
        saved = output.save(Checkpoint(info, model.state_dict(), selection.mask))
        output.warn(reporter, *_cost(saved, **measured))
        return output.publish(replace(_result(output, saved), **measured))


def _warn(
    selection: Selection,
    frozen: list[str],
    unrecorded: list[str],
    inseparable: list[str],
    granularity: str,
    target: float | None,
    warn: Callable[[str], None],
) -> None:
    """Say what is left alone, and warn where the mask differs from what was asked for."""
    untrained = [name for name in frozen if name not in unrecorded]
    hint = " (--prune-frozen includes them)"
    for what, names, more in (("frozen or never trained", untrained, hint), ("not recorded", unrecorded, "")):
        if names:
            count = sum(selection.mask.index[name].size for name in names)
            warn(f"{what}, left alone: {listed(names)}, {count:,} weights{more}")
    if inseparable:
        warn(f"left alone, because their channels can't be removed one by one: {listed(inseparable)}")
    found = selection.sparsity
    if selection.newly_pruned == 0 and selection.num_pruned > selection.target:
        warn(f"{percent(found, 2)}% of the weights are pruned already, more than asked for: nothing pruned")
    elif granularity != "parameter" and target is not None and abs(found - target) > OFF_TARGET:
        warn(
            f"{percent(found, 2)}% of the weights are pruned, where {percent(target, 2)}% were asked for: "
            f"whole {granularity}s come no nearer"
        )
    for name in selection.guarded:
        unit = "weight" if granularity in ("parameter", "layer") else granularity
        warn(f"layer {name} would have been emptied and keeps its best {unit}")


def _cost(
    info: CheckpointInfo, validation: dict[str, Any] | None, validation_before: dict[str, Any] | None
) -> list[str]:
    """What to say of a mask that cost more than it should, before any training that may follow."""
    if validation is None:
        return []
    found = pruning_findings(validation, validation_before, "validation")
    stale = ", with the batch statistics of before" if info.metrics.get("stale_statistics") else ""
    return [f"{finding} (measured before any further training{stale})" for finding in found]


def _read_fit(reader: RecordingReader, name: str, store: Path | StoreUrl) -> Fit:
    if name not in reader.fits:
        raise MismatchError(
            f"{store}",
            expected=f"a fit named {name}",
            found=", ".join(reader.fits) or "no fit",
            remedy="run `causalprune fit-gamma` first, or name a --fit",
        )
    fit = reader.read_fit(name)
    evidence = fit.attributes["evidence"]
    # The authors' solver is followed by the name of its variant.
    solver: Solver = SOLVERS.load(evidence["solver"].partition(" ")[0])
    if solver.certifies and not evidence["certified"]:
        raise MismatchError(
            f"fit {name} in {store}",
            expected="a certified fit",
            found=f"one that the solver gave up, at a relative gap of {evidence['relative_gap']:.3g}",
            remedy="fit again with more --max-passes or --memory",
        )
    return fit


def _result(output: CheckpointOutput, info: CheckpointInfo, *, already_done: bool = False) -> ApplyMaskResult:
    layers = [
        {"name": e.name, "total": e.size, "kept": info.kept[e.name], "sparsity": 1 - info.kept[e.name] / e.size}
        for e in info.index
    ]
    return ApplyMaskResult(
        **output.common(already_done=already_done),
        sparsity=info.sparsity,
        layers=layers,
        # A checkpoint of an earlier version lacks what came later.
        **({"candidates": info.index.total, "sparsity_candidates": info.sparsity} | _NOTHING_KNOWN | info.metrics),
    )
