"""Passes over a store that is larger than memory: solve while scanning, then prove over all columns.

The blocks of columns are read in a random order. Each region keeps the columns that may become active in its working
set, and solves over it while the scan goes on, so that later columns are judged by residuals rather than by y. At the
end of the first pass the working set nearly always holds every active set; what bounds can't rule out is read again,
until the duality gap over all columns is within the tolerance.

With several processes, each reads its own blocks; they meet where they solve and where they prove.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from causalprune.solver.process_group import ProcessGroup
from causalprune.solver.products import HostProducts, Products, Request, column_norms
from causalprune.solver.region import Region
from causalprune.solver.screening import Reference
from causalprune.solver.source import ColumnSource, Float32, Float64

_FIRST_CHECKS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1 / 2)
"""Shares of the first pass after which the tasks are solved over what was seen so far."""

_LATER_CHECKS = (1 / 4, 1 / 2)
"""The same for later passes, where violators of the last solution were seen."""

Notify = Callable[[int, str], None]
"""``notify(blocks read now, what is going on)``."""


@dataclass
class ScanCosts:
    """What the passes cost.

    Attributes:
        columns: Columns read, those read twice counted twice.
        bytes_read: Stored bytes read.
        seconds: By ``read``, ``decode`` and ``product`` (norms and correlations), summed over threads, and
            ``subproblem`` (solving over the working sets, and the bounds).
    """

    columns: int = 0
    bytes_read: int = 0
    seconds: dict[str, float] = field(
        default_factory=lambda: {"read": 0.0, "decode": 0.0, "product": 0.0, "subproblem": 0.0}
    )


@dataclass(frozen=True, eq=False)
class _BlockResult:
    """What a thread found in a block."""

    number: int
    first: int
    block: Float32
    parts: list[tuple[int, Float32, Float64 | None, Reference]]
    seconds: float


class Scanner:
    """Reads blocks for regions and lets them solve and prove.

    Args:
        source: X.
        regions: Which of its columns are fitted together; none overlap.
        group: The processes that divide the blocks.
        block_width: Columns of a block.
        ahead: Blocks that are worked on at the same time.
        max_passes: Passes after which it gives up.
        products: Where products are computed.
        seed: Of the order of the blocks.
        notify: Called with the number of blocks just read for the first time, and a word on how it goes.

    Attributes:
        costs: What it cost so far.
    """

    def __init__(
        self,
        source: ColumnSource,
        regions: Sequence[Region],
        *,
        group: ProcessGroup,
        block_width: int,
        ahead: int = 2,
        max_passes: float = 10.0,
        products: Products | None = None,
        seed: int = 0,
        notify: Notify | None = None,
    ) -> None:
        self._source, self._regions, self._group = source, list(regions), group
        self._width, self._ahead, self._max_passes = block_width, ahead, max_passes
        self._products = products or HostProducts()
        self._rng = np.random.default_rng(seed)
        self._notify = notify
        self._blocks = -(-source.num_columns // block_width)
        self._by_block: dict[int, list[int]] = {}
        for r, region in enumerate(self._regions):
            for number in region.parts:
                self._by_block.setdefault(number, []).append(r)
        self.costs = ScanCosts()

    @property
    def passes(self) -> float:
        """Columns read, as a multiple of all columns; with several processes, as if all had read as many."""
        return self._group.count * self.costs.columns / self._source.num_columns

    def total_costs(self) -> ScanCosts:
        """What it cost all processes together."""
        names = list(self.costs.seconds)
        columns, read, *seconds = self._group.sum(
            self.costs.columns, self.costs.bytes_read, *(self.costs.seconds[name] for name in names)
        )
        return ScanCosts(int(columns), int(read), dict(zip(names, seconds, strict=True)))

    def first_pass(self) -> None:
        """Read everything once and solve."""
        numbers = [b for b in range(self._blocks) if b in self._by_block]
        self._scan(numbers, first_pass=True)
        self._synchronize()
        for region in self._regions:
            region.finish_first_pass()
        self.solve()

    def solve(self) -> None:
        """Solve all tasks over the working sets."""
        self._solve(self._regions)

    def prove(self) -> bool:
        """Read again what bounds can't rule out, until every solution is certified.

        Returns:
            Whether they are; False when ``max_passes`` ran out.
        """
        while True:
            needed: dict[int, set[int]] = {}
            with self._subproblem():
                for r, region in enumerate(self._regions):
                    for number in region.certify():
                        needed.setdefault(number, set()).add(r)
            if all(task.finished or not task.solutions for region in self._regions for task in region.tasks):
                return True
            read, wanted = self._group.sum(self.costs.columns, len(needed))
            passes = read / self._source.num_columns + wanted / self._blocks
            if not wanted or passes > self._max_passes + 1e-9:
                return False
            with self._subproblem():
                for region in self._regions:
                    region.choose_reference()
            self._scan(sorted(needed), wanted=needed)
            self._synchronize()
            self._solve([region for region in self._regions if region.changed])

    def rank(self, tolerance: float) -> None:
        """Read again the blocks whose columns' correlations with the ranking solution aren't known well enough."""
        needed: dict[int, set[int]] = {}
        for r, region in enumerate(self._regions):
            for number, error in region.ranking.errors().items():
                if error > tolerance:
                    needed.setdefault(number, set()).add(r)
            region.choose_reference()
        self._scan(sorted(needed), wanted=needed, check=False)
        for region in self._regions:
            region.gather()

    def _synchronize(self) -> None:
        if self._group.count > 1:
            for region in self._regions:
                region.synchronize()

    def _solve(self, regions: Sequence[Region], *, exactly: bool = True, first_pass: bool = False) -> None:
        with self._subproblem():
            for region in regions:
                region.solve(exactly=exactly, first_pass=first_pass)

    def _scan(
        self,
        numbers: list[int],
        *,
        first_pass: bool = False,
        wanted: dict[int, set[int]] | None = None,
        check: bool = True,
    ) -> None:
        """Read blocks in a random order; solve on the way."""
        order = [int(n) for n in self._rng.permutation(numbers)]
        shares = (_FIRST_CHECKS if first_pass else _LATER_CHECKS) if check else ()
        # Every process must come to each of them: they are counted by the one with the fewest blocks.
        fewest = -int(self._group.maximum(-len(order))[0])
        checks = {max(1, int(fewest * share)) for share in shares}
        checks = {check for check in checks if check < fewest}

        def items() -> Iterator[tuple[int, list[tuple[int, Reference, bool]]]]:
            for number in order:
                mine = self._by_block[number] if wanted is None else sorted(wanted[number])
                yield number, [(r, self._regions[r].reference, first_pass) for r in mine]

        before = self._source.bytes_read
        read, decoded = self._source.seconds
        for count, result in enumerate(self._source.map_blocks(self._correlate, items(), self._width, self._ahead), 1):
            for r, products, norms, reference in result.parts:
                region = self._regions[r]
                start = max(region.start, result.first) - result.first
                stop = start + products.shape[1]
                region.add_block(result.number, result.block[:, start:stop], products, norms, reference)
            self.costs.seconds["product"] += result.seconds
            self.costs.columns += result.block.shape[1]
            del result
            if self._notify is not None:
                self._notify(self._group.count if first_pass else 0, f"{self.passes:.2f} passes")
            if count in checks:
                self._synchronize()
                due = [g for g in self._regions if first_pass or g.violators]
                self._solve(due, exactly=not first_pass, first_pass=first_pass)
        self.costs.bytes_read += self._source.bytes_read - before
        self.costs.seconds["read"] += self._source.seconds[0] - read
        self.costs.seconds["decode"] += self._source.seconds[1] - decoded

    def _correlate(self, first: int, block: Float32, wanted: list[tuple[int, Reference, bool]]) -> _BlockResult:
        """In a thread: correlate a block's columns with what their regions want to know."""
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
        return _BlockResult(first // self._width, first, block, parts, time.perf_counter() - started)

    @contextmanager
    def _subproblem(self) -> Iterator[None]:
        """Count the time within as that of subproblems."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.costs.seconds["subproblem"] += time.perf_counter() - started
