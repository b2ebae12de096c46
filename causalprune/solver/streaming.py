"""The passes over a store larger than memory: solve while scanning, then certify over all columns.

Blocks of columns are read in a random order. Each region keeps the columns that may become active in its working set,
and solves over it during the scan, so that later columns are screened by residuals rather than by y. After the first
pass the working set nearly always holds every active column. Blocks that the bounds can't rule out are read again, in
the order in which they were read last, until the duality gap over all columns is within the tolerance.

With several processes, each reads its own blocks; they wait for each other where they solve and where they certify.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from causalprune.solver.process_group import ProcessGroup
from causalprune.solver.products import Products, Request, column_norms
from causalprune.solver.region import Region
from causalprune.solver.screening import Reference
from causalprune.solver.source import ColumnSource, Float32, Float64
from causalprune.solver.working_set import MemoryPlan

_FIRST_CHECKS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""Shares of the first pass after which the tasks are solved over the working set so far."""

_LATER_CHECKS = (1 / 8, 1 / 4, 1 / 2)
"""The same for later passes, for regions where violators of the last solution were found."""

Notify = Callable[[int, str], None]
"""``notify(blocks, text)``: how many blocks were read for the first time, and the progress in words."""


@dataclass
class ScanCosts:
    """Costs of the passes.

    Attributes:
        columns: Columns read; a column read twice counts twice.
        bytes_read: Stored bytes read.
        seconds: By ``read``, ``decode`` and ``product`` (norms and correlations), summed over threads, and
            ``subproblem`` (solving over the working sets, and the bounds).
    """

    columns: int
    bytes_read: int
    seconds: dict[str, float]


@dataclass(frozen=True, eq=False)
class _BlockResult:
    """A block's products with the references of its regions: (region, products, norms, reference)."""

    first: int
    block: Float32
    parts: list[tuple[int, Float32, Float64 | None, Reference]]
    seconds: float


class Passes(ABC):
    """The passes over all columns of which a fit consists, whether they are read in blocks or lie on a device.

    Attributes:
        remedy: What to do about a fit that these passes didn't certify.
    """

    remedy = "raise `max_passes`, `memory`, `tol` or `alpha_ratio`"

    @abstractmethod
    def first_pass(self) -> None:
        """Read every column once, and solve all tasks of all regions."""

    @abstractmethod
    def solve(self) -> None:
        """Solve all tasks, those that were added since as well."""

    @abstractmethod
    def certify(self) -> bool:
        """Certify every solution; return whether all gaps are small enough."""

    @abstractmethod
    def rank(self, tolerance: float) -> None:
        """Compute the KKT scores of all columns to within ``tolerance``."""

    @abstractmethod
    def total_costs(self) -> ScanCosts:
        """The costs so far of all processes together."""


class Scanner(Passes):
    """Reads blocks for regions, and has these solve and certify.

    Args:
        source: X.
        regions: Ranges of its columns, each fitted by itself; none overlap.
        group: The processes that divide the blocks.
        plan: The width of blocks, and how many are processed at the same time.
        max_passes: Passes after which it gives up.
        products: Where products are computed.
        seed: Seed of the order of the blocks.
        notify: Called after each block.
    """

    def __init__(
        self,
        source: ColumnSource,
        regions: Sequence[Region],
        *,
        group: ProcessGroup,
        plan: MemoryPlan,
        max_passes: float,
        products: Products,
        seed: int,
        notify: Notify | None,
    ) -> None:
        self._source, self._regions, self._group = source, list(regions), group
        self._width, self._ahead, self._max_passes = plan.block_width, plan.ahead, max_passes
        self._products = products
        self._rng = np.random.default_rng(seed)
        self._notify = notify
        # Numbers of the blocks, those that were read longest ago first.
        self._order: list[int] = []
        self._blocks = -(-source.num_columns // self._width)
        self._by_block = _by_block(region.parts for region in self._regions)
        self._before = source.bytes_read, *source.seconds
        self._columns, self._product_seconds, self._subproblem_seconds = 0, 0.0, 0.0

    def total_costs(self) -> ScanCosts:
        """The costs so far of all processes together."""
        now = self._source.bytes_read, *self._source.seconds
        reading = (after - before for after, before in zip(now, self._before, strict=True))
        columns, read, *seconds = self._group.sum(
            self._columns, *reading, self._product_seconds, self._subproblem_seconds
        )
        return ScanCosts(
            int(columns), int(read), dict(zip(("read", "decode", "product", "subproblem"), seconds, strict=True))
        )

    def first_pass(self) -> None:
        """Read every block once and solve."""
        self._scan(self._by_block, first_pass=True)
        self._synchronize()
        self.solve()

    def solve(self, regions: Sequence[Region] | None = None, *, exactly: bool = True, first_pass: bool = False) -> None:
        """Solve all tasks of regions, by default of all, over their working sets; see :meth:`Region.solve`."""
        with self._subproblem():
            for region in self._regions if regions is None else regions:
                region.solve(exactly=exactly, first_pass=first_pass)

    def certify(self) -> bool:
        """Read again the blocks that the bounds can't rule out, until every solution is certified.

        Returns:
            Whether every solution is certified; False if that would take more than ``max_passes``.
        """
        while True:
            with self._subproblem():
                needed = _by_block(region.certify() for region in self._regions)
            if all(task.finished or not task.solutions for region in self._regions for task in region.tasks):
                return True
            read, wanted = self._group.sum(self._columns, len(needed))
            passes = read / self._source.num_columns + wanted / self._blocks
            if not wanted or passes > self._max_passes + 1e-9:
                return False
            self._scan(needed)
            self._synchronize()
            self.solve([region for region in self._regions if region.changed])

    def rank(self, tolerance: float) -> None:
        """Read again the blocks whose columns' KKT scores may be off by more than ``tolerance``."""
        needed = _by_block(
            {number for number, error in region.ranking.errors().items() if error > tolerance}
            for region in self._regions
        )
        for region in self._regions:
            region.choose_reference()
        self._scan(needed, solve=False)
        for region in self._regions:
            region.exchange.gather()

    def _synchronize(self) -> None:
        for region in self._regions:
            region.synchronize()

    def _scan(self, wanted: Mapping[int, Sequence[int]], *, first_pass: bool = False, solve: bool = True) -> None:
        """Read blocks, by number, for the regions that want them; solve on the way.

        The first order is random. Later passes begin where blocks were judged by the oldest residuals, since most
        violators are there: then what follows is judged by residuals that know them, and needn't be read again.
        """
        if first_pass:
            order = [int(n) for n in self._rng.permutation(sorted(wanted))]
        else:
            order = [n for n in self._order if n in wanted]
        self._order = [n for n in self._order if n not in wanted] + order
        shares = (_FIRST_CHECKS if first_pass else _LATER_CHECKS) if solve else ()
        # All processes must solve equally often, so the process with the fewest blocks determines when.
        fewest = -int(self._group.maximum(-len(order))[0])
        checks = {max(1, int(fewest * share)) for share in shares}
        checks = {check for check in checks if check < fewest}

        def items() -> Iterator[tuple[int, list[tuple[int, Reference, bool]]]]:
            for number in order:
                yield number, [(r, self._regions[r].reference, first_pass) for r in wanted[number]]

        for count, result in enumerate(self._source.map_blocks(self._correlate, items(), self._width, self._ahead), 1):
            for r, products, norms, reference in result.parts:
                region = self._regions[r]
                start = max(region.start, result.first) - result.first
                stop = start + products.shape[1]
                region.add_block(result.first // self._width, result.block[:, start:stop], products, norms, reference)
            self._product_seconds += result.seconds
            self._columns += result.block.shape[1]
            del result
            if self._notify is not None:
                # As if every process had read as much as this one.
                passes = self._group.count * self._columns / self._source.num_columns
                self._notify(self._group.count if first_pass else 0, f"{passes:.2f} passes")
            if count in checks:
                self._synchronize()
                due = [g for g in self._regions if first_pass or g.violators]
                self.solve(due, exactly=not first_pass, first_pass=first_pass)

    def _correlate(self, first: int, block: Float32, wanted: list[tuple[int, Reference, bool]]) -> _BlockResult:
        """Correlate a block's columns with their regions' references; called in the threads that read."""
        started = time.perf_counter()
        requests = []
        for r, reference, _ in wanted:
            start = max(self._regions[r].start, first) - first
            stop = min(self._regions[r].stop, first + block.shape[1]) - first
            requests.append(Request(start, stop, reference.narrow))
        found = self._products.correlate(block, requests)
        norms = column_norms(block) if any(fresh for _, _, fresh in wanted) else None
        parts = [
            (r, products, norms[request.start : request.stop] if norms is not None else None, reference)
            for (r, reference, _), request, products in zip(wanted, requests, found, strict=True)
        ]
        return _BlockResult(first, block, parts, time.perf_counter() - started)

    @contextmanager
    def _subproblem(self) -> Iterator[None]:
        """Count the time in the context as that of subproblems."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._subproblem_seconds += time.perf_counter() - started


def _by_block(numbers: Iterable[Iterable[int]]) -> dict[int, list[int]]:
    """The regions, by place, that want each block, from the block numbers that each region wants."""
    wanted: dict[int, list[int]] = {}
    for place, some in enumerate(numbers):
        for number in some:
            wanted.setdefault(number, []).append(place)
    return wanted
