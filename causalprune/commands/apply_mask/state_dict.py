"""``apply-mask --weights``: prune a state dict of PyTorch's by a recording, without its network and without data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from causalprune.base.errors import MismatchError, UsageError
from causalprune.base.files import make_directory, remove_partials
from causalprune.base.json_files import sha256_file
from causalprune.base.locks import FileLock
from causalprune.base.paths import lock_path, mask_path
from causalprune.base.progress import Reporter
from causalprune.commands._output import Work, check_pair_distinct, done_already, require_room_for_mask, write_result
from causalprune.commands._stores import open_store
from causalprune.commands.apply_mask.layers import choice_options, named_layers, target_of
from causalprune.commands.apply_mask.result import ApplyMaskResult, layers_of, metrics_of
from causalprune.config.apply_mask import ApplyMaskConfig, pruned_weights
from causalprune.models.file_pair import named_network, settle, write_pair
from causalprune.models.mask import Mask
from causalprune.models.mask_file import MASKED_STATE_DICT, encode_state_dict, load_mask, read_header
from causalprune.models.state_dict import StateDict, read_state_dict
from causalprune.pruning.criteria import load_criterion
from causalprune.pruning.criterion import Criterion
from causalprune.pruning.network.choice import choose_weights
from causalprune.solver.recording.fit import certified_fit
from causalprune.trajectory import Fit, RecordingReader

_NETWORK_UNKNOWN = "ranked by their scores: beside --weights the network isn't known, which shows them"


def prune_state_dict(config: ApplyMaskConfig, reporter: Reporter) -> ApplyMaskResult:
    """Write a copy of a state dict whose pruned weights are 0, and the mask beside it.

    The store says which tensors are prunable, what is pruned already, and of which weights it is.

    Args:
        config: ``weights`` and ``store``, and what to prune.
        reporter: Passes on warnings.

    Returns:
        The sparsity reached, overall and per layer.

    Raises:
        UsageError: Options that need the network or its data.
        MismatchError: A store of another network, or of other weights.
        CausalpruneError: See :mod:`causalprune.base.errors` for the family.
    """
    assert config.weights is not None
    criterion = load_criterion("gamma" if config.zero else config.criterion)
    criterion.check_options(exponent=config.exponent, first_order=config.first_order)
    _require_no_network(criterion, config)
    output = _output(config)
    mask_file = mask_path(output)
    work = Work(stage="apply-mask", config=config, outputs={"weights": output, "mask": mask_file})
    place = config.store
    assert place is not None
    check_pair_distinct(output, config.weights, *([place] if isinstance(place, Path) else []))
    store = open_store(place)
    reader = store.recording(config.recording)
    state = read_state_dict(config.weights, store.index)
    work.inputs = {"weights": sha256_file(config.weights)}
    work.add_recording(reader)
    mask = _mask_so_far(state, reader, config.weights)
    fit: Fit | None = None
    if criterion.reads_recording:
        criterion.require(reader.info.update_rule, reader.learning_rates.extremes)
        work.warn(reporter, *_foreign(state, mask, reader, config))
    if criterion.reads_gamma:
        work.warn(reporter, *filter(None, [reader.no_causal_reading]))
        fit = certified_fit(reader, config.fit, place)
        work.inputs["fit"] = fit.digest
    make_directory(output.parent)
    with FileLock(lock_path(output)):
        remove_partials(output.parent, output.name, mask_file.name)
        settle(output)
        metrics = _metrics_if_done(work, output, mask_file)
        if metrics is not None:
            return _result(work, load_mask(mask_file), metrics, already_done=True)
        require_room_for_mask(output, overwrite=config.overwrite)
        target, progress = target_of(config)
        unrecorded = reader.info.left_out if criterion.reads_recording else ()
        untrained = () if config.prune_frozen else reader.untrained
        frozen = [entry.name for entry in store.index if entry.name in {*untrained, *unrecorded}]
        choice = choose_weights(
            criterion,
            state.theta().numpy(),
            mask,
            sparsity=target,
            named=named_layers(config, store.index, frozen),
            progress=progress,
            frozen=frozen,
            unrecorded=unrecorded,
            reader=reader,
            fit=fit,
            **choice_options(config),
        )
        work.warn(reporter, *choice.remarks(config.granularity, target))
        selection, metrics = choice.selection, metrics_of(choice, mask, fit if config.zero else None)
        if criterion.finds_dead_ends(config.dead_ends, ranks_weights=config.ranks_weights):
            metrics["dead_ends_unknown"] = _NETWORK_UNKNOWN
        provenance = {
            "stage": work.stage,
            "identity": work.identity,
            "config": config.identity_fields(),
            "inputs": work.inputs,
        }
        header = {"kind": MASKED_STATE_DICT, "metrics": metrics, **provenance}
        weights = encode_state_dict(state.pruned(selection.mask, choice.weights()), header)
        write_pair(output, weights, selection.mask, provenance)
        return _result(work, selection.mask, metrics)


def _output(config: ApplyMaskConfig) -> Path:
    """Where the weights go."""
    assert config.weights is not None
    output = config.output or pruned_weights(config.weights)
    if output.suffix != ".safetensors":
        raise UsageError("`output`", expected="a file name that ends in .safetensors", found=f"{output}")
    return output


def _require_no_network(criterion: Criterion, config: ApplyMaskConfig) -> None:
    """Refuse what can't be computed from a state dict and a recording."""
    remedy = "use causalprune.prune(model, …, inputs=…) in Python, or a checkpoint"
    if "layers" in criterion.needs:
        expected = "one that measures no layers, beside `weights`"
        raise UsageError("`criterion`", expected=expected, found=criterion.name, remedy=remedy)
    if config.dead_ends == "first":
        expected = "scored beside `weights`, because the network shows which weights reach an output"
        raise UsageError("`dead_ends`", expected=expected, found="first", remedy=remedy)
    if config.granularity not in ("parameter", "layer"):
        expected = "parameter or layer beside `weights`, because the others need the network"
        raise UsageError("`granularity`", expected=expected, found=config.granularity, remedy=remedy)


def _mask_so_far(state: StateDict, reader: RecordingReader, path: Path) -> Mask:
    """What the recording says is pruned; the file may say the same, or nothing."""
    if state.mask.num_pruned and not reader.has_columns_of(state.mask.numpy()):
        raise MismatchError(
            f"masks in {path}",
            expected=f"the mask that recording {reader.name} was made with",
            found="another",
            remedy="name the `weights` and the `store` of the same network",
        )
    return state.mask if state.mask.num_pruned else Mask.from_numpy(reader.index, reader.kept)


def _foreign(state: StateDict, mask: Mask, reader: RecordingReader, config: ApplyMaskConfig) -> list[str]:
    """Check that the recording is one of these weights; returns what to warn of."""
    kept = {name: state.tensors[name].where(keep, 0.0) for name, keep in mask.tensors().items()}
    found = reader.foreign({reader.index.digest(kept)})
    if found == "unknown":
        return [f"recording {reader.path} doesn't say of which weights it is"]
    if found and not config.allow_other_weights:
        raise MismatchError(
            f"{config.weights}",
            expected=f"the weights that recording {reader.path} started or ended with",
            found=found,
            remedy="save the state dict right after the recording, or pass `allow_other_weights`",
        )
    return [f"recording {reader.path} is of other weights than {config.weights}'s"] if found else []


def _metrics_if_done(work: Work, output: Path, mask: Path) -> dict[str, Any] | None:
    """What the very same work found before; None if it has to be done."""
    if not output.exists() or work.config.overwrite:
        return None
    header = read_header(output)
    known = {"stage": "", "identity": "", "config": {}, "inputs": {}} | header
    done_already(
        f"{output}",
        True,
        header.get("kind") == MASKED_STATE_DICT and work.is_done_by(known),
        remedy="pass `overwrite` to replace it, or name another `output`",
    )
    # Earlier versions didn't say of which weights a mask is.
    is_whole = mask.exists() and named_network(mask) in ("", sha256_file(output))
    return dict(header["metrics"]) if is_whole else None


def _result(work: Work, mask: Mask, metrics: dict[str, Any], *, already_done: bool = False) -> ApplyMaskResult:
    result = ApplyMaskResult(
        **work.common(already_done=already_done),
        sparsity=mask.sparsity,
        layers=layers_of(mask.index, {layer.name: layer.kept for layer in mask.per_layer()}),
        **metrics,
    )
    path = Path(str(work.outputs["weights"]))
    path = path.with_name(path.name + ".json")
    if not (already_done and path.exists()):
        write_result(path, result.to_json())
    return result
