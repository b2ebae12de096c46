"""The exact fit on a device against that on the CPU, for ``gpu.py fit``.

A path of 20 α down to 0.01 alpha_max over columns of unit norm, certified to 1e-6. The matrix is made on the device and
lies in the host's memory for both, where other fits have a store to decode. The CPU correlates blocks in two threads
and solves in a third, as with a store. ``transfer`` is what it takes until all columns are on the device, ``device s``
the rest of the fit: ``products`` with all columns there, ``active sets``, which the CPU solves, and the result. ``×``
is the CPU's seconds over the device's, without and with the transfer. Afterwards the fits are compared: whether the
same γ are nonzero on the whole path, and the largest difference of the last γ, relative to the largest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import numpy as np
import torch

from causalprune.solver.evidence import FitResult
from causalprune.solver.exact_fit import fit_exactly
from causalprune.solver.problem import LassoProblem, SolverOptions
from causalprune.solver.source import Argument, ArraySource, Float32, Float64, Result
from causalprune.trajectory.threads import prefetched

SIZES = {"cuda": [(512, 1_000_000), (64, 25_000_000)], "cpu": [(256, 100_000), (64, 400_000)]}
"""Steps and columns."""

SMOKE = [(24, 3000)]

_SLAB = 100_000


class Threaded(ArraySource):
    """Arrays in memory whose blocks are processed in threads, like those of a store.

    Attributes:
        read_at: When the last block was processed.
    """

    read_at = 0.0

    def map_blocks(
        self,
        function: Callable[[int, Float32, Argument], Result],
        items: Iterable[tuple[int, Argument]],
        width: int,
        ahead: int,
    ) -> Iterator[Result]:
        def work(number: int, argument: Argument) -> Result:
            first = number * width
            return function(first, self.read(first, min(first + width, self.num_columns)), argument)

        yield from prefetched((partial(work, *item) for item in items), ahead)
        self.read_at = time.perf_counter()


def made(rows: int, columns: int, device: str) -> tuple[Float32, Float64]:
    """X of columns that follow a few common factors over several decades, like Δθ², and y that 50 of them cause."""
    generator = torch.Generator(device).manual_seed(0)
    normal = partial(torch.randn, generator=generator, device=device)
    X = np.empty((rows, columns), np.float32)
    factors = normal(rows, 12)
    for first in range(0, columns, _SLAB):
        width = min(_SLAB, columns - first)
        decades = 10 ** (2 * torch.rand(width, generator=generator, device=device) - 14)
        slab = torch.exp(0.3 * factors @ normal(12, width)) * normal(rows, width).square() * decades
        X[:, first : first + width] = slab.cpu().numpy()
    rng = np.random.default_rng(0)
    causes = X[:, rng.choice(columns, 50, replace=False)].astype(np.float64)
    return X, -(causes / causes.std(axis=0)).sum(axis=1) + 2 * rng.standard_normal(rows)


def fitted(X: Float32, y: Float64, options: SolverOptions) -> tuple[float, float, FitResult]:
    """Seconds until the last block was read, and after that; result of a fit."""
    problem, source = LassoProblem(num_alphas=20, normalize="column"), Threaded(X, y, block_width=2**22 // len(y))
    started = time.perf_counter()
    result = fit_exactly(source, problem, options)
    return source.read_at - started, time.perf_counter() - source.read_at, result


def compare_fits(device: str, *, smoke: bool) -> None:
    """Print the table."""
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    print(f"torch {torch.__version__}, {name}\n")
    head = ("T × P", "CPU s", "transfer", "device s", "products", "active sets", "×", "× with transfer")
    head += ("nonzero", "same support", "largest difference")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)
    # What loads at the first use of the device isn't part of a fit.
    fitted(*made(*SMOKE[0], device), SolverOptions(device=device, resident=True))
    for rows, columns in SMOKE if smoke else SIZES[device]:
        print(line(*made(rows, columns, device), device), flush=True)


def line(X: Float32, y: Float64, device: str) -> str:
    """A line of the table."""
    transfer, there, found = fitted(X, y, SolverOptions(device=device, resident=True, held_out=0))
    *on_host, truth = fitted(X, y, SolverOptions(held_out=0, memory_bytes=2**32))
    names = ("path_indptr", "path_indices")
    supports = [
        [frozenset(part.tolist()) for part in np.split(*(result.extras[name] for name in reversed(names)))]
        for result in (found, truth)
    ]
    difference = np.abs(found.gamma - truth.gamma).max() / np.abs(truth.gamma).max()
    cells = (
        f"{X.shape[0]} × {X.shape[1]:,}",
        f"{sum(on_host):.1f}",
        f"{transfer:.2f}",
        f"{there:.2f}",
        f"{found.seconds['product']:.2f}",
        f"{found.seconds['subproblem']:.2f}",
        f"{sum(on_host) / there:.1f}",
        f"{sum(on_host) / (transfer + there):.1f}",
        f"{found.evidence.num_nonzero}",
        "yes" if supports[0] == supports[1] else "no",
        f"{difference:.0e}",
    )
    return "| " + " | ".join(cells) + " |"
