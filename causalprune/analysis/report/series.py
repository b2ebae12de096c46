"""The table of a sweep as curves: a block per combination of the other settings, in it a series per criterion."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import numpy as np
import numpy.typing as npt

from causalprune.analysis.report.phase import Drop, PhaseShift, find_drop, phase_shift
from causalprune.base.specs import Headline
from causalprune.base.units import grouped, moments

Row = dict[str, Any]


@dataclass(frozen=True)
class Series:
    """One criterion's rows in a block.

    Attributes:
        criterion: Its name.
        rows: Sorted by seed, then by sparsity.
    """

    criterion: str
    rows: tuple[Row, ...]

    @property
    def sparsities(self) -> list[float]:
        """The sparsities of the rows, ascending."""
        return sorted({row["sparsity"] for row in self.rows})

    @property
    def seeds(self) -> list[int]:
        """The seeds of the rows, ascending."""
        return sorted({row["seed"] for row in self.rows})

    def at(self, sparsity: float) -> list[Row]:
        """The rows of one sparsity, by seed."""
        return [row for row in self.rows if row["sparsity"] == sparsity]

    def values(self, key: str, sparsity: float) -> list[float]:
        """A column's numbers at one sparsity, by seed."""
        return [row[key] for row in self.at(sparsity) if row.get(key) is not None]

    def largest_eigenvalues(self, space: str, sparsity: float) -> list[float]:
        """The largest Hessian eigenvalue over ``unpruned`` or ``all`` parameters at one sparsity, by seed."""
        return [row["hessian"][space]["eigenvalues"][0] for row in self.at(sparsity) if row.get("hessian")]

    def phase_shift(self) -> PhaseShift | str:
        """Where the score falls, over the seeds in which it does; or in words why it falls in none."""
        found: list[Drop | str] = []
        for seed in self.seeds:
            rows = [row for row in self.rows if row["seed"] == seed and row["score"] is not None]
            if not rows:
                continue
            dense, height = rows[0]["dense"], Headline.of(rows[0]).height
            found.append(
                find_drop(
                    [row["sparsity"] for row in rows],
                    [height(row["score"]) for row in rows],
                    ceiling=-math.inf if dense is None else height(dense),
                    floor=height(rows[0]["guessing"]),
                )
            )
        return phase_shift(found) if found else "no scores"


@dataclass(frozen=True)
class Block:
    """Rows to compare with each other, because they differ in sparsity, criterion and seed only.

    Attributes:
        settings: The other settings.
        series: One per criterion, in the order of the grid.
    """

    settings: dict[str, Any]
    series: tuple[Series, ...]

    @property
    def rows(self) -> list[Row]:
        """The rows of all series."""
        return [row for series in self.series for row in series.rows]

    @property
    def sparsities(self) -> list[float]:
        """The sparsities of all rows, ascending."""
        return sorted({row["sparsity"] for row in self.rows})

    def dense(self, key: str) -> list[Any]:
        """A column that describes the networks before pruning: one value per seed that has it, by seed."""
        found = {row["seed"]: row[key] for row in self.rows if row.get(key) is not None}
        return [found[seed] for seed in sorted(found)]

    def dense_eigenvalues(self) -> list[float]:
        """The largest Hessian eigenvalue of the networks before pruning, by seed."""
        return [hessian["all"]["eigenvalues"][0] for hessian in self.dense("dense_hessian")]

    def eigenvalue_lines(self) -> list[dict[str, Any]]:
        """Mean and spread over the seeds of the largest Hessian eigenvalue, as far as it was measured.

        Returns:
            Dictionaries of ``criterion``, ``sparsity``, and for the ``unpruned`` and for ``all`` parameters the result
            of :func:`moments`. The first one is for the networks before pruning: no criterion, and both the same.
        """
        dense = moments(self.dense_eigenvalues())
        lines: list[dict[str, Any]] = [{"criterion": None, "sparsity": 0.0, "unpruned": dense, "all": dense}]
        for series in self.series:
            for sparsity in series.sparsities:
                spaces = {s: moments(series.largest_eigenvalues(s, sparsity)) for s in ("unpruned", "all")}
                lines.append({"criterion": series.criterion, "sparsity": sparsity, **spaces})
        return [line for line in lines if line["all"]["mean"] is not None]

    def coefficient_lines(self) -> list[dict[str, Any]]:
        """What each coefficient prunes, where every γ = 0 is pruned; nothing otherwise.

        Returns:
            In the order of the grid: ``coefficient``, the settings; ``pruned``, ``score`` and ``nonzero``, each the
            :func:`moments` over the seeds of the share pruned at the end, the score, and the nonzero γ of the first
            fit.
        """
        lines = []
        for own, rows in grouped([row for row in self.rows if "coefficient" in row], ["coefficient"]):
            fits = [row["iterations_log"][0].get("num_nonzero") for row in rows]
            lines.append(
                {
                    **own,
                    "pruned": moments([row["sparsity_reached"] for row in rows]),
                    "score": moments([row["score"] for row in rows if row["score"] is not None]),
                    "nonzero": moments([found for found in fits if found is not None]),
                }
            )
        return lines

    @property
    def headline(self) -> Headline:
        """What the scores are."""
        return Headline.of(self.rows[0])


COEFFICIENTS = ("fit-gamma.alpha", "fit-gamma.alpha_ratio")
"""The settings that say how much is pruned where every γ = 0 is."""


def blocks_of(rows: Sequence[Row], names: Sequence[str]) -> list[Block]:
    """Sort the rows of a table into blocks.

    Rows without a sparsity, of a sweep that prunes every γ = 0, get the mean over the seeds of what was pruned, and
    ``coefficient``, the settings of :data:`COEFFICIENTS` along which they make a curve.

    Args:
        rows: In the order of the grid.
        names: The settings other than sparsity, criterion and seed.
    """
    if rows and "sparsity" not in rows[0]:
        along = [name for name in names if name in COEFFICIENTS]
        rows = [
            {**row, "sparsity": _mean_sparsity(of_one), "coefficient": {n: row[n] for n in along}}
            for _, of_one in grouped(rows, [*names, "criterion"])
            for row in of_one
        ]
        names = [name for name in names if name not in along]
    return [
        Block(
            settings,
            tuple(
                Series(own["criterion"], tuple(sorted(of_one, key=lambda r: (r["seed"], r["sparsity"]))))
                for own, of_one in grouped(found, ["criterion"])
            ),
        )
        for settings, found in grouped(rows, names)
    ]


def _mean_sparsity(rows: Sequence[Row]) -> float:
    """The mean of what was pruned; what is left has four digits, so that a table needs no more."""
    kept = mean(1 - row["sparsity_reached"] for row in rows)
    return 1 - float(f"{kept:.4g}")


def jaccard(first: npt.NDArray[np.bool_], second: npt.NDArray[np.bool_]) -> float:
    """|A ∩ B| / |A ∪ B| of two sets of kept weights; 1 if both are empty.

    Two random sets with a share k of all weights each have k/(2 − k).
    """
    union = int(np.count_nonzero(first | second))
    return int(np.count_nonzero(first & second)) / union if union else 1.0


def mean_jaccard(masks: list[list[npt.NDArray[np.bool_]]]) -> npt.NDArray[np.float64]:
    """The Jaccard index of each pair of criteria, averaged over the seeds.

    Args:
        masks: For each of C criteria the masks of the same seeds, in the same order.

    Returns:
        (C, C), symmetric, with ones on the diagonal.
    """
    total = np.eye(len(masks))
    for i, first in enumerate(masks):
        for j, second in enumerate(masks[:i]):
            total[i, j] = total[j, i] = np.mean([jaccard(a, b) for a, b in zip(first, second, strict=True)])
    return total
