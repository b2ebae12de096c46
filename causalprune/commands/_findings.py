"""What measurements say about pruning or training that went wrong, and what to try."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from causalprune.base.specs import Headline

NEAR_BASELINE = 0.1
"""A score this share above the baseline, or this share of what is left above it, is no better than guessing."""

TOLERABLE_LOSS = 0.1
"""Pruning that costs more than this share of the dense network's lead over the baseline cost more than it should."""

Metrics = Mapping[str, Any]

_FIRST = {
    "": "repair it (`causalprune repair`, in run and sweep `repair`) or train it, then ",
    "posttrain": "train it longer, or ",
    "repair": "",
}
"""What to do first, by what has adapted the kept weights: a training isn't repaired, nor is a repair trained."""

_LESS = "try a lower `sparsity`, more `iterations` or another `criterion`"


def training_findings(trained: Metrics) -> list[str]:
    """What is wrong with a training.

    Args:
        trained: Its ``best_epoch``, 0 if there was none, and ``validation``, metrics on the validation split.
    """
    measured = trained.get("validation")
    if not trained.get("best_epoch") or not _is_guessing(measured):
        return []
    return [
        f"the training ended {_at_baseline(measured)} on the validation split: the network has learned next to "
        "nothing; try another `lr`, more `epochs`, or a look at the data"
    ]


def evaluation_findings(evaluation: Metrics, adapted: str) -> list[str]:
    """What is wrong with a network on the test split, by itself and beside its dense reference.

    Args:
        evaluation: What ``evaluate`` measured.
        adapted: See :func:`pruning_findings`.
    """
    if evaluation.get("sparsity_prunable"):
        return pruning_findings(evaluation, evaluation.get("reference"), "test", adapted)
    if not _is_guessing(evaluation):
        return []
    return [f"the network is {_at_baseline(evaluation)} on the test split: it has learned next to nothing"]


def pruning_findings(measured: Metrics | None, dense: Metrics | None, split: str, adapted: str) -> list[str]:
    """What pruning cost, if that is more than it should be.

    Args:
        measured: Metrics of the pruned network.
        dense: Those of the network before, or of the dense one; None if they weren't measured.
        split: What both were measured on.
        adapted: The stage that has adapted the kept weights since, see
            :func:`causalprune.commands.provenance.lineage.adapted_by`.
    """
    advice = _FIRST[adapted] + _LESS
    if _is_guessing(dense):
        return [
            f"the network is {_at_baseline(dense)} on the {split} split before pruning: it has learned next to "
            "nothing that could be kept; train it better first"
        ]
    if _is_guessing(measured):
        return [f"pruning left nothing: the network is {_at_baseline(measured)} on the {split} split; {advice}"]
    score, before = _Score.of(measured), _Score.of(dense)
    if score is None or before is None:
        return []
    lost = (before.height - score.height) / (before.height - before.floor)
    if lost <= TOLERABLE_LOSS:
        return []
    headline = before.headline
    return [
        f"pruning cost {100 * lost:.0f} % of the lead over {headline.baseline}, {headline.label} "
        f"{headline.shown(before.value)} → {headline.shown(score.value)} on the {split} split; {advice}"
    ]


@dataclass(frozen=True)
class _Score:
    """The headline of some metrics."""

    headline: Headline
    value: float
    baseline: float

    @classmethod
    def of(cls, metrics: Metrics | None) -> _Score | None:
        """None without a score."""
        if not isinstance(metrics, Mapping):
            return None
        headline = Headline.of(metrics)
        needed = [metrics.get(name) for name in (headline.metric, headline.baseline_metric) if name]
        if not all(isinstance(number, int | float) for number in needed):
            return None
        return cls(headline, metrics[headline.metric], headline.baseline_value(metrics))

    @property
    def height(self) -> float:
        return self.headline.height(self.value)

    @property
    def floor(self) -> float:
        return self.headline.height(self.baseline)


def _is_guessing(metrics: Metrics | None) -> bool:
    """Whether a score is within a tenth of the baseline: of itself, or of what is left above it if that is less."""
    found = _Score.of(metrics)
    if found is None:
        return False
    margin = abs(found.floor) or 1.0
    if found.headline.percent:
        margin = min(margin, 1 - found.floor)
    return found.height <= found.floor + NEAR_BASELINE * margin


def _at_baseline(metrics: Metrics | None) -> str:
    found = _Score.of(metrics)
    assert found is not None
    headline = found.headline
    return (
        f"at {headline.label} {headline.shown(found.value)}, where {headline.baseline} has "
        f"{headline.shown(found.baseline)},"
    )
