"""Options of ``info``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from causalprune.base.errors import UsageError
from causalprune.base.options import option, png_file
from causalprune.base.paths import StoreUrl
from causalprune.base.units import check_range
from causalprune.config.recipes.authors import check_recipe
from causalprune.config.shared import RuntimeOptions, store_option


@dataclass(frozen=True, kw_only=True)
class InfoConfig(RuntimeOptions):
    """Say what a store, a checkpoint or a run directory is.

    Example: causalprune info run
    """

    path: Path | StoreUrl | None = store_option("Store, checkpoint or run directory [the run directory].", flag="PATH")
    verify: bool = option(False, "Read everything again and compare every checksum.")
    rows: str | None = option(None, "Of a store: show rows such as 0:10 of the last recording.", check=check_range)
    param: str | None = option(None, "Of a store: show what a parameter such as fc1.weight did.", metavar="NAME")
    plot: Path | None = option(
        None,
        "Of a store: draw loss change and step length, or with --fit its path, into this PNG file.",
        check=png_file,
    )
    fit: str | None = option(None, "Which fit of the last recording --plot draws.", metavar="NAME")
    recipe: str = option("", "Say what run --recipe NAME sets, and where each value comes from.", check=check_recipe)

    def check(self) -> None:
        """Reject a recipe beside a path."""
        super().check()
        if self.recipe and self.path is not None:
            raise UsageError("--recipe", expected="no path beside it", found=f"{self.path}")
