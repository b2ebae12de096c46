"""What ``run --dry-run`` returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from causalprune.commands._output import StageResult


@dataclass(frozen=True, kw_only=True)
class RunForecast(StageResult):
    """Result of ``run --dry-run``.

    Attributes:
        stages: In their order: ``iteration``, from 1, or None for those before and after; ``stage``; ``steps``,
            optimizer steps, None where there are none; ``rows`` and ``columns`` of a recording or a fit; ``bytes``, of
            the files that stay, or of a store until it is discarded; ``saved_bytes``, of states to resume from, at
            most, deleted when the stage is done; ``seconds``, None where nobody knows.
        total_bytes: Of all files that stay.
        peak_bytes: The most on the disk at once, with the saved states.
        existing_bytes: Of the run's files that are there already.
        free_bytes: Free space on the disk of the run directory.
        predicted_seconds: Of all stages whose time is known.
    """

    stages: list[dict[str, Any]]
    total_bytes: int
    peak_bytes: int
    existing_bytes: int
    free_bytes: int
    predicted_seconds: float
