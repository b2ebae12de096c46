"""Options of ``report``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from causalprune.base.options import option, writable
from causalprune.config.shared import OutputOptions


@dataclass(frozen=True, kw_only=True)
class ReportConfig(OutputOptions):
    """Make a page of what a sweep or a run found: curves, phase shift, layers, γ, overlap, losses, curvature.

    The page is one HTML file that needs nothing else, not even a network: its charts can be zoomed and lines hidden.
    Beside it lie the pictures as PNG files and the tables as CSV files. A sweep that is still going on is shown as far
    as it has come; a report that exists is replaced. Where a run directory has a sweep, the page is about the sweep.

    Example: causalprune report --run run
    """

    output: Path | None = option(None, "Folder to write [run/report].", affects_result=False, check=writable)
    title: str = option("", "Title of the page [model on data set].")
