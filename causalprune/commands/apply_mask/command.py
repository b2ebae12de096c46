"""``apply-mask``: turn a fit, or another criterion, into a mask."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from causalprune.base.compute.inputs import Inputs
from causalprune.base.compute.runtime import resolve_device
from causalprune.base.errors import MismatchError
from causalprune.base.paths import RunPaths
from causalprune.base.progress import SILENT, Reporter
from causalprune.commands._checkpoint_output import CheckpointOutput
from causalprune.commands._findings import pruning_findings
from causalprune.commands._network import among, described_rest, load_network
from causalprune.commands._output import check_pair_distinct
from causalprune.commands._stores import open_store
from causalprune.commands.apply_mask.candidates import frozen_tensors, samples_to_try
from causalprune.commands.apply_mask.layers import choice_options, named_layers, target_of
from causalprune.commands.apply_mask.measuring import BeforeAndAfter, measured_layers, measured_then
from causalprune.commands.apply_mask.result import ApplyMaskResult, layers_of, metrics_of
from causalprune.commands.apply_mask.rewinding import load_earlier
from causalprune.commands.apply_mask.state_dict import prune_state_dict
from causalprune.commands.layer_statistics.stored import ROLE, find_statistics
from causalprune.commands.provenance.lineage import has_stale_statistics, require_own_weights
from causalprune.config.apply_mask import ApplyMaskConfig
from causalprune.models.checkpoint import Checkpoint, CheckpointInfo
from causalprune.models.mask import rewind
from causalprune.models.modes import reset_batchnorm
from causalprune.models.parameters import ParameterIndex
from causalprune.models.prunable import lacking_layers
from causalprune.pruning.channels import probes
from causalprune.pruning.criteria import load_criterion
from causalprune.pruning.dead_ends.finder import DeadEnds
from causalprune.pruning.layer_statistics import LayerStatistics
from causalprune.pruning.network.choice import choose_weights
from causalprune.pruning.network.named_layers import require_recorded
from causalprune.pruning.removable import prunable_producers
from causalprune.solver.recording.fit import certified_fit
from causalprune.training.batch_statistics import averaging_batchnorm

_NOTHING_KNOWN: dict[str, Any] = {"frozen": [], "kept_dense": [], "inseparable": [], "unmoved": None, "lasso": None}


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
    if config.weights is not None:
        return prune_state_dict(config, reporter)
    criterion = load_criterion("gamma" if config.zero else config.criterion)
    if criterion.reweights:
        config.check_no_rewind(criterion.name)
    criterion.check_options(exponent=config.exponent, first_order=config.first_order)
    finds_dead_ends = criterion.finds_dead_ends(config.dead_ends, ranks_weights=config.ranks_weights)
    run = RunPaths(config.run)
    source = config.checkpoint or run.recorded
    output = CheckpointOutput(stage="apply-mask", config=config, default=run.pruned)
    check_pair_distinct(output.path, source)
    checkpoint = output.load_checkpoint(source, made_by="record")
    reader, fit = None, None
    if criterion.reads_recording:
        store_path = config.store or run.store
        store = open_store(store_path)
        checkpoint = among(checkpoint, store.index)
        if store.index.fingerprint != checkpoint.info.index.fingerprint:
            raise MismatchError(
                f"{store_path}",
                expected=f"a recording of {checkpoint.info.model.name} as in {source}",
                found="a store of another model",
                remedy="name the `store` that belongs to the checkpoint",
            )
        reader = store.recording(config.recording)
        output.add_recording(reader)
        criterion.require(reader.info.update_rule, reader.rates_in_gamma.extremes)
        allowed = config.allow_other_weights
        foreign = require_own_weights(reader, checkpoint, run, source, allow_others=allowed)
        acausal = reader.no_causal_reading if criterion.reads_gamma else ""
        output.warn(reporter, *filter(None, [foreign, acausal]))
        if criterion.reads_gamma:
            fit = certified_fit(reader, config.fit, store_path)
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
    with output.exclusive(saves_state=False):
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
                remedy="name the `checkpoint` and the `store` of the same iteration",
            )
        recorded = mask.index
        mask = mask.among(model, config.prune)
        if reader is not None:
            require_recorded(recorded, mask.index, f"{config.store or run.store}")
        output.warn(reporter, *lacking_layers(mask.index, model, f"{source}"))
        measure = BeforeAndAfter.of(checkpoint, source, config)
        before = measure.before(model)
        unrecorded = [] if reader is None else list(reader.info.left_out)
        untrained = [] if config.prune_frozen else frozen_tensors(model, mask, reader, checkpoint)
        frozen = [entry.name for entry in mask.index if entry.name in {*untrained, *unrecorded}]
        named = named_layers(config, mask.index, frozen)
        samples = (
            samples_to_try(checkpoint, source, config) if finds_dead_ends or config.granularity == "channel" else None
        )
        producers, stuck = prunable_producers(config.granularity, model, mask.index, checkpoint.info.model, samples)
        inseparable = [mask.index.entries[number].name for family in stuck for number in family]
        target, progress = target_of(config)
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
        chosen = choose_weights(
            criterion,
            mask.index.flatten(checkpoint.weights).numpy(),
            mask,
            sparsity=target,
            named=named,
            progress=progress,
            frozen=frozen,
            unrecorded=unrecorded,
            reader=reader,
            fit=fit,
            layers=layers,
            producers=producers,
            dead_ends=_dead_ends(model, mask.index, checkpoint, samples) if finds_dead_ends else None,
            **choice_options(config),
        )
        selection = chosen.selection
        output.warn(reporter, *chosen.remarks(config.granularity, target, inseparable))
        if earlier is not None:
            rewind(model, earlier.weights, selection.mask)
        else:
            chosen.apply_(model)
        if config.reset_batchnorm:
            reset_batchnorm(model)
        metrics = metrics_of(chosen, mask, fit if config.zero else None, inseparable) | measured_on
        metrics["not_prunable"] = described_rest(model, mask.index)
        if averaging_batchnorm(model):
            origin = checkpoint if earlier is None else earlier
            changed = config.reset_batchnorm or mask.index.digest(model.state_dict()) != origin.weights_digest
            metrics["stale_statistics"] = changed or has_stale_statistics(origin.info)
        info = replace(checkpoint.info, index=mask.index, position={}, metrics=metrics)
        measured = {"validation": measure.after(model), "validation_before": before}
        saved = output.save(Checkpoint(info, model.state_dict(), selection.mask))
        output.warn(reporter, *_cost(saved, **measured))
        return output.publish(replace(_result(output, saved), **measured))


def _dead_ends(model: nn.Module, index: ParameterIndex, checkpoint: Checkpoint, samples: Inputs | None) -> DeadEnds:
    """What finds the dead ends of a network, by random inputs where the data aren't at hand."""
    return DeadEnds(model, index, probes(model, checkpoint.info.model.input_shape) if samples is None else samples)


def _cost(
    info: CheckpointInfo, validation: dict[str, Any] | None, validation_before: dict[str, Any] | None
) -> list[str]:
    """What to say of a mask that cost more than it should, before any training that may follow."""
    if validation is None:
        return []
    found = pruning_findings(validation, validation_before, "validation", adapted="")
    stale = ", with the batch statistics of before" if info.metrics.get("stale_statistics") else ""
    return [f"{finding} (measured before any further training{stale})" for finding in found]


def _result(output: CheckpointOutput, info: CheckpointInfo, *, already_done: bool = False) -> ApplyMaskResult:
    return ApplyMaskResult(
        **output.common(already_done=already_done),
        sparsity=info.sparsity,
        layers=layers_of(info.index, info.kept),
        # A checkpoint of an earlier version lacks what came later.
        **({"candidates": info.index.total, "sparsity_candidates": info.sparsity} | _NOTHING_KNOWN | info.metrics),
    )
