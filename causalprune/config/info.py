"""Options of ``info``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from causalprune.config.shared import RuntimeOptions
from causalprune.options import option


@dataclass(frozen=True, kw_only=True)
class InfoConfig(RuntimeOptions):
    """Say what a store, a checkpoint or a run directory is."""

    path: Path | None = option(None, "Store, checkpoint or run directory [the run directory].", flag="PATH")
    verify: bool = option(False, "Read everything again and compare every checksum.")
