"""What measurements say about pruning or training that went wrong, and what to try."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NEAR_BASELINE = 0.1
"""A score this share above the baseline, or this share of what is left above it, is no better than guessing."""

TOLERABLE_LOSS = 0.1
"""Pruning that costs more than this share of the dense network's lead over the baseline cost more than it should."""

Metrics = Mapping[str, Any]

_LESS = (
    "prune to a lower `sparsity`, in more `iterations` with training between them, or by another `criterion`; "
    "train longer afterwards"
)


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


def evaluation_findings(evaluation: Metrics) -> list[str]:
    """What is wrong with a network on the test split, by itself and beside its dense reference."""
    if evaluation.get("sparsity_prunable"):
        return pruning_findings(evaluation, evaluation.get("reference"), "test")
    if not _is_guessing(evaluation):
        return []
    return [f"the network is {_at_baseline(evaluation)} on the test split: it has learned next to nothing"]


def pruning_findings(measured: Metrics | None, dense: Metrics | None, split: str) -> list[str]:
    """What pruning cost, if that is more than it should be.

    Args:
        measured: Metrics of the pruned network.
        dense: Those of the network before, or of the dense one; None if they weren't measured.
        split: What both were measured on.
    """
    if _is_guessing(dense):
        return [
            f"the network is {_at_baseline(dense)} on the {split} split before pruning: it has learned next to "
            "nothing that could be kept; train it better first"
        ]
    if _is_guessing(measured):
        return [f"pruning left nothing: the network is {_at_baseline(measured)} on the {split} split; {_LESS}"]
    score, before = _score(measured), _score(dense)
    if score is None or before is None:
        return []
    lost = (before[0] - score[0]) / (before[0] - before[1])
    if lost <= TOLERABLE_LOSS:
        return []
    return [
        f"pruning cost {lost:.0%} of what the network was better than {_BASELINE[before[2]]}: {before[2]} "
        f"{_shown(before[0], before[2])} → {_shown(score[0], score[2])} on the {split} split, where up to "
        f"{TOLERABLE_LOSS:.0%} is usual; {_LESS}"
    ]


_BASELINE = {"accuracy": "always naming the most frequent class", "R²": "always predicting the mean"}


def _score(metrics: Metrics | None) -> tuple[float, float, str] | None:
    """Score, baseline and name of the score; None without a score."""
    if not isinstance(metrics, Mapping):
        return None
    top1, guessing, r2 = (metrics.get(name) for name in ("top1", "guessing", "r2"))
    if isinstance(top1, int | float) and isinstance(guessing, int | float):
        return top1, guessing, "accuracy"
    return (r2, 0.0, "R²") if isinstance(r2, int | float) else None


def _is_guessing(metrics: Metrics | None) -> bool:
    """Whether a score is within a tenth of the baseline: of itself, or of what is left above it if that is less."""
    found = _score(metrics)
    if found is None:
        return False
    score, baseline, _ = found
    margin = min(baseline, 1 - baseline) if baseline else 1.0
    return score <= baseline + NEAR_BASELINE * margin


def _at_baseline(metrics: Metrics | None) -> str:
    found = _score(metrics)
    assert found is not None
    score, baseline, name = found
    return f"at {name} {_shown(score, name)}, where {_BASELINE[name]} has {_shown(baseline, name)},"


def _shown(score: float, name: str) -> str:
    return f"{score:.2%}" if name == "accuracy" else f"{score:.3g}"
