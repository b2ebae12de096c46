"""X̃, the scaled columns of a range, on a device: every product with it is accumulated in float64.

A float32 number is a float64 number, so the columns enter unrounded, and a product x̃ᵀv of T terms is off by no more
than that of NumPy in float64. Nothing is screened in float32, so nothing has to be bounded: a pass over all columns
takes about as long as reading them from the device's memory a few times.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from causalprune.solver.device.residents import Residents
from causalprune.solver.source import Float32, Float64
from causalprune.solver.working_set import Positions

_SLAB_BYTES = {"cuda": 2**28, "cpu": 2**22}
"""A slab of columns in float64, or its products: enough to keep a device busy, but within a processor's cache."""

Shifts = Sequence[tuple[Positions, Float64]]
"""For each vector, columns and what is subtracted from their shares: Tλ₂g/(Tλ₁) of the active ones."""


class Matrix:
    """Columns ``start`` to ``stop`` of X, and the scale of each, on a device.

    Vectors are divided by their bound Tλ₁, so that products with them are shares of it; ``sign`` says which shares the
    KKT conditions bound, see :func:`causalprune.solver.certificate.signed`.

    Args:
        residents: All columns of X.
        start: First column.
        stop: Column after the last.

    Attributes:
        num_rows: T.
        num_columns: stop − start.
        seconds: Time spent in products so far.
    """

    def __init__(self, residents: Residents, start: int, stop: int) -> None:
        self._residents, self._start = residents, start
        self.num_rows, self.num_columns = residents.num_rows, stop - start
        self.seconds = 0.0
        self._device = residents.device
        self._scale = torch.ones(0, dtype=torch.float64, device=self._device)

    def norms(self) -> Float64:
        """(n,) ‖x_j‖, whose squares neither over- nor underflow in float64."""
        norms = self.empty(torch.float64)
        for first, slab in self._slabs(0):
            torch.linalg.vector_norm(slab, dim=1, out=norms[first : first + len(slab)])
        return self._host(norms)

    def scale_by(self, scale: Float64) -> None:
        """Set the (n,) scales s_j of x̃_j = s_j·x_j."""
        self._scale = torch.from_numpy(scale).to(self._device)

    def gather(self, columns: Positions) -> Float32:
        """(T, n) columns of X, unscaled, by their positions in the range."""
        found = self._residents.gather(torch.from_numpy(columns + self._start).to(self._device))
        host: Float32 = found.cpu().numpy().T
        return host

    def empty(self, dtype: torch.dtype, fill: float = 0.0) -> torch.Tensor:
        """(n,) on the device, one number for each column."""
        return torch.full((self.num_columns,), fill, dtype=dtype, device=self._device)

    def nearest(self, score: torch.Tensor, count: int) -> Positions:
        """Positions of the largest of (n,) scores."""
        found: Positions = torch.topk(score, min(count, self.num_columns)).indices.cpu().numpy()
        return found

    def worst(
        self,
        vectors: Float64,
        sign: int,
        count: int,
        held: torch.Tensor,
        score: torch.Tensor,
        shifts: Shifts = (),
    ) -> tuple[Float64, Positions]:
        """The columns with the largest shares.

        Args:
            vectors: (K, T).
            sign: Which shares.
            count: Columns to find for each vector.
            held: (n,) True for the columns to leave out.
            score: (n,) raised to the largest share of each column.
            shifts: For each vector, columns and what to subtract from their shares.

        Returns:
            (K, ≤ count) shares, descending, and positions.
        """
        values, positions = [], []
        for first, shares in self._shares(vectors, sign, shifts):
            part = slice(first, first + shares.shape[1])
            torch.maximum(score[part], shares.amax(dim=0).to(score.dtype), out=score[part])
            found = torch.topk(shares.masked_fill_(held[part], -torch.inf), min(count, shares.shape[1]), dim=1)
            values.append(found.values)
            positions.append(found.indices + first)
        together = torch.cat(values, dim=1)
        best = torch.topk(together, min(count, together.shape[1]), dim=1)
        chosen = torch.gather(torch.cat(positions, dim=1), 1, best.indices)
        return self._host(best.values), chosen.cpu().numpy()

    def peaks(self, vectors: Float64, sign: int, shifts: Shifts) -> Float64:
        """(K,) the largest share of each of (K, T) vectors over all columns; at least 0."""
        peaks = torch.zeros(len(vectors), dtype=torch.float64, device=self._device)
        for _, shares in self._shares(vectors, sign, shifts):
            torch.maximum(peaks, shares.amax(dim=1), out=peaks)
        return self._host(peaks)

    def shares(self, vector: Float64, sign: int, shift: tuple[Positions, Float64]) -> torch.Tensor:
        """(n,) float64 shares of one (T,) vector, on the device."""
        found = self.empty(torch.float64)
        for first, shares in self._shares(vector[None], sign, [shift]):
            found[first : first + shares.shape[1]] = shares[0]
        return found

    def _shares(self, vectors: Float64, sign: int, shifts: Shifts = ()) -> Iterator[tuple[int, torch.Tensor]]:
        """(first column, (K, w) float64) slab by slab; the time that the caller takes counts as well."""
        started = time.perf_counter()
        there = torch.from_numpy(np.ascontiguousarray(vectors)).to(self._device)
        subtract = self._sorted(shifts)
        for first, slab in self._slabs(len(vectors)):
            shares = (there @ slab.T).mul_(self._scale[first : first + len(slab)])
            low, high = np.searchsorted(subtract[0], [first, first + len(slab)])
            if low < high:
                columns, rows, values = (torch.from_numpy(part[low:high]).to(self._device) for part in subtract)
                shares[rows, columns - first] -= values
            yield first, shares.abs_() if sign == 0 else shares.mul_(sign)
        self.seconds += time.perf_counter() - started

    @staticmethod
    def _sorted(shifts: Shifts) -> tuple[Positions, Positions, Float64]:
        """Column, vector and value of all shifts, by column."""
        columns = np.concatenate([np.empty(0, np.int64), *(columns for columns, _ in shifts)])
        rows = np.repeat(np.arange(len(shifts)), [len(columns) for columns, _ in shifts])
        values = np.concatenate([np.empty(0), *(values for _, values in shifts)])
        order = np.argsort(columns, kind="stable")
        return columns[order], rows[order], values[order]

    def _slabs(self, vectors: int) -> Iterator[tuple[int, torch.Tensor]]:
        """(first column, (w, T) float64 columns of X) from the first to the last, for products with so many vectors."""
        width = max(1, _SLAB_BYTES[self._device.type] // (8 * max(self.num_rows, vectors)))
        for first in range(0, self.num_columns, width):
            stop = min(first + width, self.num_columns)
            yield first, self._residents.slab(self._start + first, self._start + stop).to(torch.float64)

    def _host(self, values: torch.Tensor) -> Float64:
        """Values on the host, for which it waits."""
        started = time.perf_counter()
        host: Float64 = values.cpu().numpy()
        self.seconds += time.perf_counter() - started
        return host
