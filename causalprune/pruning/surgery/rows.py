"""Recorded gradients, each times √d_t, in blocks of columns on a device, and the products with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch

from causalprune.pruning.gradients import GradientMatrix

Positions = npt.NDArray[np.int64]

WIDTH = 4096
"""Columns in a block. It decides the last bits of a sum, so it doesn't depend on how the gradients are stored."""

PARTS = 8
"""Blocks of rows in which a triangular matrix is multiplied, which leaves out most of its zeros."""


@dataclass(frozen=True, eq=False)
class WeightedRows:
    """B = diag(√d)·A, (n, C), read in blocks of :data:`WIDTH` columns.

    Products of n with n rows are taken in float32 within a block and added up in float64; those with a vector are in
    float64.

    Attributes:
        gradients: A, or those of its columns that ``numbers`` says.
        weights: (n,) d.
        device: Where to compute.
        numbers: The columns that there still are, increasing; None for all.
    """

    gradients: GradientMatrix
    weights: npt.NDArray[np.float64]
    device: torch.device
    numbers: Positions | None = None

    @property
    def num_rows(self) -> int:
        """The number n of gradients."""
        return self.gradients.num_rows

    def narrowed(self, chosen: Positions) -> WeightedRows:
        """These columns alone, in memory, if they fit there and aren't there yet; else all of them, as they are."""
        gradients = self.gradients.narrowed(chosen) if self.numbers is None else None
        return self if gradients is None else replace(self, gradients=gradients, numbers=chosen)

    def blocks(self, chosen: Positions | None = None) -> Iterator[tuple[slice, torch.Tensor]]:
        """Yield where each block lies among the chosen columns (default: all), and its (n, ≤ WIDTH) float32 values."""
        if chosen is not None and self.numbers is not None:
            chosen = np.searchsorted(self.numbers, chosen)
        scale = torch.from_numpy(np.sqrt(self.weights).astype(np.float32)).to(self.device)[:, None]
        for start, block in _same_blocks(self.gradients, chosen):
            yield slice(start, start + block.shape[1]), torch.from_numpy(block).to(self.device) * scale

    def gram(self, chosen: Positions | None = None) -> torch.Tensor:
        """B·Bᵀ restricted to the chosen columns: (n, n) float64."""
        total = torch.zeros(self.num_rows, self.num_rows, dtype=torch.float64, device=self.device)
        for _, block in self.blocks(chosen):
            total += block @ block.T
        return total

    def columns(self, chosen: Positions) -> torch.Tensor:
        """The chosen columns, (n, len) float64; for a few."""
        return torch.cat([block.double() for _, block in self.blocks(chosen)], 1)

    def gram_and_dot(self, vector: torch.Tensor, chosen: Positions) -> tuple[torch.Tensor, torch.Tensor]:
        """:meth:`gram` and :meth:`dot` of the chosen columns, in one pass."""
        gram = torch.zeros(self.num_rows, self.num_rows, dtype=torch.float64, device=self.device)
        dot = torch.zeros(self.num_rows, dtype=torch.float64, device=self.device)
        for part, block in self.blocks(chosen):
            gram += block @ block.T
            dot += block.double() @ vector[part]
        return gram, dot

    def dot(self, vector: torch.Tensor, chosen: Positions) -> torch.Tensor:
        """B·v restricted to the chosen columns, with one element of v for each: (n,) float64."""
        total = torch.zeros(self.num_rows, dtype=torch.float64, device=self.device)
        for part, block in self.blocks(chosen):
            total += block.double() @ vector[part]
        return total

    def dot_transposed(self, vector: torch.Tensor, chosen: Positions) -> torch.Tensor:
        """Bᵀ·y restricted to the chosen columns: (len,) float64."""
        found = torch.empty(len(chosen), dtype=torch.float64, device=self.device)
        for part, block in self.blocks(chosen):
            found[part] = vector @ block.double()
        return found

    def dot_and_norms(
        self, vector: torch.Tensor, triangle: torch.Tensor, chosen: Positions
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """B_kᵀ·y and ‖T·B_k‖² for each chosen column k, T (n, n) lower triangular: (len,) float64 each."""
        dots = torch.empty(len(chosen), dtype=torch.float64, device=self.device)
        norms = torch.zeros_like(dots)
        half = triangle.float()
        bounds = np.linspace(0, self.num_rows, PARTS + 1).astype(int).tolist()
        for part, block in self.blocks(chosen):
            dots[part] = vector @ block.double()
            for first, last in pairwise(bounds):
                norms[part] += (half[first:last, :last] @ block[:last]).square().sum(0)
        return dots, norms


def _same_blocks(gradients: GradientMatrix, chosen: Positions | None) -> Iterator[tuple[int, npt.NDArray[np.float32]]]:
    """Cut the blocks that are read, of any width and in any order, into whole blocks of :data:`WIDTH` columns."""
    total = len(gradients.columns) if chosen is None else len(chosen)
    pending: dict[int, tuple[npt.NDArray[np.float32], int]] = {}
    for first, block in gradients.read(chosen):
        done = 0
        while done < block.shape[1]:
            number, inside = divmod(first + done, WIDTH)
            width = min(WIDTH, total - number * WIDTH)
            buffer, filled = pending.pop(number, (None, 0))
            if buffer is None:
                buffer = np.empty((gradients.num_rows, width), np.float32)
            count = min(block.shape[1] - done, width - inside)
            buffer[:, inside : inside + count] = block[:, done : done + count]
            done, filled = done + count, filled + count
            if filled < width:
                pending[number] = buffer, filled
            else:
                yield number * WIDTH, buffer
