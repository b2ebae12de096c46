"""Fit the regions of columns on a device: load the columns, which is the one pass over the store, solve, certify."""

from __future__ import annotations

import time

import torch

from causalprune.base.compute.runtime import resolve_device
from causalprune.base.errors import UsageError
from causalprune.base.units import format_bytes
from causalprune.solver.device.matrix import Matrix
from causalprune.solver.device.region import DeviceRegion
from causalprune.solver.device.residents import (
    Arrived,
    FloatColumns,
    PackedDeltas,
    Residents,
    form_that_fits,
    free_bytes,
)
from causalprune.solver.path import Task
from causalprune.solver.problem import SolverOptions
from causalprune.solver.source import ColumnSource
from causalprune.solver.streaming import Notify, Passes, ScanCosts
from causalprune.solver.working_set import MemoryPlan


def place_columns(
    source: ColumnSource, options: SolverOptions, *, plan: MemoryPlan, notify: Notify | None
) -> DevicePasses | None:
    """Load X into the memory of the device; None if it doesn't fit there, and ``options`` don't insist.

    Raises:
        UsageError: There is no such device, or it is too small.
    """
    device = resolve_device(options.device)
    free = free_bytes(device)
    form = form_that_fits(source, free)
    if form is not None:
        return DevicePasses(source, form, device, plan=plan, notify=notify)
    if options.resident:
        needed = f"room for {source.num_rows:,} × {source.num_columns:,} numbers"
        raise UsageError("`device`", expected=needed, found=f"{format_bytes(int(free))} free on {device}")
    return None


class DevicePasses(Passes):
    """The passes over columns on a device; see :class:`causalprune.solver.streaming.Passes`.

    Args:
        source: X.
        form: How the columns lie there, see :func:`causalprune.solver.device.residents.form_that_fits`.
        device: Where.
        plan: The width of blocks, and how many are formed at the same time.
        notify: Called after each block.
    """

    remedy = "raise `tol` or `alpha_ratio`: over all columns, which are there, it is solved as far as rounding allows"

    def __init__(
        self, source: ColumnSource, form: str, device: torch.device, *, plan: MemoryPlan, notify: Notify | None
    ) -> None:
        self._source, self._plan, self._notify = source, plan, notify
        self._before = source.bytes_read, *source.seconds
        self._residents = self._load(form, device)
        self._regions: list[DeviceRegion] = []
        self._solving = 0.0

    def _load(self, form: str, device: torch.device) -> Residents:
        source, plan = self._source, self._plan
        deltas = source.deltas
        if form == "packed":
            assert deltas is not None
            width = max(1, plan.block_width * deltas.num_columns // source.num_columns)
            return PackedDeltas(deltas, device, width=width, arrived=self._progress())
        return FloatColumns(source, device, width=plan.block_width, ahead=plan.ahead, arrived=self._progress())

    def _progress(self) -> Arrived:
        seen = 0

        def arrived(count: int) -> None:
            nonlocal seen
            seen += count
            if self._notify is not None:
                self._notify(1, f"{seen / self._source.num_columns:.2f} passes")

        return arrived

    def region(
        self, span: tuple[int, int], tasks: list[Task], *, target_norm: float, normalize: str, capacity: int
    ) -> DeviceRegion:
        """A region of columns ``span``; the arguments are those of :class:`DeviceRegion`."""
        region = DeviceRegion(
            Matrix(self._residents, *span), span[0], tasks,
            target_norm=target_norm, normalize=normalize, capacity=capacity,
        )  # fmt: skip
        self._regions.append(region)
        return region

    def first_pass(self) -> None:
        """Measure every column and solve."""
        for region in self._regions:
            region.measure()
        self.solve()

    def solve(self) -> None:
        """Solve all tasks."""
        for region in self._regions:
            started, before = time.perf_counter(), region.product_seconds
            region.solve()
            # What isn't spent in products is the CPU's work on active sets.
            self._solving += time.perf_counter() - started - (region.product_seconds - before)

    def certify(self) -> bool:
        """Certify every solution over all columns; return whether all gaps are small enough."""
        # All of them, because the evidence of a layer that holds is given, too, where another one misses.
        small = [region.certify() for region in self._regions]
        return all(small)

    def rank(self, tolerance: float) -> None:
        """Nothing to do: the KKT scores are computed in float64 when they are asked for."""

    def total_costs(self) -> ScanCosts:
        """The costs so far."""
        read, reading, decoding = self._source.bytes_read, *self._source.seconds
        products = sum(region.product_seconds for region in self._regions)
        seconds = {
            "read": reading - self._before[1],
            "decode": decoding - self._before[2],
            "product": products,
            "subproblem": self._solving,
        }
        return ScanCosts(self._source.num_columns, int(read - self._before[0]), seconds)
