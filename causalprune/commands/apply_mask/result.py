"""The result of ``apply-mask``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from causalprune.commands._output import StageResult
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterIndex
from causalprune.pruning.network.choice import Choice
from causalprune.trajectory import Fit


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
        unmeasured: Tensors that are left alone because the criterion measures layers, and not these.
        kept_dense: Tensors that ``--keep`` leaves alone.
        inseparable: Tensors whose channels can't be removed one by one and are left alone.
        unmoved: Candidates that no recorded step moved: gradient 0, or steps lost in rounding. None if unknown.
        reconnected: How many kept weights took the place of dead ends, which reach no output; None where these weren't
            looked for.
        layer_statistics: ``from``, whether the statistics of the layers that the criterion reads come from the
            ``store`` or from ``samples``; ``samples``, on how many they were measured. None if it reads none.
        lasso: With ``--zero``: ``nonzero`` of the ``columns`` that the fit kept, ``rows``, and ``most``, how many it
            can keep at all (None without such a bound); else None.
        unscored: Candidates that are left alone because they have no column in the recording that the criterion reads.
        not_prunable: What of the network isn't prunable, in words; empty if all is, or if nobody knows.
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
    reconnected: int | None = None
    layer_statistics: dict[str, Any] | None = None
    unmeasured: Sequence[str] = ()
    unscored: int = 0
    not_prunable: str = ""
    stale_statistics: bool = False
    validation: dict[str, Any] | None = None
    validation_before: dict[str, Any] | None = None


def layers_of(index: ParameterIndex, kept: Mapping[str, int]) -> list[dict[str, Any]]:
    """``layers`` of a result, from the number of kept weights by name."""
    return [
        {"name": e.name, "total": e.size, "kept": kept[e.name], "sparsity": 1 - kept[e.name] / e.size} for e in index
    ]


def metrics_of(choice: Choice, before: Mask, fit: Fit | None, inseparable: Sequence[str] = ()) -> dict[str, Any]:
    """What a result says of a choice of weights, JSON-ready.

    Args:
        choice: The choice.
        before: The mask before it.
        fit: The fit, if the rule γ = 0 chose.
        inseparable: Tensors whose channels can't be removed one by one.
    """
    selection = choice.selection
    return {
        "sparsity_before": before.sparsity,
        "rescued": list(selection.guarded),
        "candidates": selection.candidates,
        "sparsity_candidates": selection.sparsity,
        "frozen": list(choice.frozen),
        "unmeasured": list(choice.unmeasured),
        "kept_dense": list(choice.kept_dense),
        "inseparable": list(inseparable),
        "unmoved": choice.unmoved,
        "reconnected": choice.reconnected,
        "lasso": None if fit is None else _kept_by_lasso(fit),
    } | ({"unscored": choice.unscored} if choice.unscored else {})


def _kept_by_lasso(fit: Fit) -> dict[str, Any]:
    """How many columns a fit has kept, and the most that a Lasso can: one per row."""
    evidence, lags = fit.attributes["evidence"], len(fit.arrays["gamma"]) > 1
    separate = max(1, len(fit.attributes["layers"]))
    bound = evidence["num_rows"] * separate if evidence["l1_ratio"] == 1 else None
    return {
        "nonzero": evidence["num_nonzero"],
        "columns": evidence["num_columns"],
        "rows": evidence["num_rows"],
        "most": bound,
        "what": "groups" if fit.attributes["granularity"] != "parameter" else "columns" if lags else "weights",
    }
