"""Prune a network in memory: what goes with it in a store, and the choice made on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from causalprune.base.compute.inputs import Inputs, samples_between, shape_of
from causalprune.base.errors import MismatchError, UsageError
from causalprune.base.options import require
from causalprune.base.paths import StoreUrl
from causalprune.base.progress import logger
from causalprune.base.specs import ModelSpec
from causalprune.base.units import parse_bytes
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex
from causalprune.models.prunable import lacking_layers
from causalprune.models.wrappers import named_parameters, unwrapped
from causalprune.pruning.criteria import load_criterion
from causalprune.pruning.criterion import Criterion
from causalprune.pruning.dead_ends.finder import DeadEnds
from causalprune.pruning.layer_statistics import DrawnLoss, LayerStatistics, layer_statistics
from causalprune.pruning.names import check_mask_granularity
from causalprune.pruning.network.choice import Choice, choose_weights, untrained_tensors
from causalprune.pruning.network.named_layers import NamedLayers, require_recorded
from causalprune.pruning.network.pattern import Pattern, require_alone
from causalprune.pruning.network.samples import Samples, batches_of
from causalprune.pruning.removable import prunable_producers
from causalprune.trajectory import Fit, RecordingReader, Store

_TRIED = 32
"""Samples on which it is tried out whether channels can be removed, and which weights reach an output."""


@dataclass(frozen=True, eq=False)
class PruningTask:
    """A network to prune, and the recording of it that a criterion reads.

    Attributes:
        model: The network.
        criterion: What orders its weights.
        mask: What is pruned so far.
        store: Where the recording is; None without one.
        reader: The recording; None without one.
    """

    model: nn.Module
    criterion: Criterion
    mask: Mask
    store: Store | None
    reader: RecordingReader | None

    @classmethod
    def of(
        cls,
        model: nn.Module,
        store: str | Path | StoreUrl | Store | None,
        *,
        criterion: str | Criterion,
        recording: str | None = None,
        mask: Mask | None = None,
        prune: str | Iterable[str] = (),
        allow_other_weights: bool = False,
    ) -> PruningTask:
        """Open the store, and check that it goes with the network and the criterion.

        What is prunable says the store, else the mask, else the network; ``prune`` names more.

        Raises:
            UsageError: No such criterion; a criterion that reads a recording, and no store; a pattern that matches
                nothing, or what wasn't recorded.
            MismatchError: The store of another network, or of other weights; a recording that can't serve the
                criterion; another mask than the recording's.
            DataError: No store there.
        """
        chosen = criterion if isinstance(criterion, Criterion) else load_criterion(criterion)
        if store is None:
            if chosen.reads_recording:
                raise UsageError(
                    "`store`",
                    expected=f"a recording of this network, which criterion {chosen.name} reads",
                    found="none",
                    remedy="record the loop with causalprune.Recorder, or choose a criterion such as magnitude",
                )
            so_far = Mask.so_far(model, mask, prune)
            _warn(lacking_layers(so_far.index, model, "the mask"))
            return cls(model, chosen, so_far, None, None)
        opened = store if isinstance(store, Store) else Store.open(store)
        index = opened.index
        if not index.goes_with(model):
            opened.require_index(ParameterIndex.from_model(model))
        whole = index.extended(model, prune)
        if chosen.reads_recording:
            require_recorded(index, whole, f"{opened.path}")
        _warn(lacking_layers(whole, model, f"{opened.path}"))
        reader = opened.recording(recording)
        if mask is not None and not (_tensors(mask.index) == _tensors(index) and reader.has_columns_of(mask.numpy())):
            raise MismatchError(
                "`mask`",
                expected=f"the one that recording {reader.path} was made with",
                found="another",
                remedy="record with Recorder(…, mask=mask)",
            )
        recorded = mask or Mask.from_numpy(index, reader.kept)
        if chosen.reads_recording:
            chosen.require(reader.info.update_rule, reader.learning_rates.extremes)
            _require_own_weights(reader, model, recorded, allow_others=allow_other_weights)
        if chosen.reads_gamma and reader.no_causal_reading:
            logger.warning("%s", reader.no_causal_reading)
        return cls(model, chosen, recorded.within(whole), opened, reader)

    def prune(
        self,
        fit: Fit | None,
        *,
        sparsity: float | None,
        pattern: str | None,
        scope: str,
        granularity: str,
        keep: Iterable[str],
        layer_sparsity: Mapping[str, float],
        prune_frozen: bool,
        inputs: Samples | None,
        samples: int,
        drawn_loss: DrawnLoss,
        ridge: float,
        first_order: bool,
        exponent: float | None,
        dead_ends: str | None,
        seed: int,
        memory: str,
    ) -> Mask:
        """Choose the weights, and set them to 0; see :func:`causalprune.api.prune`."""
        criterion, index = self.criterion, self.mask.index
        criterion.check_options(exponent=exponent, first_order=first_order)
        require("`granularity`", granularity, check_mask_granularity)
        require_alone(pattern, sparsity, scope, granularity, layer_sparsity)
        if sparsity is None and pattern is None and criterion.name != "gamma":
            raise UsageError(
                "`sparsity`",
                expected="a number in [0, 1); none only with `criterion=gamma`, for γ = 0, or with `pattern`",
                found="none",
            )
        groups = None if pattern is None else Pattern.parse(pattern)
        said = self.reader.untrained if self.reader is not None else ()
        unrecorded = self.reader.info.left_out if self.reader is not None and criterion.reads_recording else ()
        untrained = [] if prune_frozen else untrained_tensors(self.model, index, said)
        frozen = [entry.name for entry in index if entry.name in {*untrained, *unrecorded}]
        named = NamedLayers.find(index, [keep] if isinstance(keep, str) else keep, layer_sparsity.items(), frozen)
        if groups is not None and "layers" not in criterion.needs:
            # Otherwise what can't be measured is left alone, and known only later.
            groups.require_rows(index, {*frozen, *named.keep})
        single = granularity == "parameter" and sparsity is not None
        finds = criterion.finds_dead_ends(dead_ends, ranks_weights=single)
        if finds and inputs is None and dead_ends is None:
            logger.info("dead ends are ranked by their scores: without `inputs` nothing shows them")
            finds = False
        batches = self._batches(inputs, samples, granularity, finds_dead_ends=finds)
        producers, inseparable = self._producers(granularity, batches)
        layers: dict[str, LayerStatistics] | None = None
        if "layers" in criterion.needs:
            measured = layer_statistics(unwrapped(self.model), index, batches, drawn_loss, seed=seed)
            layers = {name: layer.to("cpu") for name, layer in measured.items()}
        choice: Choice = choose_weights(
            criterion,
            self._theta(),
            self.mask,
            sparsity=sparsity,
            pattern=groups,
            named=named,
            frozen=frozen,
            unrecorded=unrecorded,
            reader=self.reader,
            fit=fit,
            layers=layers,
            scope=scope,
            granularity=granularity,
            producers=producers,
            dead_ends=DeadEnds(unwrapped(self.model), index, batches[0]) if finds else None,
            ridge=ridge,
            first_order=first_order,
            exponent=exponent,
            device=self._device(),
            seed=seed,
            max_bytes=parse_bytes(memory),
        )
        _warn(choice.remarks(granularity, sparsity, inseparable))
        if choice.reconnected is not None:
            logger.info("weights kept instead of dead ends, which reach no output: %d", choice.reconnected)
        choice.apply_(self.model)
        return choice.selection.mask

    def _theta(self) -> np.ndarray:
        """(P,) float32 the weights, on the CPU."""
        flat = torch.empty(self.mask.index.total)
        return self.mask.index.flatten(named_parameters(self.model), out=flat).numpy()

    def _device(self) -> str:
        """That of the network, where float64 is to be had on it."""
        device = next(iter(named_parameters(self.model).values())).device
        return str(device) if device.type == "cuda" else "cpu"

    def _batches(
        self, inputs: Samples | None, samples: int, granularity: str, *, finds_dead_ends: bool
    ) -> list[Inputs]:
        """The inputs on which something is measured; none if nothing is."""
        measures = "layers" in self.criterion.needs
        if not (measures or finds_dead_ends) and granularity in ("parameter", "layer"):
            return []
        if inputs is None:
            measured = f"criterion {self.criterion.name} measures its layers"
            shown = "reach an output" if finds_dead_ends else "can be pruned"
            what = measured if measures else f"it shows which {granularity}s {shown}"
            raise UsageError(
                "`inputs`",
                expected=f"inputs of the network, on which {what}",
                found="none",
                remedy="pass a tensor of inputs or a DataLoader",
            )
        return batches_of(inputs, samples if measures else min(samples, _TRIED), unwrapped(self.model))

    def _producers(
        self, granularity: str, batches: Sequence[Inputs]
    ) -> tuple[Sequence[Sequence[int]] | None, list[str]]:
        """What may be pruned as a whole, and the names of the tensors whose channels can't be removed."""
        if granularity in ("parameter", "layer"):
            return None, []
        first = samples_between(batches[0], 0, _TRIED)
        model = unwrapped(self.model)
        modes = [(module, module.training) for module in model.modules()]
        spec = ModelSpec(name=type(model).__name__, input_shape=shape_of(first), num_outputs=1)
        try:
            producers, stuck = prunable_producers(granularity, model, self.mask.index, spec, first)
        finally:
            for module, mode in modes:
                module.training = mode
        return producers, [self.mask.index.entries[number].name for family in stuck for number in family]


def _tensors(index: ParameterIndex) -> list[tuple[str, tuple[int, ...]]]:
    return [(entry.name, entry.shape) for entry in index]


def _warn(messages: Iterable[str]) -> None:
    for message in messages:
        logger.warning("%s", message)


def _require_own_weights(reader: RecordingReader, model: nn.Module, mask: Mask, *, allow_others: bool) -> None:
    """Check that a recording started or ended with the weights of a network."""
    keep = mask.tensors()
    weights: dict[str, Any] = {
        name: parameter.detach().where(keep[name].to(parameter.device), 0.0)
        for name, parameter in named_parameters(model).items()
        if name in keep
    }
    found = reader.foreign({mask.index.digest(weights)})
    if found == "unknown":
        logger.warning("recording %s doesn't say of which weights it is", reader.path)
    elif found and not allow_others:
        raise MismatchError(
            f"weights of {type(unwrapped(model)).__name__}",
            expected=f"those that recording {reader.path} started or ended with",
            found=found,
            remedy="prune before any further training, record again, or pass `allow_other_weights=True`",
        )
