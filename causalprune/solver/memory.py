"""How much of the memory goes to what."""

from __future__ import annotations

from dataclasses import dataclass

from causalprune.base.errors import UsageError
from causalprune.base.units import format_bytes

_COLUMN_BYTES = 26
"""For each column: norm, rank, whether it is in the working set; in the result γ and the KKT score; copies of these."""

_SMALLEST_SET = 128
_LARGEST_SET = 2**27
"""Bytes that are enough for the working set, unless both of the following ask for more."""

_LARGEST_SHARE = 10
"""One column in so many is enough."""

_COLUMNS_A_ROW = 256
"""So many columns for each that a Lasso can select are enough."""

_PROGRAM = 160 * 2**20
"""What Python with NumPy, SciPy and Zarr occupies. A constant: with a measured one, equal fits would differ in their
last bits from run to run."""

_WORKSPACE = 2**25
"""Active sets, their factors, tables of one block's scores."""


@dataclass(frozen=True)
class MemoryPlan:
    """What fits.

    Attributes:
        block_width: Columns of a block.
        ahead: Blocks that are worked on at the same time.
        working_set_columns: Columns of all working sets together.
    """

    block_width: int
    ahead: int
    working_set_columns: int


def plan_memory(
    limit: int,
    *,
    num_rows: int,
    num_columns: int,
    chunk_width: int,
    vectors: int,
    copies: float = 1.0,
    processes: int = 1,
) -> MemoryPlan:
    """Divide the memory of the process.

    Args:
        limit: Bytes for the whole process; PyTorch, if something else loaded it, comes on top.
        num_rows: T.
        num_columns: P.
        chunk_width: A block of this width, or a multiple of it, decodes nothing twice.
        vectors: Residuals that each block is correlated with.
        copies: How many times its own size forming a block takes.
        processes: How many fill the working set, each a share of its own.

    Raises:
        UsageError: Not even narrow blocks and a small working set fit.
    """
    column = 4 * num_rows
    fixed = _PROGRAM + _COLUMN_BYTES * num_columns + _WORKSPACE
    smallest = min(num_columns, processes * (_SMALLEST_SET + 2 * num_rows)) * column
    width = min(chunk_width, num_columns)
    for ahead, shrink in ((2, 1), (2, 2), (1, 1), (1, 2), (1, 4), (1, 8), (0, 8), (0, 16), (0, 32)):
        narrow = max(1, width // shrink)
        # A block, its products with their scores, and the columns gathered from it.
        blocks = int((ahead + 1) * narrow * (column * copies + 16 * vectors)) + narrow * 8 * vectors
        rest = limit - fixed - blocks
        if rest >= max(smallest, blocks // 2 if shrink < 8 else 0):
            # As the working set grows, passes become fewer and every look at it dearer.
            wide = min(num_columns // _LARGEST_SHARE, _COLUMNS_A_ROW * num_rows)
            useful = max(smallest // column, wide, _LARGEST_SET // column)
            columns = min(num_columns, useful, int(0.8 * rest) // column)
            return MemoryPlan(narrow, ahead, max(columns, smallest // column))
    needed = fixed + smallest + int(max(1, width // 32) * (column * copies + 24 * vectors))
    raise UsageError(
        "memory", expected=f"at least {format_bytes(1.1 * needed)} for {num_rows:,} × {num_columns:,}",
        found=format_bytes(limit), remedy="raise it",
    )  # fmt: skip


def divide_working_set(total: int, sizes: list[int]) -> list[int]:
    """Divide the columns of a working set among regions: small ones take what they have, the others alike."""
    shares = [0] * len(sizes)
    rest, left = total, len(sizes)
    for place in sorted(range(len(sizes)), key=sizes.__getitem__):
        shares[place] = max(1, min(sizes[place], rest // left))
        rest, left = rest - shares[place], left - 1
    return shares
