"""The upper bounds that a region keeps for the columns outside its working set hold for each of them."""

import numpy as np
import pytest

from causalprune.solver.path import Task
from causalprune.solver.process_group import Division, ProcessGroup
from causalprune.solver.products import HostProducts, Request, column_norms
from causalprune.solver.region import Region

ROWS, COLUMNS, WIDTH = 20, 60, 12


def add_block(region, X, number, *, first_pass=False):
    """Read a block for the region, as the scanner does."""
    block = np.ascontiguousarray(X[:, number * WIDTH : (number + 1) * WIDTH])
    reference = region.reference
    (products,) = HostProducts().correlate(block, [Request(0, block.shape[1], reference.narrow)])
    region.add_block(number, block, products, column_norms(block) if first_pass else None, reference)


def require_bounds(region, X):
    """The correlation of every column outside the working set is within its part's bound."""
    for part in region.parts.values():
        columns = X[:, part.start : part.stop].astype(np.float64) * region._scales.of(slice(part.start, part.stop))[0]
        correlations = np.abs(part.reference.vectors.T @ columns)
        outside = ~region._screening.held[part.start : part.stop]
        assert (correlations[:, outside] <= part.peak[:, None] + 1e-12).all()


@pytest.mark.parametrize("normalize", ["none", "column"])
@pytest.mark.parametrize("seed", range(8))
def test_bounds_hold_whatever_joins_and_leaves_the_working_set(seed, normalize):
    """The working set is so small that columns leave it all the time, even those of the block that is being read."""
    rng = np.random.default_rng(seed)
    X = (rng.random((ROWS, COLUMNS)) * rng.random(COLUMNS)).astype(np.float32)
    y = rng.standard_normal(ROWS)
    task = Task(y / np.linalg.norm(y), 1.0, 0, 1e-6, lambda alpha_max: [alpha_max * 0.3, alpha_max * 0.1])
    region = Region(
        Division(0, COLUMNS, WIDTH, ProcessGroup()), [task], target_norm=1.0, normalize=normalize, capacity=16
    )
    for number in rng.permutation(COLUMNS // WIDTH):
        add_block(region, X, int(number), first_pass=True)
    for turn in range(30):
        if turn % 5 == 0:
            region.solve(exactly=True)
        add_block(region, X, int(rng.integers(COLUMNS // WIDTH)))
        require_bounds(region, X)
