"""``repair``: set the kept weights of a pruned network so that its layers compute again what the dense one's did."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from causalprune.base.compute.inputs import count_of
from causalprune.base.compute.precision import full_precision
from causalprune.base.compute.runtime import resolve_device
from causalprune.base.errors import CorruptError, MismatchError
from causalprune.base.paths import RunPaths, StoreUrl
from causalprune.base.progress import SILENT, Reporter
from causalprune.base.units import Interval
from causalprune.commands._checkpoint_output import CheckpointOutput
from causalprune.commands._network import load_network, set_up, training_inputs
from causalprune.commands._output import StageResult, check_pair_distinct
from causalprune.commands.layer_statistics.stored import ROLE, StoredStatistics, find_statistics
from causalprune.config.repair import RepairConfig
from causalprune.models.checkpoint import Checkpoint, CheckpointInfo
from causalprune.pruning.reconstruction import reconstruct_layers
from causalprune.pruning.repair import RepairedLayer, layers_to_repair, repair_layers


@dataclass(frozen=True, kw_only=True)
class RepairResult(StageResult):
    """Result of repair.

    Attributes:
        samples: Training samples that were used, or on which the statistics were measured.
        from_statistics: Whether it was repaired from statistics of the dense network's layers, without data.
        layers: ``name``, and ``before`` and ``after``: the squared difference to the dense layer's outputs, relative
            to their variance, which may be above 1; in the order of the repair.
        sparsity: Fraction of prunable weights that are pruned.
    """

    samples: int
    layers: list[dict[str, Any]]
    sparsity: float
    from_statistics: bool = False


@full_precision()
def repair(config: RepairConfig, reporter: Reporter = SILENT) -> RepairResult:
    """Repair the network of a checkpoint.

    By :func:`causalprune.pruning.repair.repair_layers`, or without data by
    :func:`causalprune.pruning.reconstruction.reconstruct_layers`.

    Args:
        config: Which checkpoint, the dense one that it comes from, and from how many samples.
        reporter: Shows progress; silent when left out.

    Returns:
        How near each layer was to the dense network's before and is now.

    Raises:
        CausalpruneError: See :mod:`causalprune.base.errors` for the family.
    """
    run = RunPaths(config.run)
    source = config.checkpoint or run.pruned
    original = config.dense or (run.recorded if config.from_statistics else run.dense)
    output = CheckpointOutput(stage="repair", config=config, default=run.repaired)
    check_pair_distinct(output.path, source, original)
    pruned = output.load_checkpoint(source, made_by="apply-mask")
    whole = output.load_dense(original, pruned, source)
    stored = _statistics(config.store or run.store, whole, original) if config.from_statistics else None
    if stored is not None:
        output.inputs[ROLE] = stored.kept.digest
    with output.exclusive():
        done = output.finished()
        if done is not None:
            return output.publish(_result(output, done, already_done=True))
        if stored is None:
            device, data, model, mask = set_up(pruned, source, config)
            batches = training_inputs(
                data,
                device,
                count=config.samples,
                batch_size=config.batch_size,
                seed=config.seed,
                num_workers=config.num_workers,
            )
            samples, solve = sum(map(count_of, batches)), partial(repair_layers, batches=batches)
        else:
            device = resolve_device(config.device)
            model, mask = load_network(pruned, source, device, trust_code=config.trust_code)
            samples, solve = stored.samples, partial(reconstruct_layers, statistics=stored.layers)
        dense, _ = load_network(whole, original, device, trust_code=config.trust_code)
        names = layers_to_repair(mask)
        layers: list[RepairedLayer] = []
        saved = output.resume(reporter, lambda state: state.info.data_fingerprint == pruned.info.data_fingerprint)
        if saved is not None:
            layers = _layers(saved, set(names))
            model.load_state_dict(saved.weights)
        info = replace(pruned.info, position={}, metrics={})
        every, last_save, since = Interval.parse(config.checkpoint_every), time.monotonic(), 0
        with reporter.task(output.stage, len(names)) as bar:
            bar.advance(len(layers))
            left = [name for name in names if name not in {layer.name for layer in layers}]
            for layer in solve(model, dense, mask, ridge=config.ridge, names=left):
                layers.append(layer)
                bar.advance(1)
                bar.describe(layer.name)
                since += 1
                due = since >= every.steps or time.monotonic() - last_save >= every.seconds
                if (output.stop or due) and len(layers) < len(names):
                    header = replace(info, position={"layers": [asdict(layer) for layer in layers]})
                    output.save_progress(Checkpoint(header, model.state_dict(), mask))
                    last_save, since = time.monotonic(), 0
                    if output.stop:
                        raise output.stop.error(f"{len(layers)} of {len(names)} layers saved")
        metrics = {"samples": samples, "layers": [asdict(layer) for layer in layers]}
        repaired = output.save(Checkpoint(replace(info, metrics=metrics), model.state_dict(), mask))
        return output.publish(_result(output, repaired))


def _statistics(store: Path | StoreUrl, dense: Checkpoint, source: Path) -> StoredStatistics:
    """What a store has of the dense network's layers.

    Raises:
        MismatchError: It has nothing of this network.
    """
    stored, reason = find_statistics(store, dense)
    if stored is None:
        raise MismatchError(
            f"{store}",
            expected=f"layer statistics of {source}",
            found=reason or "none",
            remedy="name `dense` and `store` of a recording with `record.layer_statistics`, or repair from samples",
        )
    return stored


def _layers(saved: Checkpoint, known: set[str]) -> list[RepairedLayer]:
    """The layers that an interrupted attempt had repaired."""
    try:
        layers = [RepairedLayer(**layer) for layer in saved.info.position["layers"]]
        if not {layer.name for layer in layers} <= known:
            raise ValueError("a layer of another mask")
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptError("saved state", expected="the repaired layers", found=f"{error}"[:100]) from error
    return layers


def _result(output: CheckpointOutput, info: CheckpointInfo, *, already_done: bool = False) -> RepairResult:
    return RepairResult(
        **output.common(already_done=already_done),
        samples=info.metrics["samples"],
        layers=info.metrics["layers"],
        sparsity=info.sparsity,
        from_statistics=output.config.from_statistics,
    )
