"""Repair without data: the kept weights of a pruned network from the second moments of the dense network's layers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import nn

from causalprune.base.errors import DataError, MismatchError
from causalprune.models.mask import Mask
from causalprune.pruning.layer_statistics import LayerStatistics
from causalprune.pruning.least_squares import RIDGE, solve
from causalprune.pruning.patches import weight_rows, weights_of
from causalprune.pruning.repair import RepairedLayer, copy_batch_statistics, layers_to_repair, warn_of_unseen


def reconstruct_layers(
    model: nn.Module,
    dense: nn.Module,
    mask: Mask,
    statistics: Mapping[str, LayerStatistics],
    *,
    ridge: float = RIDGE,
    names: Sequence[str] | None = None,
) -> Iterator[RepairedLayer]:
    """Set the kept weights of a pruned network, in place, so that each layer answers the dense network's inputs.

    A layer gets for each output unit o, with kept inputs S,

        w_oS = argmin Σ (w̃_o·u − w_oS·u_S)² + λ‖w_oS − w̄_oS‖² = (G_SS + λI)⁻¹((Gw̃_o)_S + λw̄_oS),

    where u are the inputs that the *dense* network gives the layer, G their second moments, about the mean ū where the
    layer has a bias, w̃ the dense network's weights, w̄ those before the repair, and λ is ``ridge`` times the mean of
    G's diagonal. The bias becomes b̃_o + (w̃_o − w_o)·ū. Running statistics of batch normalization are set to those of
    the dense network. :func:`causalprune.pruning.repair.repair_layers` minimizes the same over the inputs that the
    *pruned* network gives the layer, so that a layer makes up for what those before it do wrong; here none does.

    Source: the reconstruction of layer-wise Optimal Brain Surgeon (Dong et al., arXiv 1705.07565; Frantar & Alistarh,
    arXiv 2208.11580).

    Args:
        model: The pruned network; changed in place, on any device.
        dense: The network that ``statistics`` were measured of; not changed.
        mask: Which weights are kept; pruned ones stay exactly 0.
        statistics: By the name of the weight.
        ridge: See above, at least 0.
        names: Only these of :func:`causalprune.pruning.repair.layers_to_repair`.

    Yields:
        Each layer once it is repaired, in the order of the mask. ``before`` and ``after`` are what the layer misses of
        the dense one's outputs when both get the dense network's inputs.

    Raises:
        MismatchError: The networks differ, or statistics of a layer are missing.
        DataError: Statistics that aren't finite.
        NumericalError: Without a ridge, inputs that don't determine the weights.
    """
    weights, originals = _parameters(model), _parameters(dense)
    kept = mask.tensors()
    copy_batch_statistics(dense, model)
    wanted = layers_to_repair(mask) if names is None else list(names)
    known = [name for name in wanted if name in statistics]
    if wanted and not known:
        raise MismatchError(
            "statistics", expected=f"those of layer {wanted[0]}", found="none", remedy="measure it, too"
        )
    warn_of_unseen([name for name in wanted if name not in statistics])
    for name in known:
        _require_alike(name, weights, originals, statistics)
        weight, original = weights[name], originals[name]
        found, transposed = statistics[name].to(weight.device), mask.index[name].filter_axis == 1
        old, dense_rows, keep = (
            weight_rows(part.to(weight.device), len(found.squares), transposed=transposed)
            for part in (weight, original, kept[name])
        )
        layer = _Layer(found, dense_rows.double(), None if not found.bias else originals[found.bias])
        bias = None if not found.bias else weights[found.bias]
        before = layer.missed(old.double(), bias)
        if not math.isfinite(before):
            raise DataError(f"statistics of layer {name}", expected="finite numbers", found="others")
        new = solve(layer.gram, layer.rows @ layer.gram, old, keep, ridge)
        weight.copy_(weights_of(new, weight.shape, transposed=transposed))
        if bias is not None:
            bias.copy_(layer.bias(new).reshape(bias.shape))
        yield RepairedLayer(name, before, layer.missed(new))


class _Layer:
    """A layer of the dense network, as its statistics show it.

    Attributes:
        gram: (groups, inputs, inputs) G: about the mean if the bias adapts, else about 0.
        rows: (groups, outputs, inputs) w̃.
    """

    def __init__(self, found: LayerStatistics, rows: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.gram, self.rows = found.inputs, rows
        self._means, self._positions = found.means, found.positions
        self._bias = None if bias is None else bias.to(rows.device).double().reshape(rows.shape[:2])
        if found.bias == "":
            # Measured about the mean, but nothing can make up for a change of it.
            self.gram = self.gram + self._positions * found.means[:, :, None] * found.means[:, None]

    def bias(self, rows: torch.Tensor) -> torch.Tensor:
        """(groups, outputs): the best bias beside other weights."""
        assert self._bias is not None
        return self._bias + ((self.rows - rows) @ self._means[..., None])[..., 0]

    def missed(self, rows: torch.Tensor, bias: torch.Tensor | None = None) -> float:
        """E‖y − ŷ‖²/E‖y − ȳ‖² with other weights, and with a bias instead of the best one."""
        change = rows - self.rows
        error = ((change @ self.gram) * change).sum()
        if bias is not None:
            off = bias.to(rows.device).double().reshape(rows.shape[:2]) - self.bias(rows)
            error += self._positions * off.square().sum()
        scale = ((self.rows @ self.gram) * self.rows).sum().item()
        # A layer whose outputs never vary is met exactly by its bias.
        return error.clamp_min(0).item() / (scale or 1.0)


def _parameters(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach() for name, parameter in model.named_parameters(remove_duplicate=False)}


def _require_alike(
    name: str,
    weights: Mapping[str, torch.Tensor],
    originals: Mapping[str, torch.Tensor],
    statistics: Mapping[str, LayerStatistics],
) -> None:
    for one in filter(None, (name, statistics[name].bias)):
        shapes = [tuple(tensors[one].shape) if one in tensors else None for tensors in (weights, originals)]
        if None in shapes or shapes[0] != shapes[1]:
            raise MismatchError(
                f"{one} of the dense network",
                expected=f"shape {shapes[0]}",
                found=f"{shapes[1]}",
                remedy="name the dense network that the pruned one comes from",
            )
