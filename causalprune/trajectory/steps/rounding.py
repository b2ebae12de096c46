"""What rounding takes of recorded losses and changes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ROUNDINGS = 16
"""By how many units in the last place a loss may be off, relative to a loss above 1."""

TOLERABLE_VANISHED = 0.1
"""A larger share of vanished changes is worth a warning."""


def vanished_share(noted: Mapping[str, Any]) -> float | None:
    """Share of the changes that vanished in the rounding of the weights; None if none were counted.

    Args:
        noted: What a recording has noted: ``vanished``, with the columns that lost their change and all columns with a
            gradient, for each counted row.
    """
    counts = list(noted.get("vanished", {}).values())
    pushed = sum(int(count) for _, count in counts)
    return sum(int(lost) for lost, _ in counts) / pushed if pushed else None


def vanished_finding(share: float | None) -> str:
    """Say that many changes of a recording were lost in rounding; empty if it were few.

    Args:
        share: Of the changes; None if they weren't counted.
    """
    if share is None or share <= TOLERABLE_VANISHED:
        return ""
    return (
        f"{share:.0%} of the recorded changes vanished in the rounding of the weights, and with them their gradients: "
        "record with a larger `lr`, or with `hold`"
    )
