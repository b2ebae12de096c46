"""Correlations x_jᵀv of blocks of columns with residuals, in float32, with a proven bound on their error.

The error of a sum of n products in float32, in any order and with or without fused multiply-add, is at most
n·u/(1 − n·u)·Σ|x_t·v_t| ≤ n·u/(1 − n·u)·‖x‖·‖v‖ with u = 2⁻²⁴ (Higham, Accuracy and Stability of Numerical Algorithms,
section 3.1). Panels of 64 rows are summed first and their sums added up, so that n is 64 + T/64 rather than T. That
holds where no product leaves the range of float32: for columns of a :func:`usual` norm, and vectors of a moderate one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from causalprune.base.compute.precision import full_precision
from causalprune.base.compute.runtime import resolve_device
from causalprune.solver.source import Float32, Float64

FLOAT32_ROUNDING = 2.0**-24
"""u, the unit roundoff of float32."""

PANEL_ROWS = 64

USUAL_NORMS = (2.0**-90, 2.0**60)
"""Products of columns between these norms with vectors between :data:`VECTOR_NORMS` stay within float32's range."""

VECTOR_NORMS = (2.0**-20, 2.0**60)
"""Norms of vectors that float32 can correlate with columns of a usual norm."""

_TILE = 16, 2048
"""Rows and columns that are converted to float64 at a time: they stay in the processor's cache."""


def correlation_error(num_rows: int) -> float:
    """Largest error of a product x_jᵀv as a share of ‖x_j‖·‖v‖.

    It includes the rounding of v to float32 and of the result; n·u is below 1e-3, so 1 % covers 1/(1 − n·u).
    """
    return 1.01 * (PANEL_ROWS + num_rows / PANEL_ROWS + 4) * FLOAT32_ROUNDING


def usual(norms: Float64) -> npt.NDArray[np.bool_]:
    """(n,) True for the norms of columns that float32 products, within :func:`correlation_error`, are good for."""
    return (norms >= USUAL_NORMS[0]) & (norms <= USUAL_NORMS[1])


@dataclass(frozen=True, eq=False)
class Request:
    """Correlate columns ``start`` to ``stop`` of a block with the rows of ``vectors`` (K, T) float32."""

    start: int
    stop: int
    vectors: Float32


class HostProducts:
    """Products on the CPU, in the calling thread."""

    def correlate(self, block: Float32, requests: list[Request]) -> list[Float32]:
        """Correlate columns with vectors; called in several threads.

        Args:
            block: (T, w) float32.
            requests: Which columns with which vectors.

        Returns:
            For each request the (K, n) array x_jᵀv; worth nothing for a column whose norm isn't :func:`usual`.
        """
        found = [np.zeros((len(request.vectors), request.stop - request.start), np.float32) for request in requests]
        with np.errstate(all="ignore"):
            for first in range(0, len(block), PANEL_ROWS):
                panel = block[first : first + PANEL_ROWS]
                for request, total in zip(requests, found, strict=True):
                    total += request.vectors[:, first : first + PANEL_ROWS] @ panel[:, request.start : request.stop]
        return found


class DeviceProducts:
    """Products on an accelerator through PyTorch, in true float32: TensorFloat-32 would violate the error bound.

    Args:
        device: Such as ``cuda``; also ``cpu``, for tests without an accelerator.

    Raises:
        UsageError: There is no such device.
    """

    def __init__(self, device: str) -> None:
        import torch

        self._torch = torch
        self._device = resolve_device(device)

    def correlate(self, block: Float32, requests: list[Request]) -> list[Float32]:
        """See :meth:`HostProducts.correlate`."""
        torch = self._torch
        with torch.inference_mode(), full_precision():
            there = torch.from_numpy(block).to(self._device, non_blocking=True)
            found = []
            for request in requests:
                vectors = torch.from_numpy(request.vectors).to(self._device, non_blocking=True)
                total = torch.zeros(
                    (len(request.vectors), request.stop - request.start), dtype=torch.float32, device=self._device
                )
                for first in range(0, len(block), PANEL_ROWS):
                    rows = slice(first, first + PANEL_ROWS)
                    total += vectors[:, rows] @ there[rows, request.start : request.stop]
                found.append(total)
            return [total.cpu().numpy() for total in found]


Products = HostProducts | DeviceProducts


def column_norms(block: Float32) -> Float64:
    """‖x_j‖ of each column, (w,), summed in float64, where no square of a float32 number over- or underflows."""
    rows, columns = _TILE
    squares = np.zeros(block.shape[1])
    for start in range(0, block.shape[1], columns):
        for first in range(0, len(block), rows):
            wide = block[first : first + rows, start : start + columns].astype(np.float64)
            squares[start : start + columns] += np.einsum("ij,ij->j", wide, wide)
    return np.sqrt(squares)
