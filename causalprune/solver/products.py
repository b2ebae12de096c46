"""Correlations x_jᵀv of blocks of columns with residuals, in float32, with a proven bound on their error.

The error of a sum of n products in float32, in any order and with or without fused multiply-add, is at most
n·u/(1 − n·u)·Σ|x_t·v_t| ≤ n·u/(1 − n·u)·‖x‖·‖v‖ with u = 2⁻²⁴ (Higham, Accuracy and Stability of Numerical Algorithms,
section 3.1). Panels of 64 rows are summed first and their sums added up, so that n is 64 + T/64 rather than T.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from causalprune.base.precision import full_precision
from causalprune.base.runtime import resolve_device
from causalprune.solver.source import Float32, Float64

FLOAT32_ROUNDING = 2.0**-24
"""u, the unit roundoff of float32."""

PANEL_ROWS = 64

_SLAB = 512


def correlation_error(num_rows: int) -> float:
    """Largest error of a product x_jᵀv as a share of ‖x_j‖·‖v‖.

    It includes the rounding of v to float32 and of the result; n·u is below 1e-3, so 1 % covers 1/(1 − n·u).
    """
    return 1.01 * (PANEL_ROWS + num_rows / PANEL_ROWS + 4) * FLOAT32_ROUNDING


def norm_error(num_rows: int) -> float:
    """Largest relative error of a column's norm computed by :func:`column_norms` and rounded to float32."""
    return 1.01 * (num_rows + 4) * FLOAT32_ROUNDING


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
            For each request the (K, n) array x_jᵀv.
        """
        found = [np.zeros((len(request.vectors), request.stop - request.start), np.float32) for request in requests]
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
    """‖x_j‖ of each column, (w,) float64, summed in float32 after scaling by a power of two, which is exact.

    Entries are of the order of 1e-12, so that their squares would leave the range of float32. Columns out of range even
    after scaling are summed in float64.
    """
    largest = float(block[:PANEL_ROWS].max(initial=0.0))
    unit = 2.0 ** -math.floor(math.log2(largest)) if 0 < largest < math.inf else 1.0
    squares = np.zeros(block.shape[1], np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        for first in range(0, len(block), PANEL_ROWS):
            panel = block[first : first + PANEL_ROWS] * np.float32(unit)
            squares += np.einsum("ij,ij->j", panel, panel)
    norms = np.sqrt(squares.astype(np.float64)) / unit
    odd = np.flatnonzero(~((squares > 1e-30) & (squares < 1e30)))
    for first in range(0, len(odd), _SLAB):
        part = odd[first : first + _SLAB]
        values = block[:, part]
        if values.any():
            wide = values.astype(np.float64)
            norms[part] = np.sqrt(np.einsum("ij,ij->j", wide, wide))
    return norms
